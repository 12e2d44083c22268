"""Time ONNX models against each other: `python runner.py job.json result.json`.

Needs Python 3.11, numpy and onnxruntime, nothing of ours: it is copied to the machine that is
measured. It only collects; `stats.py` judges. Three jobs, by the key "do" of job.json:

time:    see `collect`. The job is called its spec, its result samples.
profile: see `profile`.
limits:  see `limits`.

spec:    {"models": {name: path | [path, ...]}, "workloads": {name: npz with the feeds}, "baseline": name,
          "threads": int, "provider": an execution provider, the CPU's without, "warmup_seconds": float,
          "max_seconds": float, "min_blocks": int, "block_ms": float, "ratio_ci": float, "seed": int,
          "caches": {model: {input: output}}, "capacity": {workload: tokens},
          "own": {model: {name: npz}}, "commands": {model: [word, ...]}}
A model of several graphs is all of them, run in this order on what each takes of the feeds.
`caches` names the language models that write new keys and values into the memory they read the old ones
from, and the inputs and outputs that share it; it has room for `capacity` tokens. `own` are the feeds of
models that cannot take the others'. `commands` start the workers of models that another runtime runs.
These four may be left out.

Design. An onnxruntime session keeps a thread pool that spins a while after each run and would steal
the core from the next session, so every model has a process of its own, all are alive at once, and each
is stopped (SIGSTOP) but for the time in which it works. None is pinned to cores: one on which others
run is worse than any. A *block* is some calls of one model in a row;
where the hypervisor took the core meanwhile it is measured again. A *round* is one block of each model
in random order; a *repeat* is fresh processes, a warm-up and `min_blocks` rounds of each workload.
Repeats are what the intervals rest on: where a process happens to lie in memory shifts all of its
timings, so blocks of one process are not independent (Kalibera and Jones, Rigorous benchmarking in
reasonable time, ISMM 2013).
"""

import contextlib
import gc
import glob
import itertools
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

CPU = "CPUExecutionProvider"
PARENT = os.getppid()  # who asked for this benchmark, or the shell that it went through
FEWEST_REPEATS = 3  # even when the time is up: no interval without them
MIN_REPEATS = 5  # before an interval is believed to be narrow
FEWEST_ROUNDS = 3  # of a repeat, even when its share of the time is up
# Stopping as soon as the interval is narrow costs coverage: nominal 95 % gives 92 % (simulated, at
# worst), nominal 98 % gives 96.5 %. So the intervals that say "95 %" are made with this quantile.
QUANTILE = 0.99
NO_FLASH_UP_TO = 2048  # tokens of a cache: onnxruntime's flash attention for CPUs is slower there
MAX_CALLS = 1000  # of one block
STOLEN = 0.05  # of a block's CPU time; beyond, it is measured again
ATTEMPTS = 4  # at a block; the one with the least stolen counts


class Failure(Exception):
    """Something the caller can act on; printed as one line."""


# ---- the worker: one model in one process -------------------------------------------------------


def work(open_model: Callable[[dict[str, Any]], Any] | None = None) -> None:
    """Answer requests, one JSON object a line, until stdin closes; `open_model` is another runtime's."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever onnxruntime prints must not end up among the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner ends us
    end_with_parent()
    if open_model is None:
        import onnxruntime

        open_model = partial(Model, onnxruntime)
    model: Any = None
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                model = open_model(request["with"])
                reply = model.facts
            elif request["do"] == "ready":
                reply = {}
            else:
                reply = getattr(model, request["do"])(**request["with"])
        except MemoryError:
            reply = {"error": "out of memory"}
        except Exception as error:  # whatever onnxruntime raises goes to the parent, as one line
            reply = {"error": one_line(error)}
        print(json.dumps(reply), file=replies, flush=True)


class Model:
    def __init__(self, onnxruntime: Any, request: dict[str, Any]) -> None:
        self.workloads: dict[str, str] = request["workloads"]
        self.caches: dict[str, str] = request.get("caches", {})
        self.capacity: dict[str, int] = request.get("capacity", {})
        self.steps: dict[str, list[Callable[[], Any]]] = {}  # workload -> a call of each graph
        self.feeds: dict[str, list[dict[str, Any]]] = {}  # whoever binds memory keeps it
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4
        if "profile" in request:
            options.enable_profiling = True
            options.profile_file_prefix = request["profile"]
        if self.caches:
            plain = max(self.capacity.values()) <= NO_FLASH_UP_TO
            os.environ["ORT_GQA_DISABLE_FLASH_ATTENTION"] = str(int(plain))
        providers = list(dict.fromkeys([request.get("provider", CPU), CPU]))  # what one lacks the next runs
        paths = [request["path"]] if isinstance(request["path"], str) else request["path"]
        before = memory()
        start = time.perf_counter()
        self.sessions = [onnxruntime.InferenceSession(path, options, providers=providers) for path in paths]
        load_ms = (time.perf_counter() - start) * 1e3
        self.facts = {
            "load_ms": load_ms,
            "rss_before_bytes": before["rss_bytes"],
            "providers": self.sessions[0].get_providers(),
            "threads": options.intra_op_num_threads,
            "optimization_level": options.graph_optimization_level.name,
            "arena": options.enable_cpu_mem_arena,
            "memory_pattern": options.enable_mem_pattern,
            "affinity": affinity(),
        }

    def first_run(self, workload: str) -> dict[str, float]:
        """Milliseconds of the first call on this workload, which plans memory and fills the arena."""
        import numpy

        with numpy.load(self.workloads[workload], allow_pickle=False) as arrays:
            inputs = [[value.name for value in session.get_inputs()] for session in self.sessions]
            missing = [name for names in inputs for name in names if name not in arrays.files]
            if missing:
                raise Failure(
                    f"workload {workload!r} lacks the input {missing[0]!r} (it has {', '.join(arrays.files)})"
                )
            self.feeds[workload] = [{name: arrays[name] for name in names} for names in inputs]
        self.steps[workload] = [
            partial(session.run_with_iobinding, self.bind(session, feeds, self.capacity[workload]))
            if self.caches.keys() & feeds.keys()
            else partial(session.run, None, feeds)
            for session, feeds in zip(self.sessions, self.feeds[workload], strict=True)
        ]
        return {workload: self.calls(workload, 1)[0]}

    def bind(self, session: Any, feeds: dict[str, Any], capacity: int) -> Any:
        """Feeds and outputs at fixed places; a cache's old and new contents at the same one.

        Every call writes behind the same old tokens: how many there are, the attention mask says.
        """
        import numpy

        binding = session.io_binding()
        for name, array in feeds.items():
            if name not in self.caches:
                binding.bind_cpu_input(name, array)
                continue
            batch, heads, past, size = array.shape
            buffer = numpy.zeros((batch, heads, max(past, capacity), size), array.dtype)
            buffer[:, :, :past] = array
            feeds[name] = buffer
            place = ("cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
            binding.bind_input(name, *place)
            binding.bind_output(self.caches[name], *place)
        for output in session.get_outputs():
            if output.name not in self.caches.values():
                binding.bind_output(output.name, "cpu")
        return binding

    def calls(self, workload: str, count: int) -> list[float]:
        clock, steps, ns = time.perf_counter_ns, self.steps[workload], []
        for _ in range(count):
            start = clock()
            for step in steps:
                step()
            ns.append(clock() - start)
        return [round(each / 1e6, 6) for each in ns]

    def warm_up(self, workload: str, seconds: float, block_ms: float) -> dict[str, Any]:
        """Windows of about `block_ms` until two in a row are within 3 % of the one before."""
        medians: list[float] = []
        start, calls, count, steady = time.perf_counter(), 0, 1, 0
        while not medians or (steady < 2 and time.perf_counter() - start < seconds):
            medians.append(statistics.median(self.calls(workload, count)))
            calls += count
            count = max(1, min(MAX_CALLS, math.ceil(block_ms / max(medians[-1], 1e-6))))
            close = len(medians) > 1 and abs(medians[-1] / medians[-2] - 1) <= 0.03
            steady = steady + 1 if close else 0
        return {"calls": calls, "stable": steady == 2, "ms": medians[-1]}

    def block(self, workload: str, count: int) -> dict[str, Any]:
        cpu, delay = time.process_time(), run_delay()
        self.calls(workload, 1)  # brings the model back into the caches that the others used
        ms = self.calls(workload, count)
        spent, after = time.process_time() - cpu, run_delay()
        waited = None if delay is None or after is None else after - delay
        return {"ms": ms, "cpu_seconds": spent, "waited_seconds": waited}

    def memory(self) -> dict[str, Any]:
        return memory()

    def end_profiling(self) -> dict[str, str]:
        return {"path": self.sessions[0].end_profiling()}


def memory() -> dict[str, int | None]:
    """Resident bytes now and at the peak of this process."""
    try:
        with open("/proc/self/status") as lines:
            status = dict(line.split(":", 1) for line in lines)
        now, peak = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return {"rss_bytes": now, "peak_rss_bytes": peak}
    except (OSError, KeyError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"rss_bytes": None, "peak_rss_bytes": peak}


def end_with_parent() -> None:
    """Have the kernel (Linux) kill us when the runner dies: a process that is stopped cannot notice."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def run_delay() -> float | None:
    """Seconds that our threads were ready to run and had no core (Linux)."""
    total = 0
    try:
        for path in glob.glob("/proc/self/task/*/schedstat"):
            with open(path) as file:
                total += int(file.read().split()[1])
    except (OSError, IndexError):
        return None
    return total / 1e9


def affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


# ---- the runner: has one worker at a time work ---------------------------------------------------


class Worker:
    def __init__(self, name: str, command: Sequence[str] | None = None) -> None:
        self.name = name
        flag = "-I" if sys.flags.isolated else "-P"
        self.process: Any = subprocess.Popen(
            command or [sys.executable, flag, os.path.abspath(__file__), "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Have it do one thing; before and after it is stopped, so that its pool's threads cannot spin."""
        self.process.send_signal(signal.SIGCONT)
        try:
            print(json.dumps({"do": do, "with": request}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()  # blocks: the runner must not use the core
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failure(f"model {self.name!r}: {obituary(self.process.wait())}")
        self.process.send_signal(signal.SIGSTOP)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Failure(f"model {self.name!r}: {reply['error']}")
        return reply

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def obituary(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), most often because memory ran out"
    if code < 0:
        return f"its process crashed ({signal.Signals(-code).name})"
    return f"its process ended with exit code {code}"


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    signs = ("failed to allocate", "bad_alloc", "bad allocation")
    return f"out of memory: {text}" if any(sign in text.lower() for sign in signs) else text


def collect(spec: dict[str, Any]) -> dict[str, Any]:
    """Run `spec` and return the samples.

    {"spec", "packages", "wall_seconds", "stopped": "precise" | "time",
     "processes": {model: [one a repeat: {"load_ms", "first_run_ms": {workload: ms}, "warm_up": {workload:
         {...}}, "rss_before_bytes", "rss_bytes", "peak_rss_bytes", threads and other session facts}]},
     "workloads": {workload: {model: [{"repeat", "start" (s), "ms": [...], "cpu_seconds" (of these
         calls and the untimed one that opens the block), "waited_seconds", "steal_seconds", "joules" (if
         the machine counts them)}]}},
     "noise": [one a repeat and workload: what else the machine did meanwhile]}

    Block i of one model and block i of another of the same workload belong to the same round.
    """
    import numpy
    import onnxruntime

    samples: dict[str, Any] = {
        "spec": spec,
        "packages": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "processes": {model: [] for model in spec["models"]},
        "workloads": {workload: {model: [] for model in spec["models"]} for workload in spec["workloads"]},
        "noise": [],
    }
    run = Run(spec, samples, numpy.random.default_rng(spec["seed"]))
    for number in itertools.count():
        start = run.clock()
        run.repeat(number)
        precise = number + 1 >= MIN_REPEATS and widest(samples) <= spec["ratio_ci"]
        late = 2 * run.clock() - start > spec["max_seconds"]  # another one would not fit
        if precise or (late and number + 1 >= FEWEST_REPEATS):
            break
    samples["stopped"] = "precise" if precise else "time"
    samples["wall_seconds"] = run.clock()
    return samples


class Run:
    """Fills `samples` repeat by repeat."""

    def __init__(self, spec: dict[str, Any], samples: dict[str, Any], random: Any) -> None:
        self.spec, self.samples, self.random = spec, samples, random
        self.calls: dict[tuple[str, str], int] = {}  # of a block; the same in all repeats
        self.began = time.perf_counter()

    def clock(self) -> float:
        return time.perf_counter() - self.began

    def shuffled(self, names: Iterable[str]) -> list[str]:
        names = list(names)
        return [names[i] for i in self.random.permutation(len(names))]

    def repeat(self, number: int) -> None:
        """Fresh processes, warm-up, rounds of each workload."""
        spec, start = self.spec, self.clock()
        commands, own, caches = (spec.get(key, {}) for key in ("commands", "own", "caches"))
        workers = {model: Worker(model, commands.get(model)) for model in self.shuffled(spec["models"])}
        processes: dict[str, dict[str, Any]] = {}
        try:
            for worker in workers.values():
                worker.ask("ready")  # else one would load while the next still imports
            for model, worker in workers.items():
                request = with_keys(spec, "threads", "provider", "capacity")
                request |= {"path": spec["models"][model], "caches": caches.get(model, {})}
                facts = worker.ask("load", **request, workloads=own.get(model, spec["workloads"]))
                processes[model] = {**facts, "first_run_ms": {}, "warm_up": {}}
            end = start + spec["max_seconds"] / MIN_REPEATS
            for done, workload in enumerate(spec["workloads"]):
                share = max(0.0, end - self.clock()) / (len(spec["workloads"]) - done)
                deadline = self.clock() + share
                seconds = min(spec["warmup_seconds"], share / 2 / len(workers))
                for model, worker in workers.items():
                    self.warm_up(worker, workload, seconds, processes[model])
                self.rounds(number, workload, workers, deadline)
            for model, worker in workers.items():
                self.samples["processes"][model].append({**processes[model], **worker.ask("memory")})
        finally:
            for worker in workers.values():
                worker.close()

    def warm_up(self, worker: Worker, workload: str, seconds: float, process: dict[str, Any]) -> None:
        process["first_run_ms"].update(worker.ask("first_run", workload=workload))
        block_ms = self.spec["block_ms"]
        warm = worker.ask("warm_up", workload=workload, seconds=seconds, block_ms=block_ms)
        process["warm_up"][workload] = warm
        count = math.ceil(block_ms / max(warm["ms"], 1e-6))
        self.calls.setdefault((workload, worker.name), max(1, min(MAX_CALLS, count)))

    def rounds(self, number: int, workload: str, workers: dict[str, Worker], deadline: float) -> None:
        """Blocks of all models in random order, `min_blocks` times or until `deadline`."""
        watch = Watch()
        for done in range(self.spec["min_blocks"]):
            if done >= FEWEST_ROUNDS and self.clock() > deadline:
                break
            if os.getppid() != PARENT:
                raise Failure("the process that asked for this benchmark is gone")
            for model in self.shuffled(workers):
                block = self.block(workers[model], workload, watch)
                self.samples["workloads"][workload][model].append({"repeat": number, **block})
        self.samples["noise"].append({"repeat": number, "workload": workload, **watch.facts()})

    def block(self, worker: Worker, workload: str, watch: "Watch") -> dict[str, Any]:
        """The least disturbed of up to `ATTEMPTS` blocks."""
        blocks = []
        for _ in range(ATTEMPTS):
            joules, before, start = energy_counters(), machine_counters(), self.clock()
            block = worker.ask("block", workload=workload, count=self.calls[workload, worker.name])
            after = machine_counters()
            steal = after["steal_seconds"] - before["steal_seconds"] if before and after else 0.0
            block |= {"start": start, "steal_seconds": steal}
            if joules:
                block["joules"] = energy_spent(joules, energy_counters())
            watch.add(block)
            blocks.append(block)
            if not stolen(block):
                break
        return min(blocks, key=lambda block: block["steal_seconds"] / max(block["cpu_seconds"], 1e-9))


# ---- the other two jobs -------------------------------------------------------------------------


def profile(job: dict[str, Any]) -> dict[str, Any]:
    """Trace a few calls of one model on each workload, in a process of its own.

    job:    {"name", "path", "workloads", "threads", "provider", "caches", "capacity", "warmup_seconds",
             "seconds", "calls": [fewest, most]}; the path is that of one graph
    result: {"events": onnxruntime's trace of calls and nodes,
             "runs": [[calls to skip, calls to count], one a workload], "provider": the one asked for}
    """
    worker, runs = Worker(job["name"]), []
    request = with_keys(job, "path", "workloads", "threads", "provider", "caches", "capacity")
    with tempfile.TemporaryDirectory() as folder:
        try:
            worker.ask("load", **request, profile=os.path.join(folder, "trace"))
            for workload in job["workloads"]:
                warm = warmed(worker, workload, job["warmup_seconds"])
                fewest, most = job["calls"]
                count = min(most, max(fewest, int(job["seconds"] * 1e3 / warm["ms"])))
                worker.ask("block", workload=workload, count=count)
                runs.append((1 + warm["calls"] + 1, count))  # a block opens with one call that does not count
            with open(worker.ask("end_profiling")["path"]) as file:
                events = json.load(file)
        finally:
            worker.close()
    wanted = [e for e in events if e["name"] == "model_run" or e["name"].endswith("_kernel_time")]
    return {"events": wanted, "runs": runs, "provider": job.get("provider", CPU)}


def limits(job: dict[str, Any]) -> dict[str, Any]:
    """The least time of a call of each model, each alone, and how fast memory is read.

    job:    {"models": {name: [path, npz with the feeds]}, "threads", "provider", "warmup_seconds", "calls",
             "read_bytes": of memory}
    result: {"ms": {name: least}, "bandwidth_gb_per_s", "threads"}
    """
    least = {}
    for name, (path, feeds) in job["models"].items():
        worker = Worker(f"the calibration of this machine, {name}")
        try:
            worker.ask("load", path=path, workloads={"x": feeds}, **with_keys(job, "threads", "provider"))
            warmed(worker, "x", job["warmup_seconds"])
            least[name] = min(worker.ask("block", workload="x", count=job["calls"])["ms"])
        finally:
            worker.close()
    speed = bandwidth(job["threads"], job["read_bytes"])
    return {"ms": least, "bandwidth_gb_per_s": speed, "threads": job["threads"]}


def warmed(worker: Worker, workload: str, seconds: float) -> dict[str, Any]:
    worker.ask("first_run", workload=workload)
    return worker.ask("warm_up", workload=workload, seconds=seconds, block_ms=50.0)


def with_keys(job: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """What of the job has these keys; others may be left out."""
    return {key: job[key] for key in keys if key in job}


def bandwidth(threads: int, size: int, reads: int = 5) -> float:
    """GB/s of reading `size` bytes, or a quarter of the memory that is free, each thread its part."""
    import numpy

    parts = numpy.array_split(numpy.ones(min(size, available_bytes() // 4) // 4, numpy.float32), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(reads):
            start = time.perf_counter()
            list(pool.map(numpy.max, parts))  # max, not sum: it needs one instruction per vector
            best = min(best, time.perf_counter() - start)
    return float(sum(part.nbytes for part in parts) / best / 1e9)


# ---- what the machine tells ---------------------------------------------------------------------


def available_bytes() -> int:
    """Memory that may be taken without swapping; 2 GB where the system does not tell."""
    try:
        with open("/proc/meminfo") as lines:
            return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    except (OSError, StopIteration):
        return 2 * 10**9


class Watch:
    """What else the machine did while some blocks ran."""

    def __init__(self) -> None:
        self.before, self.start = machine_counters(), time.perf_counter()
        self.own_cpu = -time.process_time()
        self.waited: list[float | None] = []
        self.mhz: list[float | None] = []

    def add(self, block: dict[str, Any]) -> None:
        self.own_cpu += block["cpu_seconds"]
        self.waited.append(block["waited_seconds"])
        self.mhz.append(frequency_mhz())

    def facts(self) -> dict[str, Any]:
        """Seconds of the wall, of our CPU time and of others', and what else the machine tells."""
        own = self.own_cpu + time.process_time()
        facts: dict[str, Any] = {"seconds": time.perf_counter() - self.start, "own_cpu_seconds": own}
        after = machine_counters()
        if self.before and after:
            spent = {key: after[key] - self.before[key] for key in after}
            facts["other_cpu_seconds"] = max(0.0, spent.pop("busy_seconds") - own)
            facts.update(spent)
        for name, seen in (("waited_seconds", self.waited), ("mhz", self.mhz)):
            if None not in seen:
                facts[name] = seen if name == "mhz" else sum(each or 0.0 for each in seen)
        if hasattr(os, "getloadavg"):
            facts["load_average"] = os.getloadavg()[0]
        return facts


def machine_counters() -> dict[str, float] | None:
    """Seconds that all cores were busy or stolen since boot, and thermal throttlings (Linux)."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _, _, irq, softirq, steal = (int(x) for x in file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    throttled = sum(read_numbers("/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"))
    busy = user + nice + system + irq + softirq
    return {"busy_seconds": busy / ticks, "steal_seconds": steal / ticks, "throttled": throttled}


def frequency_mhz() -> float | None:
    """The fastest core's frequency now: ours, if the machine is otherwise idle."""
    khz = read_numbers("/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    return max(khz) / 1e3 if khz else None


def read_numbers(pattern: str) -> list[int]:
    numbers = []
    for path in glob.glob(pattern):
        try:
            with open(path) as file:
                numbers.append(int(file.read()))
        except (OSError, ValueError):
            pass
    return numbers


def energy_counters(root: str = "/sys/class/powercap") -> dict[str, tuple[int, int]]:
    """{package: (microjoules, where the counter wraps)} from RAPL; empty where it cannot be read."""
    counters = {}
    for path in glob.glob(os.path.join(root, "intel-rapl:[0-9]*")):
        if os.path.basename(path).count(":") == 1:  # a package; deeper ones are parts of it
            now = read_numbers(os.path.join(path, "energy_uj"))
            wrap = read_numbers(os.path.join(path, "max_energy_range_uj"))
            if now and wrap:
                counters[path] = (now[0], wrap[0])
    return counters


def energy_spent(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float:
    """Joules between two readings, over a wrap of the counter if need be."""
    return sum((after[key][0] - now) % (wrap + 1) for key, (now, wrap) in before.items()) / 1e6


# ---- when to stop -------------------------------------------------------------------------------


def repeat_ratios(baseline: Sequence[Mapping[str, Any]], variant: Sequence[Mapping[str, Any]]) -> list[float]:
    """log(baseline / variant) of each repeat: the median over its rounds of the ratio of block medians.

    A round that the hypervisor stole from counts only where its repeat has no other.
    """
    by_repeat: dict[int, list[tuple[bool, float]]] = {}
    for left, right in zip(baseline, variant, strict=True):
        ratio = math.log(statistics.median(left["ms"]) / statistics.median(right["ms"]))
        by_repeat.setdefault(left["repeat"], []).append((stolen(left) or stolen(right), ratio))
    return [
        statistics.median([ratio for dirty, ratio in rounds if not dirty] or [ratio for _, ratio in rounds])
        for rounds in by_repeat.values()
    ]


def stolen(block: Mapping[str, Any]) -> bool:
    """Whether the hypervisor took more of the core than a block may lose."""
    return bool(block.get("steal_seconds", 0.0) > STOLEN * block.get("cpu_seconds", 0.0))


def widest(samples: dict[str, Any]) -> float:
    """Width, relative to the ratio, of the widest 95 % interval of all speed-ups."""
    spec, widths = samples["spec"], [0.0]
    for blocks in samples["workloads"].values():
        for model in blocks:
            if model != spec["baseline"]:
                logs = repeat_ratios(blocks[spec["baseline"]], blocks[model])
                half = student_t(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
                widths.append(2 * math.sinh(half))
    return max(widths)


def student_t(df: int) -> float:
    """`QUANTILE` of Student's t by the Cornish-Fisher expansion; within 1 % from 4 degrees of freedom up."""
    z = statistics.NormalDist().inv_cdf(QUANTILE)
    first = (z**3 + z) / (4 * df)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
    return z + first + second + third


JOBS = {"time": collect, "profile": profile, "limits": limits}


def main(job_path: str, result_path: str) -> None:
    try:
        with open(job_path) as file:
            job = json.load(file)
        result = JOBS[job.get("do", "time")](job)
        with open(result_path + ".part", "w") as file:
            json.dump(result, file)
        os.replace(result_path + ".part", result_path)
    except Failure as failure:
        sys.exit(str(failure))
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except Exception as error:  # one line: whoever started us shows the last one
        sys.exit(f"{type(error).__name__}: {one_line(error)}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        work()
    elif len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        sys.exit("usage: python runner.py job.json result.json")

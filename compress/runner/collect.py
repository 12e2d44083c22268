"""The job `time`: models against each other, in random order, until the ratios are known.

spec:    {"models": {name: path | [path, ...]}, "workloads": {name: npz with the feeds}, "baseline": name,
          "threads": int, "warmup_seconds": float,
          "max_seconds": float, "min_blocks": int, "block_ms": float, "ratio_ci": float, "seed": int,
          "caches": {model: {input: output}}, "capacity": {workload: tokens}, "scores": {workload: number},
          "own": {model: {name: npz}}, "with": {model: {"runtime", "threads", "settings", "command", ...}}}
A model of several graphs is all of them, run in this order on what each takes of the feeds.
`caches` names the language models that write new keys and values into the memory they read the old ones
from, and the inputs and outputs that share it; it has room for `capacity` tokens, and `scores` decide on the
kernel of attention (`attention.py`). `own` are the feeds of models that cannot take the others'. `with` is
what single models run with, in place of what the job says. These five may be left out.

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

import itertools
import math
import os
import platform
import time
from collections.abc import Iterable
from typing import Any

from compress.runner.counters import Watch, energy_counters, energy_spent, machine_counters
from compress.runner.precision import stolen, widest
from compress.runner.worker import MAX_CALLS, Failure
from compress.runner.workers import Worker

PARENT = os.getppid()  # who asked for this benchmark, or the shell that it went through
FEWEST_REPEATS = 3  # even when the time is up: no interval without them
MIN_REPEATS = 5  # before an interval is believed to be narrow
FEWEST_ROUNDS = 3  # of a repeat, even when its share of the time is up
ATTEMPTS = 4  # at a block; the one with the least stolen counts


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

    samples: dict[str, Any] = {
        "spec": spec,
        "packages": {"python": platform.python_version(), "numpy": numpy.__version__},
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
    for model in spec["models"]:  # and the runtimes, each told by its own workers
        samples["packages"] |= samples["processes"][model][0].get("packages", {})
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
        own, caches = (spec.get(key, {}) for key in ("own", "caches"))
        workers = {model: Worker(model, spec) for model in self.shuffled(spec["models"])}
        processes: dict[str, dict[str, Any]] = {}
        try:
            for worker in workers.values():
                worker.ask("ready")  # else one would load while the next still imports
            for model, worker in workers.items():
                feeds = own.get(model, spec["workloads"])
                facts = worker.load(spec["models"][model], feeds, caches=caches.get(model, {}))
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

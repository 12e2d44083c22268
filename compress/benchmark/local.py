"""Time ONNX models on this machine: the runner in a fresh process, its samples judged by `stats`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from compress.benchmark import caches, stats
from compress.benchmark.runner import NO_FLASH_UP_TO
from compress.config.target import LocalTarget
from compress.errors import BenchmarkError
from compress.schema.report import Estimate, Latency
from compress.system.cpu import cpu_facts, threads_available

WARMUP_SECONDS = 2.0  # at most, of one model on one workload
BLOCK_MS = 50.0
ROUNDS = 5  # of a repeat: what differs between processes weighs more than what differs within one
SESSION_FACTS = ("providers", "threads", "optimization_level", "arena", "memory_pattern", "affinity")
GRACE_SECONDS = 600.0  # beyond the time asked for, until the runner counts as hung


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The contents of speed.json; the first model is the baseline and has no speed-up."""

    latency_ms: dict[str, dict[str, Latency]]  # model -> workload
    speedup: dict[str, dict[str, Estimate]]
    throughput_per_second: dict[str, dict[str, float]]  # tokens of language models, else examples
    load_ms: dict[str, float]  # medians over the processes
    first_run_ms: dict[str, dict[str, float]]
    peak_memory_bytes: dict[str, int]  # of the model's whole process
    steady_memory_bytes: dict[str, int]
    own_memory_bytes: dict[str, int]  # steady, without what the process held before it loaded the model
    energy_joules: dict[str, dict[str, float]] | None  # a call; None where the machine does not tell
    noise: tuple[str, ...]  # reasons to doubt; empty on a quiet machine
    machine: dict[str, Any] = field(default_factory=dict)
    # Of all threads, a call: what stands in for energy where the machine does not tell it. Not a number of
    # joules, which a core's power at that clock would be needed for.
    cpu_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    tokens: dict[str, int] = field(
        default_factory=dict
    )  # a call, by workload; empty without a language model


_ADAPTER = TypeAdapter(Speed)


def benchmark(
    config: LocalTarget,
    models: Mapping[str, Path],
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    out: Path,
    own: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]] | None = None,
) -> None:
    """Time `models` (the first is the baseline) on `inputs` (workload -> feeds), interleaved.

    Writes `samples.json` (everything the runner saw) and `speed.json` (a `Speed`) into `out`. A
    feed may hold more inputs than a model declares; the first axis of its first array is the batch.
    A language model whose graph can extends its cache in place, at the same position in every call.
    `own`: model -> inputs in their place, of the same batches and lengths, where a model cannot take them.
    Takes about `config.max_seconds`, more where three loads of every model alone take longer.
    Raises BenchmarkError naming the model and why.
    """
    _check(models, inputs)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:  # a kill leaves it where the store cleans up
        spec = write_spec(config, models, inputs, Path(folder), own or {})
        _run(spec, out / "samples.json", config.max_seconds + GRACE_SECONDS)
    samples = json.loads((out / "samples.json").read_text())
    items = {workload: caches.items(feeds) for workload, feeds in inputs.items()}
    speed = summarize(samples, items, machine=cpu_facts())
    tokens = {workload: items[workload] for workload in inputs if caches.is_language_model(inputs[workload])}
    speed = replace(speed, tokens=tokens)
    (out / "speed.json").write_bytes(_ADAPTER.dump_json(speed, indent=2) + b"\n")


def load_speed(folder: Path) -> Speed:
    """What `benchmark` wrote into `folder`. Raises BenchmarkError when it cannot be read."""
    try:
        return _ADAPTER.validate_json((folder / "speed.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise BenchmarkError(
            f"cannot read {folder / 'speed.json'}",
            found=str(error).splitlines()[0],
            next="benchmark again",
        ) from None


def summarize(samples: Mapping[str, Any], items: Mapping[str, int], machine: Mapping[str, Any]) -> Speed:
    """Samples of the runner, and what a call of each workload gets done, to numbers with intervals."""
    workloads, processes = samples["workloads"], samples["processes"]
    baseline = samples["spec"]["baseline"]
    latency: dict[str, dict[str, Latency]] = {}
    speedup: dict[str, dict[str, Estimate]] = {}
    energy: dict[str, dict[str, float]] = {}
    for model in processes:
        latency[model] = {name: stats.latency(blocks[model]) for name, blocks in workloads.items()}
        joules = {name: stats.energy_joules(blocks[model]) for name, blocks in workloads.items()}
        energy[model] = {name: value for name, value in joules.items() if value is not None}
        if model != baseline:
            speedup[model] = {
                name: stats.speedup(blocks[baseline], blocks[model]) for name, blocks in workloads.items()
            }

    def cpu_ms(blocks: Sequence[Mapping[str, Any]]) -> float:
        calls = sum(len(block["ms"]) + 1 for block in blocks)  # one untimed call opens each block
        return float(1e3 * sum(block["cpu_seconds"] for block in blocks) / calls)

    def median(model: str, *keys: str) -> float:
        values: Any = processes[model]
        for key in keys:
            values = [value[key] for value in values]
        return float(np.median(values))

    steady = {model: [p for p in processes[model] if p["rss_bytes"] is not None] for model in processes}
    return Speed(
        latency_ms=latency,
        speedup=speedup,
        throughput_per_second={
            model: {name: stats.throughput(each.p50, items[name]) for name, each in of_model.items()}
            for model, of_model in latency.items()
        },
        load_ms={model: median(model, "load_ms") for model in processes},
        first_run_ms={
            model: {name: median(model, "first_run_ms", name) for name in workloads} for model in processes
        },
        peak_memory_bytes={model: max(p["peak_rss_bytes"] for p in processes[model]) for model in processes},
        steady_memory_bytes={m: int(median(m, "rss_bytes")) for m in steady if steady[m]},
        own_memory_bytes={
            m: int(np.median([p["rss_bytes"] - p["rss_before_bytes"] for p in steady[m]]))
            for m in steady
            if steady[m]
        },
        energy_joules=energy if all(energy.values()) else None,
        cpu_ms={
            model: {name: cpu_ms(blocks[model]) for name, blocks in workloads.items()}
            for model in processes
            if all("cpu_seconds" in block for blocks in workloads.values() for block in blocks[model])
        },
        noise=tuple(stats.noise(samples)),
        machine={
            **machine,
            **samples["packages"],
            "session": {
                **{key: processes[baseline][0][key] for key in SESSION_FACTS},
                "ORT_GQA_DISABLE_FLASH_ATTENTION": f"1 up to {NO_FLASH_UP_TO} tokens",
            },
            "seconds": samples["wall_seconds"],
            "stopped": samples["stopped"],
        },
    )


def write_spec(
    config: LocalTarget,
    models: Mapping[str, Path],
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    folder: Path,
    own: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
) -> Path:
    """The runner's spec and feeds, into `folder`; the path of the spec."""
    spec = {
        "models": {name: str(path.resolve()) for name, path in models.items()},
        "workloads": _save(inputs, folder, "all"),
        "own": {
            model: _save(feeds, folder, f"own{number}") for number, (model, feeds) in enumerate(own.items())
        },
        "baseline": next(iter(models)),
        "threads": config.threads or threads_available(),
        "affinity": None,  # as inherited; pinning to a core on which others run is worse than none
        "warmup_seconds": WARMUP_SECONDS,
        "max_seconds": config.max_seconds,
        "min_blocks": ROUNDS,
        "block_ms": BLOCK_MS,
        "ratio_ci": config.ratio_ci,
        "seed": config.seed,
        "parent": os.getpid(),
        **cache_spec(models, inputs),
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path


def _save(inputs: Mapping[str, Mapping[str, np.ndarray]], folder: Path, name: str) -> dict[str, str]:
    """Workload -> file of its feeds."""
    files = {workload: folder / f"{name}{number}.npz" for number, workload in enumerate(inputs)}
    for workload, feeds in inputs.items():
        np.savez(files[workload], **feeds)  # type: ignore[arg-type]
    return {workload: str(path) for workload, path in files.items()}


def cache_spec(models: Mapping[str, Path], inputs: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """What the runner has to know of caches."""
    found = {name: caches.shared_cache(path) for name, path in models.items()}
    sizes = {
        name: caches.capacity(feeds) for name, feeds in inputs.items() if caches.is_language_model(feeds)
    }
    return {"caches": {name: pairs for name, pairs in found.items() if pairs}, "capacity": sizes}


def _check(models: Mapping[str, Path], inputs: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    if not models or not inputs:
        raise BenchmarkError("nothing to time", found=f"{len(models)} models, {len(inputs)} workloads")
    for name, path in models.items():
        if not path.is_file():
            raise BenchmarkError(f"model {name!r} has no file", found=path)
    for name, feeds in inputs.items():
        if not feeds:
            raise BenchmarkError(f"workload {name!r} has no inputs")


def _run(spec: Path, samples: Path, seconds: float) -> None:
    """The runner in a session of its own, so that it and its workers can be ended as one."""
    # Variables such as OMP_NUM_THREADS change how fast a library runs; a number must not depend on a shell.
    keep = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT")
    runner = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("runner.py")), str(spec), str(samples)],
        env={name: os.environ[name] for name in keep if name in os.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, stderr = runner.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(
            "the benchmark hung",
            found=f"no result after {seconds:.0f} s",
            next="time fewer or smaller models",
        ) from None
    finally:  # also on Ctrl-C: nothing may go on measuring
        if runner.poll() is None:
            os.killpg(runner.pid, signal.SIGKILL)
            runner.communicate()
    if runner.returncode != 0:
        said = stderr.strip().splitlines()
        raise BenchmarkError(
            "a model could not be timed",
            found=said[-1] if said else f"the runner ended with exit code {runner.returncode}",
            next="look whether the file loads in onnxruntime and fits in memory",
        )

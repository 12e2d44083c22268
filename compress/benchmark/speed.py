"""What was timed, with intervals: the contents of speed.json, made from the samples of the runner."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.benchmark import stats
from compress.errors import BenchmarkError
from compress.runner.attention import SWITCH
from compress.schema.estimates import Estimate, Latency
from compress.stages.typed_json import read_typed

FILE, SAMPLES = "speed.json", "samples.json"
OF_PROCESSES = ("load_ms", "first_run_ms", "warm_up", "packages")  # not of what they run with


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


def load_speed(folder: Path) -> Speed:
    """What was timed into `folder`. Raises BenchmarkError when it cannot be read."""
    return read_typed(folder / FILE, Speed, BenchmarkError, "benchmark again")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many times as fast one model is as another of the same job."""

    speedup: dict[str, Estimate]  # by workload
    overall: Estimate  # their geometric mean
    slowest: float  # of it in any repeat, which is fresh processes


def load_comparisons(folder: Path, pairs: Iterable[tuple[str, str]]) -> list[Comparison]:
    """Of each pair how fast the second model is beside the first, by the samples of a benchmark in `folder`.

    Raises BenchmarkError when they cannot be read.
    """
    try:
        workloads = json.loads((folder / SAMPLES).read_bytes())["workloads"]
    except (OSError, ValueError, KeyError) as error:
        raise BenchmarkError(f"cannot read {folder / SAMPLES}", found=error, next="benchmark again") from None
    found = []
    for before, after in pairs:
        logs = stats.overall_ratios((of[before], of[after]) for of in workloads.values())
        speedup = {name: stats.speedup(of[before], of[after]) for name, of in workloads.items()}
        slowest = math.exp(float(logs.min()))
        found.append(Comparison(speedup=speedup, overall=stats.mean_ratio(logs), slowest=slowest))
    return found


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
            "session": {**_session(processes[baseline][0]), **_switch(processes)},
            "seconds": samples["wall_seconds"],
            "stopped": samples["stopped"],
        },
    )


def _switch(processes: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """How attention of the models was switched that fuse it, where there are any."""
    found = [first[SWITCH] for first, *_ in processes.values() if SWITCH in first]
    return {SWITCH: found[0]} if found else {}


def _session(process: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker said of its session: threads, providers, and what else its runtime tells."""
    return {
        key: value for key, value in process.items() if key not in OF_PROCESSES and not key.endswith("_bytes")
    }

"""From the runner's samples to latencies, speed-ups and a verdict on the noise. Pure.

What is independent of what: calls within a block are not (one process, one moment), blocks within a
repeat are not (one process: where it lies in memory shifts them all; slow drift joins neighbours),
repeats are (fresh processes, random order). So an interval is made over repeats.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import scipy  # its parts load when they are used: scipy.stats takes a second

from compress.runner.precision import QUANTILE, repeat_ratios
from compress.schema.estimates import Estimate, Latency

Blocks = Sequence[Mapping[str, Any]]  # {"repeat", "start" in seconds, "ms": [...]}, in order of time

RESAMPLES = 500
# Limits of the noise verdict.
OTHER_CORES = 0.25  # cores that other processes kept busy
WAITED = 0.05  # of our CPU time, spent waiting for a core
STEAL = 0.03  # of our CPU time, taken by the hypervisor
DRIFT = 0.10  # of the baseline between the first and the last third of the run
FREQUENCY = 0.10  # between the fastest and the slowest moment


def latency(blocks: Blocks, seed: int = 0) -> Latency:
    """Percentiles of all samples; the interval of the p50 by resampling repeats, then blocks within.

    Hierarchical bootstrap after Kalibera and Jones (ISMM 2013).
    """
    ms = np.concatenate([block["ms"] for block in blocks])
    p50, p90, p99 = np.percentile(ms, [50, 90, 99])
    repeats = [[np.asarray(b["ms"]) for b in group] for _, group in groupby(blocks, lambda b: b["repeat"])]
    random = np.random.default_rng(seed)
    medians = []
    for _ in range(RESAMPLES):
        drawn = [repeats[i] for i in random.integers(len(repeats), size=len(repeats))]
        parts = [repeat[i] for repeat in drawn for i in random.integers(len(repeat), size=len(repeat))]
        medians.append(np.median(np.concatenate(parts)))
    low, high = np.percentile(medians, [2.5, 97.5])
    return Latency(
        p50=float(p50), p90=float(p90), p99=float(p99), ci95=(float(low), float(high)), samples=len(ms)
    )


def speedup(baseline: Blocks, variant: Blocks) -> Estimate:
    """How many times faster `variant` is: the ratio of p50s, taken within rounds (block i beside block i).

    Student's t over the repeats' log ratios. A percentile bootstrap over the five or so repeats
    would be too narrow, one over blocks would miss what differs between processes. `QUANTILE` (in
    `runner`) makes the interval cover 95 % although the run stops when it is narrow.
    Raises ValueError when the two do not pair or there are fewer than two repeats.
    """
    if [block["repeat"] for block in baseline] != [block["repeat"] for block in variant]:
        raise ValueError("the blocks of baseline and variant do not pair")
    return mean_ratio(np.asarray(repeat_ratios(baseline, variant)))


def overall_ratios(workloads: Iterable[tuple[Blocks, Blocks]]) -> np.ndarray:
    """Of each repeat the mean log ratio over several workloads, each its baseline and its variant: those of
    one repeat come from the same processes."""
    ratios: np.ndarray = np.asarray([repeat_ratios(*blocks) for blocks in workloads])
    return np.asarray(ratios.mean(axis=0))


def mean_ratio(logs: np.ndarray) -> Estimate:
    """Of independent log ratios. Raises ValueError where there are fewer than two."""
    if len(logs) < 2:
        raise ValueError("an interval needs at least two repeats")
    half = scipy.stats.t.ppf(QUANTILE, len(logs) - 1) * scipy.stats.sem(logs)
    low, value, high = np.exp(logs.mean() + half * np.array([-1, 0, 1]))
    return Estimate(value=float(value), ci95=(float(low), float(high)))


def throughput(p50_ms: float, batch: int) -> float:
    """Examples a second, one call after another."""
    return batch * 1000 / p50_ms


def noise(samples: Mapping[str, Any]) -> list[str]:
    """Why these numbers are to be doubted, each with what was seen; empty on a quiet machine."""
    seen = noise_facts(samples)
    reasons = []
    if (other := seen.get("other_cores", 0.0)) > OTHER_CORES:
        reasons.append(f"other load: other processes kept {other:.2f} cores busy (limit {OTHER_CORES})")
    if (waited := seen.get("waited", 0.0)) > WAITED:
        reasons.append(
            f"other load: our threads waited for a core {waited:.0%} of their CPU time (limit {WAITED:.0%})"
        )
    if (steal := seen.get("steal", 0.0)) > STEAL:
        reasons.append(f"steal: the hypervisor took {steal:.0%} of our CPU time (limit {STEAL:.0%})")
    if throttled := seen.get("throttled"):
        reasons.append(f"throttling: the CPU throttled {throttled:.0f} times for heat")
    if seen.get("slowest_mhz", 0.0) < (1 - FREQUENCY) * seen.get("fastest_mhz", 0.0):
        reasons.append(
            f"throttling: the frequency moved between {seen['slowest_mhz']:.0f} "
            f"and {seen['fastest_mhz']:.0f} MHz"
        )
    for workload, blocks in samples["workloads"].items():
        change = drift(blocks[samples["spec"]["baseline"]])
        if abs(change) > DRIFT:
            reasons.append(f"drift: the baseline moved by {change:+.0%} on {workload} (limit {DRIFT:.0%})")
    return reasons


def noise_facts(samples: Mapping[str, Any]) -> dict[str, float]:
    """What the machine did beside our work: cores that others kept busy, our threads' waiting and the
    hypervisor's stealing as shares of our CPU time, throttlings, MHz; only what the machine tells."""
    facts = samples["noise"]
    own = sum(fact["own_cpu_seconds"] for fact in facts)
    seconds = sum(fact["seconds"] for fact in facts)
    seen: dict[str, float] = {}
    sums = {"other_cores": ("other_cpu_seconds", seconds), "waited": ("waited_seconds", own)}
    for name, (key, scale) in (sums | {"throttled": ("throttled", 1.0)}).items():
        if values := [fact[key] for fact in facts if key in fact]:
            seen[name] = sum(values) / scale
    blocks = [block for models in samples["workloads"].values() for run in models.values() for block in run]
    if stolen := [block["steal_seconds"] for block in blocks if "steal_seconds" in block]:
        # of the blocks that count: one that lost much was measured again
        seen["steal"] = sum(stolen) / sum(block["cpu_seconds"] for block in blocks)
    if mhz := [value for fact in facts for value in fact.get("mhz", ())]:
        seen |= {"slowest_mhz": min(mhz), "fastest_mhz": max(mhz)}
    return seen


def drift(blocks: Blocks) -> float:
    """Relative change of the p50 of block medians from the first third of the run to the last."""
    medians = [float(np.median(block["ms"])) for block in blocks]
    third = max(1, len(medians) // 3)
    return float(np.median(medians[-third:]) / np.median(medians[:third])) - 1


def energy_joules(blocks: Blocks) -> float | None:
    """Joules a call, the whole package (idle share included); None where the machine does not tell."""
    if not blocks or any("joules" not in block for block in blocks):
        return None
    calls = sum(len(block["ms"]) + 1 for block in blocks)  # one untimed call opens each block
    return math.fsum(block["joules"] for block in blocks) / calls

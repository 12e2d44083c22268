"""When enough was timed: how wide the intervals of the speed-ups are."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# Stopping as soon as the interval is narrow costs coverage: nominal 95 % gives 92 % (simulated, at
# worst), nominal 98 % gives 96.5 %. So the intervals that say "95 %" are made with this quantile.
QUANTILE = 0.99
STOLEN = 0.05  # of a block's CPU time; beyond, it is measured again


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

"""What is kept of what was measured. Pure."""

from collections.abc import Callable, Mapping, Sequence

from compress.benchmark.speed import Comparison
from compress.metrics.quality import Quality


def is_faster(found: Comparison) -> bool:
    """Whether the interval of its mean speed-up lies above 1, and that of no workload below."""
    return found.overall.ci95[0] > 1 and all(each.ci95[1] >= 1 for each in found.speedup.values())


def why_not_faster(found: Comparison) -> str:
    """Empty where it is."""
    if is_faster(found):
        return ""
    if found.overall.ci95[1] < 1:
        return "slower"
    slower = [workload for workload, each in found.speedup.items() if each.ci95[1] < 1]
    return f"slower at {', '.join(slower)}" if slower else "not shown to be faster"


def fastest_first(found: Mapping[str, Comparison]) -> list[str]:
    """Names of those that are faster."""
    faster = [name for name, each in found.items() if is_faster(each)]
    return sorted(faster, key=lambda name: -found[name].overall.value)


def too_bad(asked: Quality, other: Quality, max_drop: float | None) -> str:
    """Why `other` may not stand in for what was asked for, by the primary metric; empty where it may.

    Where the budget names a drop, relative to the dense model's score, the upper end of the interval of its
    drop must lie within. Without one, or where what was asked for misses it as well, it may not be worse than
    the upper end of the interval of that one's drop.
    """
    metric = asked.primary
    asked_drop, drop = asked.drop_from_dense[metric], other.drop_from_dense[metric]
    limit, whose = asked_drop.ci95[1], "the end of the interval of what was asked for"
    if max_drop is not None:
        allowed = max_drop * abs(_dense_score(asked, metric))
        if asked_drop.ci95[1] <= allowed:
            if drop.ci95[1] <= allowed:
                return ""
            return f"{metric} may drop by {drop.ci95[1]:.4g} on select, the budget allows {allowed:.4g}"
    if drop.value <= limit:
        return ""
    return f"{metric} drops by {drop.value:.4g} on select, more than {limit:.4g}, {whose}"


def _dense_score(quality: Quality, metric: str) -> float:
    score = quality.quality.get(metric) or quality.fidelity[metric]
    drop = quality.drop_from_dense[metric].value
    return score.value + (drop if score.higher_is_better else -drop)


def holds(found: Comparison) -> bool:
    """Whether it is faster in every repeat."""
    return found.slowest > 1


def why_not_held(found: Comparison) -> str:
    """Empty where it is."""
    return "" if holds(found) else f"not faster in every process: {found.slowest:.2f}x in the slowest"


def enough_threads(
    counts: Sequence[int], compare: Callable[[int, int], Comparison]
) -> tuple[int, dict[int, int]]:
    """The threads that are faster than fewer in every process, and beside which each count was judged.

    From one thread up: a count is taken where it is faster than the one taken before in every repeat. An
    interval of the mean would refuse what is twice as fast in one process and three times in the next; what
    helps in one and not in the next does not hold.
    """
    taken, beside = counts[0], {}
    for count in counts[1:]:
        beside[count] = taken
        if holds(compare(taken, count)):
            taken = count
    return taken, beside

"""Pareto fronts over the points of a sweep: who is on them, and who beats the others by how much."""

from collections.abc import Iterator, Sequence

from compress.judge.pareto import dominates, hypervolume, non_dominated
from compress.report.format import decimals_of, fixed
from compress.schema.report import Estimate
from compress.schema.sweep import Baseline, Domination, Front, Kept, Kind, Place, Point

_WORDS: dict[Kind, tuple[str, str]] = {
    "latency": ("is faster", "is as fast"),
    "size": ("is smaller", "is as small"),
    "memory": ("takes less memory", "takes as much memory"),
}


def fronts(points: Sequence[Point], baseline: Baseline, workloads: Sequence[str]) -> Iterator[Front]:
    """Drop of the primary metric against latency at every workload, size and memory; those with a point."""
    axes: list[tuple[Kind, str, str, str | None]] = [
        *(("latency", f"latency at {workload}", "ms", workload) for workload in workloads),
        ("size", "size", "MB", None),
        ("memory", "peak memory", "MB", None),
    ]
    done = [(point.number, point.kept) for point in points if point.kept is not None]
    for kind, label, unit, workload in axes:
        dense = _dense_cost(baseline, kind, workload)
        costs = {number: _cost(kept, kind, workload) for number, kept in done}
        places = [
            Place(number=number, cost=cost, drop=kept.drop)
            for number, kept in done
            if (cost := costs[number]) is not None and kept.drop is not None
        ]
        if dense is not None and places:
            missing = sorted({number for number, _ in done} - {place.number for place in places})
            yield front_of(
                places, dense, kind=kind, cost=label, unit=unit, workload=workload, missing=missing
            )


def _exact(value: float) -> Estimate:
    return Estimate(value=value, ci95=(value, value))


def _cost(kept: Kept, kind: Kind, workload: str | None) -> Estimate | None:
    if kind == "latency":
        return kept.comparable_ms.get(workload or "")
    if kind == "size":
        return _exact(kept.size_bytes / 1e6)
    return None if kept.peak_memory_bytes is None else _exact(kept.peak_memory_bytes / 1e6)


def _dense_cost(baseline: Baseline, kind: Kind, workload: str | None) -> float | None:
    if kind == "latency":
        return baseline.latency_ms.get(workload or "")
    if kind == "size":
        return baseline.size_bytes / 1e6
    return None if baseline.peak_memory_bytes is None else baseline.peak_memory_bytes / 1e6


def front_of(
    places: Sequence[Place],
    dense_cost: float,
    *,
    kind: Kind,
    cost: str,
    unit: str,
    workload: str | None = None,
    missing: Sequence[int] = (),
) -> Front:
    """The front by point estimates; whether a domination is certain is said of each."""
    values = [(place.cost.value, place.drop.value) for place in places]
    reference = (dense_cost, max(0.0, *(drop for _, drop in values)))
    on_front = sorted((places[i] for i in non_dominated(values)), key=_order)
    members = {place.number for place in on_front}
    return Front(
        kind=kind,
        cost=cost,
        unit=unit,
        workload=workload,
        dense_cost=dense_cost,
        places=tuple(places),
        members=tuple(place.number for place in on_front),
        dominated=tuple(
            _domination(place, places, members, kind, unit)
            for place in places
            if place.number not in members
        ),
        missing=tuple(missing),
        beaten_by_dense=tuple(
            p.number for p in on_front if dense_cost <= p.cost.value and p.drop.value >= 0
            and (dense_cost, 0.0) != (p.cost.value, p.drop.value)
        ),
        reference=reference,
        hypervolume=hypervolume(values, reference),
    )  # fmt: skip


def _order(place: Place) -> tuple[float, float, int]:
    return place.cost.value, place.drop.value, place.number


def beats(a: Place, b: Place) -> bool:
    """`a` dominates `b` in the point estimates."""
    return dominates((a.cost.value, a.drop.value), (b.cost.value, b.drop.value))


def surely(a: Place, b: Place) -> bool:
    """`a` dominates `b` wherever in their intervals the truth lies.

    Stricter than a 95 % test of the difference, since two intervals may overlap where the difference is
    still surely not zero; costs without an interval (size, memory) count as exact.
    """
    return beats(a, b) and a.cost.ci95[1] <= b.cost.ci95[0] and a.drop.ci95[1] <= b.drop.ci95[0]


def _domination(
    loser: Place, places: Sequence[Place], members: set[int], kind: Kind, unit: str
) -> Domination:
    """By the point that shows it best: certainly rather than perhaps, then one of the front."""
    winner = min(
        (place for place in places if beats(place, loser)),
        key=lambda place: (not surely(place, loser), place.number not in members, _order(place)),
    )
    return Domination(
        number=loser.number,
        by=winner.number,
        why=_why(winner, loser, kind, unit),
        certain=surely(winner, loser),
    )


def _why(winner: Place, loser: Place, kind: Kind, unit: str) -> str:
    less, equal = _WORDS[kind]
    cost = _versus(winner.cost.value, loser.cost.value, less, equal, f" {unit}")
    drop = _versus(winner.drop.value, loser.drop.value, "drops less", "drops as much")
    return f"#{winner.number} {cost} and {drop}"


def _versus(a: float, b: float, less: str, equal: str, unit: str = "") -> str:
    """Both values with as many decimals as it takes to see that they differ."""
    if a == b:
        return f"{equal} ({fixed(a, decimals_of(a))}{unit})"
    decimals = decimals_of(a, b)
    while fixed(a, decimals) == fixed(b, decimals) and decimals < 15:
        decimals += 1
    return f"{less} ({fixed(a, decimals)} vs {fixed(b, decimals)}{unit})"

"""Pareto fronts over the points of a sweep: who is on them, and who beats the others by how much."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compress.judge.pareto import dominates, hypervolume, non_dominated
from compress.report.format import decimals_of, fixed
from compress.schema.estimates import Estimate
from compress.schema.sweep import Baseline, Domination, Front, Kept, Kind, Place, Point

_WORDS: dict[Kind, tuple[str, str]] = {
    "latency": ("is faster", "is as fast"),
    "size": ("is smaller", "is as small"),
    "memory": ("takes less memory", "takes as much memory"),
}


def fronts(points: Sequence[Point], baseline: Baseline, workloads: Sequence[str]) -> Iterator[Front]:
    """Drop of the primary metric against latency at every workload, size and memory; those with a point."""
    done = {point.number: point.kept for point in points if point.kept is not None}
    for workload in workloads:
        costs = {number: kept.comparable_ms.get(workload) for number, kept in done.items()}
        label, dense = f"latency at {workload}", baseline.latency_ms.get(workload)
        yield from _front(done, costs, dense, kind="latency", cost=label, unit="ms", workload=workload)
    sizes = {number: _megabytes(kept.size_bytes) for number, kept in done.items()}
    yield from _front(done, sizes, baseline.size_bytes / 1e6, kind="size", cost="size", unit="MB")
    memory = {number: _megabytes(kept.peak_memory_bytes) for number, kept in done.items()}
    dense = None if baseline.peak_memory_bytes is None else baseline.peak_memory_bytes / 1e6
    yield from _front(done, memory, dense, kind="memory", cost="peak memory", unit="MB")


def _megabytes(size: int | None) -> Estimate | None:
    """Without an interval."""
    return None if size is None else Estimate(value=size / 1e6, ci95=(size / 1e6, size / 1e6))


def _front(
    done: Mapping[int, Kept], costs: Mapping[int, Estimate | None], dense: float | None, **words: Any
) -> Iterator[Front]:
    """The front of the points that have this cost and a drop, if any has; `words` as of `front_of`."""
    places = [
        Place(number=number, cost=cost, drop=kept.drop)
        for number, kept in done.items()
        if (cost := costs[number]) is not None and kept.drop is not None
    ]
    if dense is not None and places:
        missing = sorted(set(done) - {place.number for place in places})
        yield front_of(places, dense, missing=missing, **words)


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

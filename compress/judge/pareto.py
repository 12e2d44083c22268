"""The Pareto front and its hypervolume; small is good on every axis."""

import math
from collections.abc import Sequence

Point = Sequence[float]


def dominates(a: Point, b: Point) -> bool:
    """`a` is nowhere worse than `b` and somewhere better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def non_dominated(points: Sequence[Point]) -> list[int]:
    """Indices of the points no other point beats, in the order given; equal points all stay.

    Raises ValueError for NaN, which has no place in an order, and for points of different lengths.
    """
    if any(math.isnan(x) for point in points for x in point):
        raise ValueError("a point with NaN has no place in an order")
    return [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area between the front and `reference`, the worst point; points not better than it add nothing."""
    worst, end = reference
    inside = sorted((p for p in points if p[0] < worst and p[1] < end), key=lambda point: point[1])
    edges = [*(point[1] for point in inside), end]
    least = [min(x for x, _ in inside[: i + 1]) for i in range(len(inside))]
    return sum(((edges[i + 1] - edges[i]) * (worst - x) for i, x in enumerate(least)), 0.0)

"""The Pareto front and its hypervolume."""

import math
from collections.abc import Sequence
from typing import Literal

Direction = Literal["min", "max"]
Point = Sequence[float]


def _minimised(points: Sequence[Point], directions: Sequence[Direction]) -> list[tuple[float, ...]]:
    signs = [1.0 if direction == "min" else -1.0 for direction in directions]
    result = [tuple(sign * x for sign, x in zip(signs, point, strict=True)) for point in points]
    if any(math.isnan(x) for point in result for x in point):
        raise ValueError("a point with NaN has no place in an order")
    return result


def dominates(a: Point, b: Point) -> bool:
    """`a` is nowhere worse than `b` and somewhere better; small is good."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def non_dominated(points: Sequence[Point], directions: Sequence[Direction]) -> list[int]:
    """Indices of the points no other point beats, in the order given; equal points all stay.

    Raises ValueError for NaN or a point whose length is not that of `directions`.
    """
    costs = _minimised(points, directions)
    return [i for i, cost in enumerate(costs) if not any(dominates(other, cost) for other in costs)]


def hypervolume(points: Sequence[Point], reference: Point, directions: Sequence[Direction]) -> float:
    """Volume between the front and `reference`, the worst point; points not better than it add nothing.

    Slicing along the last objective (While et al. 2006), exact for any number of objectives; its cost
    grows with the power of their number, which is 2 or 3 here. Raises ValueError as `non_dominated`.
    """
    (worst,) = _minimised([reference], directions)
    costs = [c for c in _minimised(points, directions) if all(x < w for x, w in zip(c, worst, strict=True))]
    return _volume(costs, worst)


def _volume(costs: list[tuple[float, ...]], worst: tuple[float, ...]) -> float:
    if not costs:
        return 0.0
    if len(worst) == 1:
        return worst[0] - min(cost[0] for cost in costs)
    costs = sorted(costs, key=lambda cost: cost[-1])
    edges = [*(cost[-1] for cost in costs), worst[-1]]
    return sum(
        (edges[i + 1] - edges[i]) * _volume([cost[:-1] for cost in costs[: i + 1]], worst[:-1])
        for i in range(len(costs))
    )

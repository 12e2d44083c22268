import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.judge.pareto import hypervolume, non_dominated

# Few distinct values, so that ties and equal points are common.
coordinates = st.integers(0, 6).map(float)
directions = st.lists(st.sampled_from(["min", "max"]), min_size=1, max_size=3)
fronts = directions.flatmap(
    lambda d: st.tuples(st.just(d), st.lists(st.tuples(*[coordinates] * len(d)), max_size=7))
)


def beats(a: tuple[float, ...], b: tuple[float, ...], directions: list[str]) -> bool:
    gains = [y - x if way == "min" else x - y for x, y, way in zip(a, b, directions, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


@given(fronts)
def test_nothing_beats_a_member_and_something_on_the_front_beats_every_other(case) -> None:
    directions, points = case
    front = non_dominated(points, directions)
    assert front == sorted(set(front))
    for i, point in enumerate(points):
        if i in front:
            assert not any(beats(other, point, directions) for other in points)
        else:
            assert any(beats(points[j], point, directions) for j in front)


def test_latency_and_quality() -> None:
    points = [(20.0, 0.51), (10.0, 0.51), (8.0, 0.40), (12.0, 0.50), (10.0, 0.51)]
    assert non_dominated(points, ["min", "max"]) == [1, 2, 4]


@given(fronts)
def test_hypervolume_equals_inclusion_and_exclusion(case) -> None:
    directions, points = case
    reference = [5.0] * len(directions)
    signs = np.array([1.0 if way == "min" else -1.0 for way in directions])
    boxes = np.array(points).reshape(len(points), len(directions)) * signs
    volume = sum(
        (-1) ** (size + 1) * np.prod(np.clip(signs * reference - boxes[list(chosen)].max(axis=0), 0, None))
        for size in range(1, len(points) + 1)
        for chosen in itertools.combinations(range(len(points)), size)
    )
    assert hypervolume(points, reference, directions) == pytest.approx(volume)


def test_hypervolume_by_hand() -> None:
    # an L of three unit squares; the third point is outside, the fourth dominated
    points = [(0.0, 1.0), (1.0, 0.0), (3.0, 0.0), (1.0, 1.0)]
    assert hypervolume(points, (2.0, 2.0), ["min", "min"]) == 3.0


def test_nan_and_ragged_points_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        non_dominated([(1.0, math.nan)], ["min", "min"])
    with pytest.raises(ValueError, match="zip"):
        non_dominated([(1.0,)], ["min", "min"])

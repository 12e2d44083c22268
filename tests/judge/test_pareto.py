import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.judge.pareto import hypervolume, non_dominated

# Few distinct values, so that ties and equal points are common.
coordinates = st.integers(0, 6).map(float)
planes = st.lists(st.tuples(coordinates, coordinates), max_size=7)
spaces = st.integers(1, 3).flatmap(lambda size: st.lists(st.tuples(*[coordinates] * size), max_size=7))


def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    gains = [y - x for x, y in zip(a, b, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


@given(spaces)
def test_nothing_beats_a_member_and_something_on_the_front_beats_every_other(points) -> None:
    front = non_dominated(points)
    assert front == sorted(set(front))
    for i, point in enumerate(points):
        if i in front:
            assert not any(beats(other, point) for other in points)
        else:
            assert any(beats(points[j], point) for j in front)


def test_latency_and_drop() -> None:
    points = [(20.0, 0.01), (10.0, 0.01), (8.0, 0.12), (12.0, 0.02), (10.0, 0.01)]
    assert non_dominated(points) == [1, 2, 4]


@given(planes)
def test_hypervolume_equals_inclusion_and_exclusion(points) -> None:
    boxes = np.array(points).reshape(len(points), 2)
    volume = sum(
        (-1) ** (size + 1) * np.prod(np.clip(5.0 - boxes[list(chosen)].max(axis=0), 0, None))
        for size in range(1, len(points) + 1)
        for chosen in itertools.combinations(range(len(points)), size)
    )
    assert hypervolume(points, (5.0, 5.0)) == pytest.approx(volume)


def test_hypervolume_by_hand() -> None:
    # an L of three unit squares; the third point is outside, the fourth dominated
    points = [(0.0, 1.0), (1.0, 0.0), (3.0, 0.0), (1.0, 1.0)]
    assert hypervolume(points, (2.0, 2.0)) == 3.0


def test_nan_and_ragged_points_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        non_dominated([(1.0, math.nan)])
    with pytest.raises(ValueError, match="zip"):
        non_dominated([(1.0,), (1.0, 2.0)])

"""The learning rate of distillation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.training.distillation import learning_rate_factor


@pytest.mark.parametrize(
    ("step", "total", "warmup", "factor"),
    [
        (0, 100, 0.1, 0.1),
        (4, 100, 0.1, 0.5),
        (9, 100, 0.1, 1.0),
        (10, 100, 0.1, 1.0),
        (55, 100, 0.1, 0.5),
        (100, 100, 0.1, 0.0),
        (0, 100, 0.0, 1.0),
        (0, 1, 0.05, 1.0),
        (5, 10, 1.0, 0.6),
    ],
)
def test_learning_rate_by_hand(step, total, warmup, factor):
    assert learning_rate_factor(step, total, warmup) == pytest.approx(factor, abs=1e-12)


@given(total=st.integers(1, 3000), warmup=st.floats(0, 1))
def test_learning_rate_rises_then_falls_and_never_stops_the_training(total, warmup):
    factors = [learning_rate_factor(step, total, warmup) for step in range(total)]
    top = factors.index(max(factors))
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)

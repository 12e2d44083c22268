"""The training loop on one number: the rate, the best weights, patience, time, going on after a kill."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.training.loop import Plan, Trainer, rise_and_fall


class Number(Trainer):
    """A number that each step moves by -1; `scores` are those of the evaluations."""

    score_name, higher_is_better = "score", True

    def __init__(self, scores=(), plan=None, **flags):
        self.scores, self.learned = iter(scores), []
        for name, value in flags.items():
            setattr(self, name, value)
        module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(module.weight, 10.0)
        plan = plan or Plan(steps=6, evaluate_every=2, seed=0)
        super().__init__(module, torch.optim.SGD(module.parameters(), lr=1.0), lambda step: 1.0, plan)

    def epoch(self, seed):
        return [[seed, row] for row in range(4)]

    def learn(self, rows):
        self.learned.append(rows)
        self.module.weight.grad = torch.ones(1, 1)
        return float(self.module.weight.detach()), 3

    def score(self):
        return next(self.scores)

    @property
    def value(self):
        return float(self.module.weight.detach())


def test_the_weights_of_the_best_evaluation_stay(tmp_path):
    number = Number([0.1, 0.3, 0.3, 0.2])
    history = number.run(tmp_path)
    assert number.value == 8.0  # after two steps; an evaluation that is only as good changes nothing
    assert (history.steps, history.best, history.best_evaluation) == ([0, 2, 4, 6], 0.3, 1)
    assert history.train_loss == [None, 9.5, 7.5, 5.5]
    assert (history.step, history.tokens) == (6, 18)
    assert number.learned == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1]]


def test_the_lowest_where_lower_is_better(tmp_path):
    number = Number([0.1, 0.3, 0.05, math.nan], higher_is_better=False)
    assert number.run(tmp_path).best == 0.05
    assert number.value == 6.0


def test_the_start_that_does_not_count_is_not_looked_at(tmp_path):
    number = Number([0.0, 0.0, 0.0], start_counts=False)
    assert number.run(tmp_path).steps == [2, 4, 6]
    assert number.value == 8.0


def test_the_last_weights_where_they_are_asked_for(tmp_path):
    number = Number([0.1, 0.3, 0.3, 0.2], keep_last=True)
    history = number.run(tmp_path)
    assert (number.value, history.best, history.best_evaluation) == (4.0, 0.2, 3)


def test_patience(tmp_path):
    number = Number([0.5, 0.1, 0.2], Plan(steps=100, evaluate_every=2, seed=0, patience=2))
    assert number.run(tmp_path).step == 4
    assert number.value == 10.0


def test_it_stops_in_time_after_a_last_look(tmp_path):
    number = Number([0.1, 0.2], Plan(steps=100, evaluate_every=50, seed=0, max_minutes=1e-9))
    assert number.run(tmp_path).steps == [0, 1]
    again = Number(plan=Plan(steps=100, evaluate_every=50, seed=0, max_minutes=1e-9))
    again.run(tmp_path)
    assert (again.value, again.learned) == (9.0, [])


def test_after_a_kill_it_goes_on_behind_the_last_look(tmp_path):
    killed = Number([0.1, 0.3])
    with pytest.raises(StopIteration):  # no score for the evaluation after four steps
        killed.run(tmp_path)
    resumed = Number([0.2, 0.1])
    assert resumed.run(tmp_path).select == [0.1, 0.3, 0.2, 0.1]
    assert resumed.learned == [[0, 2], [0, 3], [1, 0], [1, 1]]
    assert resumed.value == 8.0


@pytest.mark.parametrize("name", ["best.pt", "training.pt"])
def test_damaged_progress_starts_again(name, tmp_path):
    Number([0.1, 0.3, 0.2, 0.1]).run(tmp_path)
    (tmp_path / name).write_bytes(b"torn")
    again = Number([0.1, 0.3, 0.2, 0.1])
    again.run(tmp_path)
    assert (again.value, len(again.learned)) == (8.0, 6)


# ---------------------------------------------------------------- the learning rate


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
    assert rise_and_fall(step, total, warmup) == pytest.approx(factor, abs=1e-12)


@given(total=st.integers(1, 3000), warmup=st.floats(0, 1))
def test_learning_rate_rises_then_falls_and_never_stops_the_training(total, warmup):
    factors = [rise_and_fall(step, total, warmup) for step in range(total)]
    top = factors.index(max(factors))
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)

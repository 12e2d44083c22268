"""Budgets against intervals, by hand and by property."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from compress.config.target import BudgetConfig
from compress.judge.verdict import judge
from compress.schema.estimates import Estimate, Score
from compress.schema.report import Variant


def variant(name, *, quality=0.5, drop=(0.0, 0.0, 0.0), speed=None, size=10_000_000):
    """`drop` and each speed-up are (lower end, value, upper end)."""
    estimate = lambda low, value, high: Estimate(value=value, ci95=(low, high))  # noqa: E731
    return Variant(
        name=name,
        stage="s",
        path="p",
        sha256="0",
        size_bytes=size,
        parameters=1,
        macs=1,
        quality={"m": Score(value=quality, ci95=(quality, quality), n=9, higher_is_better=True)},
        drop_from_dense={"m": estimate(*drop)},
        speedup={workload: estimate(*of) for workload, of in (speed or {}).items()},
    )


DENSE = variant("dense", size=40_000_000)


def test_the_upper_end_of_the_drop_decides_not_the_point():
    # dense 0.5, so a drop of 0.004 is 0.8 % and its upper end, 0.006, is 1.2 %
    small = variant("int8", drop=(0.002, 0.004, 0.006))
    verdict = judge([DENSE, small], "m", BudgetConfig(max_quality_drop=0.01))
    assert not verdict.ships
    assert verdict.best == "int8"
    assert verdict.reasons[0] == "m may have dropped by up to 1.2% (budget 1.0%; measured +0.8%)"
    assert judge([DENSE, small], "m", BudgetConfig(max_quality_drop=0.012)).ships


def test_a_negative_drop_is_a_gain():
    better = variant("pruned", drop=(-0.3, -0.2, -0.1))
    assert judge([DENSE, better], "m", BudgetConfig(max_quality_drop=0.0)).ships


def test_a_metric_below_zero_has_a_positive_scale():
    dense, small = variant("dense", quality=-0.5), variant("int8", drop=(0.0, 0.1, 0.2))
    assert not judge([dense, small], "m", BudgetConfig(max_quality_drop=0.3)).ships
    assert judge([dense, small], "m", BudgetConfig(max_quality_drop=0.4)).ships


def test_where_dense_was_not_timed_no_speed_up_is_known():
    dense, small = dataclasses.replace(DENSE, not_timed="too large"), variant("int4")
    verdict = judge([dense, small], "m", BudgetConfig())
    assert verdict.ships
    assert verdict.reasons[0] == "no speed-up is known: too large"
    verdict = judge([dense, small], "m", BudgetConfig(min_speedup=0.5))
    assert not verdict.ships
    assert verdict.reasons[0] == "no speed-up is known (budget 0.5x): too large"


def test_the_lower_end_of_the_slowest_workload_decides():
    small = variant("int8", speed={"1x128": (2.9, 3.0, 3.1), "8x128": (1.9, 2.5, 2.6)})
    assert judge([DENSE, small], "m", BudgetConfig(min_speedup=1.9)).ships
    verdict = judge([DENSE, small], "m", BudgetConfig(min_speedup=2))
    assert not verdict.ships
    assert verdict.reasons[0] == "speed-up at 8x128 may be as low as 1.90x (budget 2x)"


def test_what_was_asked_for_stays_and_what_meets_the_budget_is_named_beside_it():
    fused, pruned = variant("fused", drop=(0, 0, 0)), variant("pruned", drop=(0, 0.01, 0.02))
    variants = [DENSE, fused, pruned, variant("int8", drop=(0, 0.1, 0.2))]
    verdict = judge(variants, "m", BudgetConfig(max_quality_drop=0.05))
    assert (verdict.ships, verdict.best, verdict.instead) == (False, "int8", "pruned")
    assert verdict.reasons[0].startswith("m may have dropped by up to 40.0%")
    within = judge(variants, "m", BudgetConfig(max_quality_drop=0.5))
    assert (within.ships, within.best, within.instead) == (True, "int8", None)
    none = judge(variants, "m", BudgetConfig(max_size_mb=1))
    assert (none.ships, none.best, none.instead) == (False, "int8", None)


def test_with_a_fallback_the_last_that_meets_the_budget_ships():
    pruned, small = variant("pruned", drop=(0, 0.01, 0.02)), variant("int8", drop=(0, 0.1, 0.2))
    verdict = judge([DENSE, pruned, small], "m", BudgetConfig(max_quality_drop=0.05, fallback=True))
    assert (verdict.ships, verdict.best, verdict.instead) == (True, "pruned", None)
    assert verdict.reasons[0].startswith("int8, which was asked for, misses its budget: m may have dropped")
    for budget in (BudgetConfig(fallback=True), BudgetConfig(max_size_mb=1, fallback=True)):
        assert judge([DENSE, pruned, small], "m", budget).best == "int8"


def test_none_meets_the_budget():
    variants = [DENSE, variant("pruned", size=30_000_000), variant("int8", size=20_000_000)]
    verdict = judge(variants, "m", BudgetConfig(max_size_mb=15))
    assert (verdict.ships, verdict.best) == (False, "int8")
    assert verdict.reasons[0] == "20.0 MB (budget 15 MB)"
    assert "20.0 MB instead of 40.0 MB" in verdict.reasons


@pytest.mark.parametrize(
    ("interval", "word"),
    [((1.1, 1.2, 1.3), "faster"), ((0.9, 1.2, 1.3), "not faster"), ((0.7, 0.8, 0.9), "slower")],
)
def test_faster_is_said_only_of_an_interval_above_one(interval, word):
    verdict = judge([DENSE, variant("int8", speed={"1x8": interval})], "m", BudgetConfig())
    assert any(reason.startswith(f"{word} at 1x8") for reason in verdict.reasons)


def test_the_dense_model_alone_must_meet_the_budget_too():
    assert judge([DENSE], "m", BudgetConfig()).best == "dense"
    assert judge([DENSE], "m", BudgetConfig(max_size_mb=40, max_quality_drop=0.0, min_speedup=1)).ships
    for budget in (BudgetConfig(max_size_mb=39), BudgetConfig(min_speedup=1.5)):
        verdict = judge([DENSE], "m", budget)
        assert (verdict.ships, verdict.best) == (False, "dense")


def test_a_baseline_without_quality_allows_no_relative_drop():
    verdict = judge([variant("dense", quality=0.0), variant("int8")], "m", BudgetConfig(max_quality_drop=0.5))
    assert not verdict.ships
    assert "no relative drop can be computed" in verdict.reasons[0]


numbers = st.floats(-2, 2) | st.just(math.nan)


@given(
    drops=st.lists(numbers, min_size=1, max_size=3),
    speeds=st.lists(numbers, min_size=3, max_size=3),
    max_drop=st.floats(0, 1),
    min_speedup=st.floats(0, 2),
    fallback=st.booleans(),
)
def test_nothing_ships_beyond_its_budget(drops, speeds, max_drop, min_speedup, fallback):
    candidates = [
        variant(f"v{i}", drop=(-9, 0, drop), speed={"w": (speeds[i], 9, 9)}) for i, drop in enumerate(drops)
    ]
    budget = BudgetConfig(max_quality_drop=max_drop, min_speedup=min_speedup, fallback=fallback)
    verdict = judge([DENSE, *candidates], "m", budget)
    fitting = [
        v.name
        for v in candidates
        if v.drop_from_dense["m"].ci95[1] / 0.5 <= max_drop and v.speedup["w"].ci95[0] >= min_speedup
    ]
    asked = candidates[-1].name
    assert verdict.ships == bool(asked in fitting or (fallback and fitting))
    assert verdict.best == (fitting[-1] if fallback and fitting else asked)
    assert verdict.instead == (fitting[-1] if fitting and not verdict.ships else None)


def test_every_metric_is_tested_against_the_budget():
    """Dense 0.5 and a budget of 10 %: a margin of 0.05; half an interval of 0.04 is 1.96 standard errors."""
    z = norm.ppf(0.975)
    dense, small = variant("dense"), variant("int8", drop=(-0.03, 0.01, 0.05))
    scores = {"a": dense.quality["m"], **dense.quality}
    drops = {"a": Estimate(value=0.0, ci95=(-0.02, 0.02)), **small.drop_from_dense}
    dense = dataclasses.replace(dense, quality=scores)
    small = dataclasses.replace(small, quality=scores, drop_from_dense=drops)
    first, second = judge([dense, small], "m", BudgetConfig(max_quality_drop=0.1)).noninferiority
    assert (first.metric, second.metric) == ("m", "a")  # the primary one first
    assert first.margin == second.margin == pytest.approx(0.05)
    assert first.p_value == pytest.approx(norm.sf(z * 0.04 / 0.04))
    assert second.p_value == pytest.approx(norm.sf(z * 0.05 / 0.02))
    assert second.p_holm == pytest.approx(2 * second.p_value)
    assert first.p_holm == pytest.approx(first.p_value)
    assert first.drop == drops["m"]


def test_without_a_budget_or_a_candidate_there_is_nothing_to_test():
    assert judge([DENSE, variant("int8")], "m", BudgetConfig()).noninferiority == ()
    assert judge([DENSE], "m", BudgetConfig(max_quality_drop=0.1)).noninferiority == ()


@pytest.mark.parametrize(("mcc", "told"), [((0.0, 0.0), True), ((-0.1, 0.1), False)])
def test_a_model_that_always_answers_alike_is_told(mcc, told):
    constant = dataclasses.replace(
        DENSE, quality={**DENSE.quality, "mcc": Score(value=0.0, ci95=mcc, n=9, higher_is_better=True)}
    )
    reasons = judge([constant, variant("int8")], "m", BudgetConfig()).reasons
    assert any("answers every test example alike" in reason for reason in reasons) is told

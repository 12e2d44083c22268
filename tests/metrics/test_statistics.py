import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from compress.errors import DataError
from compress.metrics import statistics as ours
from compress.metrics.correlations import correlation
from compress.schema.estimates import Estimate

# --- means


def test_the_interval_of_a_normal_mean_is_that_of_student():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=80)
    score = ours.mean_interval(values, resamples=20_000)
    student = stats.t.interval(0.95, 79, values.mean(), stats.sem(values))
    assert score.value == pytest.approx(values.mean())
    assert score.n == 80
    assert score.ci95 == pytest.approx(student, abs=0.05 * stats.sem(values) * 2)


@pytest.mark.parametrize("units", [2, 3])
def test_two_or_three_units_have_the_interval_of_student(units):
    """The bootstrap's ends lay anywhere between those of a point and 1e8."""
    values = np.random.default_rng(units).normal(3.0, 0.5, size=units)
    student = stats.t.interval(0.95, units - 1, values.mean(), stats.sem(values))
    assert ours.mean_interval(values).ci95 == pytest.approx(student)
    repeated, labels = np.repeat(values, 100), np.repeat(np.arange(units), 100)
    assert ours.mean_interval(repeated, labels).ci95 == pytest.approx(student)


def test_repeating_every_value_tells_nothing_new_when_clusters_say_so():
    values = np.random.default_rng(1).exponential(size=60)
    repeated, labels = np.repeat(values, 5), np.repeat(np.arange(60), 5)
    once, clustered = ours.mean_interval(values), ours.mean_interval(repeated, labels)
    assert clustered.value == pytest.approx(once.value)
    assert clustered.ci95 == pytest.approx(once.ci95)
    naive = ours.mean_interval(repeated).ci95
    assert naive[1] - naive[0] < 0.6 * (once.ci95[1] - once.ci95[0])


def test_a_drop_is_paired_and_positive_when_worse():
    dense = np.random.default_rng(2).normal(size=50) * 100
    drop = ours.paired_mean_drop(dense, dense - 1.0)
    assert drop.value == pytest.approx(1.0)
    assert drop.ci95 == pytest.approx((1.0, 1.0))
    assert ours.paired_mean_drop(dense, dense - 1.0, higher_is_better=False).value == pytest.approx(-1.0)


def test_equal_scores_drop_by_exactly_zero():
    dense = np.random.default_rng(0).normal(size=200)
    zero = Estimate(value=0.0, ci95=(0.0, 0.0))
    assert ours.paired_mean_drop(dense, dense) == zero


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.floats(-100, 100))
def test_an_interval_holds_its_mean_and_moves_with_the_data(values, shift):
    score = ours.mean_interval(values, resamples=200)
    moved = ours.mean_interval(np.array(values) + shift, resamples=200)
    assert score.ci95[0] <= score.value + 1e-6
    assert score.value - 1e-6 <= score.ci95[1]
    assert moved.value == pytest.approx(score.value + shift, abs=1e-6)


def test_quantile_interval_ends_at_the_order_statistics_of_the_binomial():
    values = np.random.default_rng(3).permutation(np.arange(500.0))
    score = ours.quantile_interval(values, 0.05)
    assert score.value == pytest.approx(np.quantile(values, 0.05))
    # P(low <= quantile <= high) = P(low < Binomial(500, 0.05) <= high), at least 95 %
    low, high = score.ci95
    covered = stats.binom.cdf(high, 500, 0.05) - stats.binom.cdf(low, 500, 0.05)
    assert 0.95 <= covered < 0.975


def test_quantile_of_repeated_values_knows_their_clusters():
    values = np.random.default_rng(6).normal(size=300)
    once = ours.quantile_interval(values, 0.2)
    repeated = ours.quantile_interval(np.repeat(values, 5), 0.2, np.repeat(np.arange(300), 5))
    assert repeated.value == pytest.approx(once.value, abs=0.02)
    assert repeated.ci95 == pytest.approx(once.ci95, abs=0.05)


# --- proportions and decisions


def test_accuracy_has_wilsons_interval():
    score = ours.accuracy([True] * 90 + [False] * 10)
    z2 = stats.norm.ppf(0.975) ** 2  # Wilson 1927, by hand
    centre = (0.9 + z2 / 200) / (1 + z2 / 100)
    half = np.sqrt(z2 * 0.09 / 100 + z2**2 / 40000) / (1 + z2 / 100)
    assert score.value == 0.9
    assert score.ci95 == pytest.approx((centre - half, centre + half))


def _correct(both, lost, gained, neither):
    dense = [True] * (both + lost) + [False] * (gained + neither)
    small = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return dense, small


def test_tangos_interval_of_models_that_never_disagree():
    drop = ours.paired_accuracy_drop(*_correct(50, 0, 0, 0))
    half = 3.841459 / (50 + 3.841459)  # z^2 / (n + z^2)
    assert drop.value == 0
    assert drop.ci95 == pytest.approx((-half, half), abs=1e-6)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_an_example_are_one_where_clusters_say_so(copies):
    dense, small = _correct(30, 6, 2, 2)
    group = np.repeat(np.arange(40), copies)
    few = stats.t.ppf(0.975, 40 * copies - 1) / stats.t.ppf(0.975, 39)  # Korn & Graubard 1998
    repeated = np.repeat(dense, copies), np.repeat(small, copies)
    drop, alone = ours.paired_accuracy_drop(*repeated, group), ours.paired_accuracy_drop(dense, small)
    assert drop.value == alone.value
    assert (drop.ci95[1] - drop.ci95[0]) * few == pytest.approx(alone.ci95[1] - alone.ci95[0], rel=0.03)
    score, once = ours.accuracy(repeated[0], group), ours.accuracy(dense)
    assert (score.ci95[1] - score.ci95[0]) * few == pytest.approx(once.ci95[1] - once.ci95[0], rel=0.03)


def test_one_answer_of_hundreds_that_changed_is_no_narrow_interval():
    dense, small = np.ones(600), np.ones(600)
    dense[7] = 0  # only the small model has it right
    alone = ours.paired_accuracy_drop(dense, small)
    grouped = ours.paired_accuracy_drop(dense, small, np.arange(600))
    assert grouped.ci95 == pytest.approx(alone.ci95, rel=0.01)
    # The studentised bootstrap says -0.0017 and 0.0008.
    assert alone.ci95[0] < -0.009
    assert alone.ci95[1] > 0.0045


@pytest.mark.parametrize("table", [(36, 12, 2, 0), (900, 40, 15, 45), (5, 3, 4, 8)])
def test_tangos_interval_ends_where_the_score_statistic_is_1_96(table):
    both, lost, gained, neither = table
    n = sum(table)

    def score(drop):
        """With the restricted maximum of the likelihood found numerically, not by Tango's formula."""

        def loss(q):
            return -(
                lost * np.log(q + drop) + gained * np.log(q) + (both + neither) * np.log(1 - 2 * q - drop)
            )

        bounds = (max(0.0, -drop) + 1e-12, (1 - drop) / 2 - 1e-12)
        q = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
        return (lost - gained - n * drop) / np.sqrt(n * (2 * q + drop - drop**2))

    low, high = ours.paired_accuracy_drop(*_correct(*table)).ci95
    assert score(low) == pytest.approx(1.959964, abs=1e-3)
    assert score(high) == pytest.approx(-1.959964, abs=1e-3)


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(lambda table: sum(table) > 0))
@settings(max_examples=60, deadline=None)
def test_tangos_interval_holds_the_drop_and_mirrors(table):
    dense, small = _correct(*table)
    drop, back = ours.paired_accuracy_drop(dense, small), ours.paired_accuracy_drop(small, dense)
    assert -1 <= drop.ci95[0] <= drop.value <= drop.ci95[1] <= 1
    assert back.ci95 == pytest.approx((-drop.ci95[1], -drop.ci95[0]), abs=1e-6)


def test_mcnemar_by_hand():
    # 1 lost, 5 gained: 2 (C(6,0) + C(6,1)) / 2^6
    assert ours.mcnemar(*_correct(20, 1, 5, 3)) == pytest.approx(14 / 64)
    assert ours.mcnemar(*_correct(20, 0, 0, 3)) == 1.0


def test_the_p_value_of_noninferiority_is_that_of_a_normal():
    """Drop 0 with standard error 1, margin 1.645: one-sided 5 %."""
    z = stats.norm.ppf(0.975)
    drop = Estimate(value=0.0, ci95=(-z, z))
    assert ours.noninferiority_p(drop, stats.norm.ppf(0.95)) == pytest.approx(0.05)
    assert ours.noninferiority_p(drop, 0.0) == pytest.approx(0.5)
    assert ours.noninferiority_p(Estimate(value=0.1, ci95=(0.1, 0.1)), 0.2) == 0.0
    assert ours.noninferiority_p(Estimate(value=0.2, ci95=(0.2, 0.2)), 0.2) == 1.0
    assert ours.noninferiority_p(Estimate(value=0.1, ci95=(0.0, float("nan"))), 0.2) == 1.0


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(-2, 2))
def test_the_p_value_agrees_with_the_interval(value, below, above, margin):
    drop = Estimate(value=value, ci95=(value - below, value + above))
    if abs(margin - drop.ci95[1]) > 1e-9:
        assert (ours.noninferiority_p(drop, margin) < 0.025) == (drop.ci95[1] < margin)


def test_holm_by_hand():
    assert ours.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ours.holm([0.9, 0.8]) == [1.0, 1.0]


# --- bad input


@pytest.mark.parametrize(
    "call",
    [
        lambda: ours.mean_interval([1.0, float("nan"), 2.0]),
        lambda: ours.mean_interval([]),
        lambda: ours.mean_interval([1.0]),
        lambda: ours.mean_interval([1.0, 2.0], clusters=["a", "a"]),
        lambda: ours.mean_interval([1.0, 2.0], clusters=["a"]),
        lambda: ours.paired_mean_drop([1.0, 2.0], [1.0]),
        lambda: correlation("spearman", [1.0] * 5, [1, 2, 3, 4, 5]),
        lambda: correlation("pearson", [1, 2, 3, 4], [1, 2, 3, float("inf")]),
        lambda: correlation("pearson", [1, 2], [1, 2]),
        lambda: correlation("pearson", [1, 2, 4, 3], [1, 2, 3, 4], nodes=[[0, 1]]),
        lambda: ours.paired_accuracy_drop([True], []),
        lambda: ours.accuracy([]),
    ],
)
def test_bad_input_is_a_data_error(call):
    with pytest.raises(DataError):
        call()


def test_results_are_deterministic_and_follow_the_seed():
    values = np.random.default_rng(5).exponential(size=40)
    assert ours.mean_interval(values) == ours.mean_interval(values)
    assert ours.mean_interval(values, seed=1) != ours.mean_interval(values)


# --- coverage, by the study's own simulation


@pytest.mark.slow
@pytest.mark.exhaustive
def test_coverage():
    """200 experiments a method; the study in experiments/ has 1,000."""
    path = Path(__file__).parents[2] / "experiments" / "interval_coverage" / "run.py"
    spec = importlib.util.spec_from_file_location("interval_coverage", path)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    low, high = stats.binom.ppf([0.0005, 0.9995], 200, 0.95) / 200
    results = study.simulate(200)
    for method, (coverage, *_) in results.items():
        if not method.startswith("["):
            assert low <= coverage <= high, method
    assert results["[spearman: pairs resampled]"][0] < 0.9

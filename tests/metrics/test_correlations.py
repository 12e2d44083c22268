"""Correlations and their intervals, against SciPy's and the jackknife."""

import time

import numpy as np
import pytest
from scipy import stats

from compress.metrics import correlations as ours
from compress.schema.estimates import Estimate

KINDS = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}


def _pairs(seed=0, n=200):
    rng = np.random.default_rng(seed)
    truth = np.round(rng.normal(size=n), 1)
    dense = truth + rng.normal(size=n)
    return dense, dense + 0.3 * rng.normal(size=n), truth


@pytest.mark.parametrize("kind", KINDS)
def test_equal_predictions_drop_by_exactly_zero(kind):
    dense, _, truth = _pairs()
    assert ours.paired_correlation_drop(kind, dense, dense, truth) == Estimate(value=0.0, ci95=(0.0, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_value_is_scipys(kind):
    dense, small, truth = _pairs()
    assert ours.correlation(kind, dense, truth).value == pytest.approx(KINDS[kind](dense, truth).statistic)
    expected = KINDS[kind](dense, truth).statistic - KINDS[kind](small, truth).statistic
    assert ours.paired_correlation_drop(kind, dense, small, truth).value == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_error_is_the_jackknifes(kind):
    dense, small, truth = _pairs()

    def drop(keep):
        return KINDS[kind](dense[keep], truth[keep])[0] - KINDS[kind](small[keep], truth[keep])[0]

    left_out = [drop(np.arange(200) != i) for i in range(200)]
    jackknife = np.sqrt(199 / 200 * ((left_out - np.mean(left_out)) ** 2).sum())
    low, high = ours.paired_correlation_drop(kind, dense, small, truth).ci95
    assert (high - low) / 2 / stats.t.ppf(0.975, 199) == pytest.approx(jackknife, rel=0.03)


def test_pearson_of_normal_data_has_fishers_interval():
    rng = np.random.default_rng(4)
    x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=3000).T
    expected = stats.pearsonr(x, y).confidence_interval(0.95)
    assert ours.correlation("pearson", x, y).ci95 == pytest.approx(tuple(expected), abs=0.003)


def test_pairs_of_distinct_items_are_as_good_as_independent_ones():
    dense, _, truth = _pairs()
    alone = ours.correlation("spearman", dense, truth)
    nodes = np.arange(400).reshape(200, 2)
    assert ours.correlation("spearman", dense, truth, nodes).ci95 == pytest.approx(alone.ci95, abs=2e-3)


def test_a_pair_that_occurs_ten_times_counts_once():
    dense, _, truth = _pairs()
    nodes = np.arange(400).reshape(200, 2)
    once = ours.correlation("spearman", dense, truth, nodes)
    tenfold = [np.repeat(a, 10, axis=0) for a in (dense, truth, nodes)]
    # Reversed and self-paired items must not count twice either.
    tenfold[2][::2] = tenfold[2][::2, ::-1]
    assert ours.correlation("spearman", *tenfold).ci95 == pytest.approx(once.ci95, abs=2e-3)


def test_pairs_of_one_word_with_itself():
    dense, _, truth = _pairs()
    nodes = np.stack([np.arange(200)] * 2, axis=1)
    alone = ours.correlation("spearman", dense, truth)
    assert ours.correlation("spearman", dense, truth, nodes).ci95 == pytest.approx(alone.ci95, abs=3e-3)


def test_fifty_documents_are_fast():
    left, right = np.triu_indices(50, 1)
    dense, small, truth = _pairs(n=len(left))
    started = time.process_time()
    ours.paired_correlation_drop("spearman", dense, small, truth, np.stack([left, right], axis=1))
    assert time.process_time() - started < 2


def test_a_perfect_correlation():
    score = ours.correlation("spearman", [1, 2, 3, 4, 5], [10, 20, 30, 40, 99])
    assert score.value == pytest.approx(1.0)
    assert score.ci95[0] == pytest.approx(1.0)

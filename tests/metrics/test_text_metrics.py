"""Metrics of text tasks against scikit-learn, published examples and arithmetic by hand; their intervals
against populations whose truth is known."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import DataError
from compress.metrics import answers, ranking
from compress.metrics.auc import auc, macro_auc
from compress.metrics.confusion import (
    macro_f1,
    macro_f1_of_several,
    matthews,
    micro_f1_of_several,
)
from compress.metrics.entities import entities, entity_counts, entity_f1
from compress.metrics.influence import Statistic, paired_drop, score
from compress.metrics.thresholds import best_threshold, f1_at, threshold_stability


def noisy(generator, truth, classes, wrong):
    """Answers that are wrong in that share."""
    other = generator.integers(0, classes, len(truth))
    return np.where(generator.random(len(truth)) < wrong, other, truth)


def derivative(value_of, row, n, by=1e-4):
    """How the value of examples with weights moves where that of a row grows."""
    weights = np.full(n, 1.0)
    weights[row] += by
    return (value_of(weights) - value_of(np.ones(n))) / by


# ---------------------------------------------------------------- classifiers


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_f1_and_matthews_are_scikit_learns(seed, classes):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, 60)
    said = noisy(generator, truth, classes + 1, 0.4)
    wanted = sk.f1_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0)
    assert macro_f1(said, truth).value == pytest.approx(wanted)
    assert matthews(said, truth).value == pytest.approx(sk.matthews_corrcoef(truth, said))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_influence_is_the_derivative_by_the_weight_of_an_example(seed):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, 40)
    said = noisy(generator, truth, 3, 0.4)
    row = int(generator.integers(40))
    labels = np.unique(truth)

    def f1(weights):
        return sk.f1_score(
            truth, said, labels=labels, average="macro", sample_weight=weights, zero_division=0
        )

    def mcc(weights):
        return sk.matthews_corrcoef(truth, said, sample_weight=weights)

    assert macro_f1(said, truth).influence[row] == pytest.approx(derivative(f1, row, 40), abs=1e-5)
    assert matthews(said, truth).influence[row] == pytest.approx(derivative(mcc, row, 40), abs=1e-5)
    values, positive = generator.normal(size=40).round(1), truth == 1

    def area(weights):
        return sk.roc_auc_score(positive, values, sample_weight=weights)

    assert auc(values, positive).influence[row] == pytest.approx(derivative(area, row, 40), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_areas_are_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    labels = np.append(generator.integers(0, 3, 50), [0, 1, 2])
    scores = generator.normal(size=(53, 3)).round(1) + np.eye(3)[labels]
    one = [sk.roc_auc_score(labels == k, scores[:, k]) for k in range(3)]
    assert macro_auc(scores, labels).value == pytest.approx(np.mean(one))
    both = labels < 2
    wanted = sk.roc_auc_score(labels[both], (scores[:, 1] - scores[:, 0])[both])
    assert macro_auc(scores[both, :2], labels[both]).value == pytest.approx(wanted)


def test_an_area_needs_both_classes():
    with pytest.raises(DataError, match="needs both classes"):
        auc(np.arange(4.0), np.ones(4, bool))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_f1_of_several_labels_is_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    truth, said = generator.random((2, 40, 4)) < 0.3
    truth[:, 3] = False
    micro = sk.f1_score(truth, said, average="micro", zero_division=0)
    macro = sk.f1_score(truth, said, labels=[0, 1, 2], average="macro", zero_division=0)
    assert micro_f1_of_several(said, truth).value == pytest.approx(micro)
    if truth[:, :3].any(0).all():
        assert macro_f1_of_several(said, truth).value == pytest.approx(macro)


def test_equal_answers_leave_room_for_one_more_error():
    truth = np.arange(400) % 2
    said = np.where(np.arange(400) % 10 == 0, 1 - truth, truth)
    drop = paired_drop(macro_f1(said, truth), macro_f1(said, truth))
    assert drop.value == 0
    assert 1 / 400 < drop.ci95[1] < 4 / 400
    assert score(macro_f1(truth, truth)).ci95[0] < 1


# ---------------------------------------------------------------- entities


def test_the_published_example_of_seqeval():
    truth = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    said = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    assert entity_f1(entity_counts(said, truth)).value == 0.5
    assert entities(["B-PER", "I-PER", "O", "B-LOC"]) == [("PER", 0, 1), ("LOC", 3, 3)]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("I-PER I-PER O", [("PER", 0, 1)]),
        ("I-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("B-PER I-LOC O", [("PER", 0, 0), ("LOC", 1, 1)]),
        ("S-PER B-LOC I-LOC E-LOC S-PER", [("PER", 0, 0), ("LOC", 1, 3), ("PER", 4, 4)]),
        ("U-PER B-LOC L-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("E-PER E-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("B I O B", [("_", 0, 1), ("_", 3, 3)]),
        ("PER PER O LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("O O", []),
        ("", []),
    ],
)
def test_entities_of_every_scheme(tags, found):
    assert entities(tags.split()) == found


def test_an_empty_tagging_finds_nothing_and_says_so():
    truth = [["B-PER", "O"], ["O", "B-LOC"]]
    assert entity_f1(entity_counts([["O", "O"]] * 2, truth)).value == 0
    assert entity_f1(entity_counts([["O", "O"]] * 2, [["O", "O"]] * 2)).value == 0


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("said", "golds", "exact", "f1"),
    [
        ("The Eiffel-Tower!", ["eiffeltower"], 1, 1),
        ("in the year 1920", ["1920", "the 1920s"], 0, 0.5),
        ("", [], 1, 1),
        ("Paris", [], 0, 0),
        ("", ["Paris"], 0, 0),
        ("a b c d", ["b c", "c d e"], 0, 4 / 5),  # "a" is an article: b c d against b c
        ("to to to", ["to be"], 0, 2 * 1 / 5),
    ],
)
def test_answers_of_squad(said, golds, exact, f1):
    assert answers.exact_match(said, golds) == exact
    assert answers.f1(said, golds) == pytest.approx(f1)


# ---------------------------------------------------------------- rankings


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_ndcg_is_scikit_learns_ties_included(seed, k):
    generator = np.random.default_rng(seed)
    scores, gains = generator.integers(0, 5, 12).astype(float), generator.integers(0, 3, 12)
    gains[generator.integers(12)] = 1
    assert ranking.ndcg(scores, gains, k) == pytest.approx(sk.ndcg_score([gains], [scores], k=k))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_ranks_of_ties_are_the_mean_over_all_orders(seed, k):
    generator = np.random.default_rng(seed)
    scores, gains = generator.integers(0, 3, 8), generator.integers(0, 2, 8)
    gains[generator.integers(8)] = 1
    first, share = [], []
    for _ in range(800):
        order = generator.permutation(8)
        good = gains[order[np.argsort(-scores[order], kind="stable")]] > 0
        first.append(1 / (good.argmax() + 1) if good[:k].any() else 0)
        share.append(good[:k].sum() / good.sum())
    assert ranking.reciprocal_rank(scores, gains, k) == pytest.approx(np.mean(first), abs=0.08)
    assert ranking.recall(scores, gains, k) == pytest.approx(np.mean(share), abs=0.08)


def test_rankings_by_hand():
    scores, gains = [3, 2, 1, 0], [0, 1, 0, 1]
    assert ranking.reciprocal_rank(scores, gains) == 0.5
    assert ranking.recall(scores, gains, 2) == 0.5
    ideal = 1 + 1 / math.log2(3)
    assert ranking.ndcg(scores, gains) == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert ranking.reciprocal_rank([0] * 4, [1, 0, 0, 0], 2) == pytest.approx((1 + 1 / 2) / 4)


@pytest.mark.parametrize(("scores", "gains"), [([1, 2], [0, 0]), ([1, 2], [1]), ([1, math.nan], [1, 0])])
def test_queries_without_an_answer_or_a_score_are_refused(scores, gains):
    with pytest.raises(DataError):
        ranking.ndcg(scores, gains)


# ---------------------------------------------------------------- thresholds


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_threshold_has_the_highest_f1_of_all(seed):
    generator = np.random.default_rng(seed)
    truth = np.append(generator.random(40) < 0.3, True)
    probabilities = (generator.random(41) * 0.6 + truth * 0.3).round(1)
    best = best_threshold(probabilities, truth)
    every = max(sk.f1_score(truth, probabilities >= t, zero_division=0) for t in np.arange(-0.05, 1.1, 0.1))
    assert f1_at(best, probabilities, truth) == pytest.approx(every)


def test_a_model_that_is_less_sure_wants_another_threshold():
    generator = np.random.default_rng(0)
    truth = generator.random(2000) < 0.2
    dense = np.clip(0.5 + 0.3 * (2 * truth - 1) + generator.normal(0, 0.1, 2000), 0, 1)
    small = dense * 0.5
    found = threshold_stability(dense[:1000], small[:1000], truth[:1000], small[1000:], truth[1000:])
    assert found.moved == pytest.approx(-found.dense / 2, abs=0.02)
    assert found.cost > 0.5
    same = threshold_stability(dense[:1000], dense[:1000], truth[:1000], dense[1000:], truth[1000:])
    assert (same.moved, same.cost) == (0, 0)


# ---------------------------------------------------------------- intervals


def _classifiers(generator, n, wrong=(0.05, 0.06), shares=(0.7, 0.2, 0.1)):
    """Truth and answers of two models that mostly err together."""
    truth = generator.choice(3, n, p=shares)
    hard = generator.random(n)
    other = (truth + generator.integers(1, 3, n)) % 3
    dense = np.where(hard < wrong[0], other, truth)
    small = np.where(
        (hard < wrong[0] * 0.8) | (generator.random(n) < wrong[1] - wrong[0] * 0.8), other, truth
    )
    return truth, dense, small


def _macro(generator, n):
    truth, dense, small = _classifiers(generator, n)
    return macro_f1(dense, truth), macro_f1(small, truth)


def _mcc(generator, n):
    truth, dense, small = _classifiers(generator, n, shares=(0.92, 0.05, 0.03))
    return matthews(dense, truth), matthews(small, truth)


def _area(generator, n):
    truth = np.append(generator.random(n - 2) < 0.1, [True, False])
    dense = truth * 2.5 + generator.normal(size=n)
    return auc(dense, truth), auc(dense + generator.normal(0, 0.5, n), truth)


def _entity(generator, n):
    """Sentences of no to four entities, which a model finds together or not."""
    true = generator.integers(0, 5, n)
    ease = generator.beta(8, 1, n)
    both = [generator.binomial(true, ease * share) for share in (1.0, 0.97)]
    counts = [np.stack([right, right + generator.binomial(1, 0.1, n), true], axis=1) for right in both]
    return tuple(map(entity_f1, counts))


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "n"), [(_macro, 300), (_mcc, 300), (_area, 1000), (_entity, 300)])
def test_intervals_of_drops_hold_the_truth_nineteen_times_of_twenty(draw, n):
    generator = np.random.default_rng(1)
    large = [draw(generator, 20_000) for _ in range(60)]
    truth = np.mean([dense.value - small.value for dense, small in large])
    drops = [paired_drop(*draw(generator, n), resamples=300) for _ in range(400)]
    below = np.mean([truth > drop.ci95[1] for drop in drops])
    above = np.mean([truth < drop.ci95[0] for drop in drops])
    assert below + above < 0.08, (below, above)
    assert below + above > 0.01, (below, above)  # nor is it needlessly wide


@pytest.mark.slow
def test_intervals_of_clusters_hold_the_truth():
    generator = np.random.default_rng(2)

    def draw(groups):
        count = generator.integers(1, 15, groups)
        group = np.repeat(np.arange(groups), count)
        truth = generator.integers(0, 2, len(group))
        hard = np.repeat(generator.beta(1, 8, groups), count)
        dense, small = (noisy(generator, truth, 2, hard * more) for more in (1, 1.5))
        return macro_f1(dense, truth), macro_f1(small, truth), group

    large = [draw(20_000) for _ in range(20)]
    truth = np.mean([dense.value - small.value for dense, small, _ in large])
    drops = [paired_drop(*draw(80), resamples=300) for _ in range(400)]
    missed = np.mean([not drop.ci95[0] <= truth <= drop.ci95[1] for drop in drops])
    assert 0.01 < missed < 0.08, missed


@pytest.mark.parametrize(("units", "cost"), [(48, 0.0102), (240, 1 / 49), (240, 0.3)])
def test_one_answer_that_differs_does_not_divide_by_rounding(units, cost):
    """A bootstrap sample without that answer has no spread but what rounding leaves."""
    influence = np.zeros(units)
    influence[0] = cost
    same = Statistic(0.5, np.zeros(units), 0.0)
    low, high = paired_drop(same, Statistic(0.5 + cost, influence, 0.0)).ci95
    assert -1 < low < -cost < high < 1

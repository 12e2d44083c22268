"""Metrics of classifiers by hand and against scipy; which answers that changed are shown."""

import numpy as np
import pytest
from scipy import special, stats

from compress.config.evaluate import Classification
from compress.metrics.classification import (
    SHOWN,
    changed_answers,
    confusions,
    ece,
    judge,
    log_softmax,
    per_class,
    pick,
)
from compress.schema.details import Confusion

CLASSES = ("a", "b", "c")


def random_logits(seed, n=200, scale=2.0):
    return np.random.default_rng(seed).normal(0, scale, (n, 3))


def test_log_softmax_is_scipys():
    values = random_logits(0, scale=300)
    assert np.allclose(log_softmax(values), special.log_softmax(values, axis=1))


def test_metrics_by_hand():
    dense = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]])
    small = np.array([[2.0, 0, 0], [0, 2, 0], [3, 0, 2], [2, 0, 0]])
    labels = np.array([0, 1, 2, 1])
    found = judge(Classification(resamples=100), dense, small, labels, CLASSES)
    assert found.quality["accuracy"].value == 0.5
    assert found.drop_from_dense["accuracy"].value == 0.25
    assert found.fidelity["agreement"].value == 0.75
    picked = -special.log_softmax(small, axis=1)[range(4), labels]
    assert found.quality["nll"].value == pytest.approx(picked.mean())
    before = -special.log_softmax(dense, axis=1)[range(4), labels]
    assert found.drop_from_dense["nll"].value == pytest.approx(picked.mean() - before.mean())
    kl = stats.entropy(special.softmax(dense, axis=1), special.softmax(small, axis=1), axis=1)
    assert found.fidelity["kl"].value == pytest.approx(kl.mean())
    assert found.drop_from_dense["kl"].value == pytest.approx(kl.mean())
    details = found.classification
    assert (details.lost, details.gained) == (1, 0)
    assert details.mcnemar_p == 1.0  # one image against none
    worst = details.per_class[0]
    assert (worst.name, worst.examples, worst.accuracy, worst.drop.value) == ("c", 1, 0.0, 1.0)
    assert details.confusions == (Confusion(label="c", answer="a", dense=0, variant=1),)


def test_a_drop_is_positive_where_the_model_is_worse():
    labels = np.random.default_rng(1).integers(0, 3, 400)
    dense = random_logits(2, 400) + 4 * np.eye(3)[labels]
    small = random_logits(3, 400) + 1 * np.eye(3)[labels]
    found = judge(Classification(resamples=100), dense, small, labels, CLASSES)
    for name, drop in found.drop_from_dense.items():
        assert drop.ci95[0] > 0, name
        assert drop.ci95[0] <= drop.value <= drop.ci95[1], name


def test_a_model_drops_nothing_from_itself():
    labels, dense = np.random.default_rng(1).integers(0, 3, 100), random_logits(0, 100)
    found = judge(Classification(resamples=100), dense, dense, labels, CLASSES)
    assert all(drop.ci95 == (0, 0) and drop.value == 0 for drop in found.drop_from_dense.values())
    assert found.classification.confusions == ()


def test_calibration_error_by_hand():
    """Three answers of confidence 0.9, two of them right, and one of 0.6, which is wrong."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 1])
    assert ece(np.log(probabilities), labels) == pytest.approx((3 * abs(0.9 - 2 / 3) + 0.6) / 4)


def test_confident_and_right_is_calibrated():
    labels = np.arange(30) % 3
    assert ece(log_softmax(100 * np.eye(3)[labels]), labels) == pytest.approx(0)


def test_the_worst_class_comes_first():
    labels = np.array([0, 0, 1, 1, 2, 2])
    dense, small = np.ones(6, bool), np.array([1, 0, 0, 0, 1, 1], bool)
    assert [row.name for row in per_class(dense, small, labels, CLASSES)] == ["b", "a", "c"]


def test_confusions_that_stay_are_not_listed():
    labels, dense = np.array([0, 0, 1, 2]), np.array([1, 1, 1, 2])
    small = np.array([1, 2, 1, 2])
    assert confusions(dense, small, labels, CLASSES) == (
        Confusion(label="a", answer="b", dense=2, variant=1),
        Confusion(label="a", answer="c", dense=0, variant=1),
    )


def test_five_likeliest_where_there_are_many_classes():
    logits = np.tile(np.arange(12.0), (3, 1))
    labels = np.array([11, 7, 6])  # the first, the fifth and the sixth in line
    names = tuple(map(str, range(12)))
    found = judge(Classification(resamples=100), logits, logits, labels, names)
    assert found.quality["top5_accuracy"].value == pytest.approx(2 / 3)


def test_what_went_wrong_comes_first():
    labels = np.array([0, 0, 0, 0, 0])
    dense = np.array([1, 0, 1, 0, 2])  # wrong, right, wrong, right, wrong
    small = np.array([0, 0, 2, 1, 2])  # gained, same, from wrong to wrong, lost, same
    assert pick(dense, small, labels) == [3, 0, 2]


def test_of_many_some_of_every_part_are_picked():
    labels, dense = np.zeros(600, int), np.zeros(600, int)
    small = np.zeros(600, int)
    small[100:] = 1  # the first 100 stay
    rows = pick(dense, small, labels)
    assert len(rows) == len(set(rows)) == SHOWN
    assert min(rows) == 100
    assert max(np.diff(rows)) - min(np.diff(rows)) <= 1


def test_all_that_changed_where_they_are_few():
    random = np.random.default_rng(0)
    labels, dense = random.integers(0, 3, (2, 40))
    small = dense.copy()
    small[::6] = (small[::6] + 1) % 3
    assert sorted(pick(dense, small, labels)) == list(range(0, 40, 6))
    assert pick(dense, dense, labels) == []


def test_names_confidences_and_pictures():
    probabilities = np.array([[0.7, 0.3], [0.2, 0.8]])
    labels, examples = np.array([0, 0]), np.array([40, 90])
    (found,) = changed_answers(
        np.log(probabilities), np.log(probabilities[[1, 1]]), labels, ("cat", "dog"), examples, str
    )
    assert (found.example, found.label, found.dense, found.answer) == (40, "cat", "cat", "dog")
    assert found.dense_confidence == pytest.approx(0.7)
    assert found.confidence == pytest.approx(0.8)
    assert found.png == "0"  # the picture of its row

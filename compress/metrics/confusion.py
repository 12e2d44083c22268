"""What a classifier's answers are worth beyond their accuracy: F1 and Matthews' correlation."""

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError
from compress.metrics.influence import Floats, Statistic

Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]


def macro_f1(answers: Labels, truth: Labels) -> Statistic:
    """Mean over the classes that occur in `truth` [n] of 2 TP / (answered + true).

    It is scikit-learn's f1_score(average="macro", labels=unique(truth)): a class without examples, of which
    nothing is known, has no part in it.
    """
    _check(answers, truth)
    classes = np.unique(truth)
    answered, true, right = (_one_hot(each, classes) for each in (answers, truth, truth))
    right = right & answered
    value, influence = _macro(answered, true, right, right, answered)
    other = _other(truth)
    wrong = _macro(answered, true, right, np.zeros_like(true), _one_hot(other, classes))[1]
    good = _macro(answered, true, right, true, true)[1]
    return Statistic(value, influence, _rms(good - wrong))


def _macro(answered: Flags, true: Flags, right: Flags, hit: Flags, said: Flags) -> tuple[float, Floats]:
    """The mean of F1 over the columns of flags [n, classes], and the influence of each row if it were `hit`
    right and answered `said`."""
    sizes = answered.sum(0) + true.sum(0)
    f1 = 2 * right.sum(0) / np.maximum(sizes, 1)
    rows = (2 * hit - f1 * (said.astype(float) + true)) / np.maximum(sizes, 1)
    return float(f1.mean()), rows.mean(1)


def matthews(answers: Labels, truth: Labels) -> Statistic:
    """Matthews' correlation coefficient, of any number of classes (Gorodkin 2004); 0 where either says one
    class alone."""
    _check(answers, truth)
    value, influence = _matthews(answers, truth, answers)
    good, wrong = _matthews(answers, truth, truth)[1], _matthews(answers, truth, _other(truth))[1]
    return Statistic(value, influence, _rms(good - wrong))


def _matthews(answers: Labels, truth: Labels, said: Labels) -> tuple[float, Floats]:
    """The coefficient, and the influence of each row if it were answered `said`."""
    size = int(max(answers.max(), truth.max(), said.max())) + 1
    p, t = (np.bincount(each, minlength=size).astype(float) for each in (answers, truth))
    n, right = len(truth), float((answers == truth).sum())
    spread = (n**2 - p @ p, n**2 - t @ t)
    if min(spread) == 0:
        return 0.0, np.zeros(n)
    root = (spread[0] * spread[1]) ** 0.5
    value = (right * n - p @ t) / root
    above = (said == truth) * n + right - t[said] - p[truth]
    below = (2 * n - 2 * p[said]) / spread[0] + (2 * n - 2 * t[truth]) / spread[1]
    return float(value), above / root - value / 2 * below


def micro_f1_of_several(answers: Flags, truth: Flags) -> Statistic:
    """2 TP / (answered + true) over all labels of texts that may have several: flags [n, classes]."""
    _check(answers, truth)
    return ratio_f1((answers & truth).sum(1), answers.sum(1), truth.sum(1))


def macro_f1_of_several(answers: Flags, truth: Flags) -> Statistic:
    """The mean of F1 over the labels that any text has: flags [n, classes]."""
    _check(answers, truth)
    having = truth.any(0)
    if not having.any():
        raise DataError("no example has a label", found=f"{len(truth)} examples")
    answered, true = answers[:, having], truth[:, having]
    right = answered & true
    value, influence = _macro(answered, true, right, right, answered)
    steps = 1 / np.maximum(answered.sum(0) + true.sum(0), 1) / true.shape[1]
    return Statistic(value, influence, _rms((true * 2 * steps).sum(1)))


def ratio_f1(right: Labels, answered: Labels, true: Labels) -> Statistic:
    """2 right / (answered + true) of counts [n] by example: of labels, or of entities by sentence.

    0 where there is nothing to find and nothing was found.
    """
    size = float(answered.sum() + true.sum())
    if size == 0:
        return Statistic(0.0, np.zeros(len(right)), 0.0)
    value = 2 * float(right.sum()) / size
    return Statistic(value, (2 * right - value * (answered + true)) / size, 2 / size)


def _one_hot(labels: Labels, classes: Labels) -> Flags:
    return np.asarray(labels[:, None] == classes)


def _other(truth: Labels) -> Labels:
    """Of each example the most frequent class that it is not of."""
    counts = np.bincount(truth, minlength=2)
    first, second = np.argsort(-counts, kind="stable")[:2]
    return np.asarray(np.where(truth == first, second, first))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _check(answers: NDArray[np.generic], truth: NDArray[np.generic]) -> None:
    if answers.shape != truth.shape or not len(truth):
        found = f"{answers.shape} and {truth.shape}"
        raise DataError("answers and truth must be of the same examples", found=found)

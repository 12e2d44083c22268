"""The probability from which on a text counts as of a class: whether it can stay where it was."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.metrics.influence import Floats

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ThresholdStability:
    """Thresholds are those of the highest F1 on select; costs are of F1 on test."""

    dense: float
    small: float
    f1_at_own: float  # of the small model at its own threshold
    f1_at_dense: float  # of the small model at the dense model's

    @property
    def moved(self) -> float:
        return self.small - self.dense

    @property
    def cost(self) -> float:
        """What the small model loses to whoever leaves the threshold where it was."""
        return self.f1_at_own - self.f1_at_dense


def threshold_stability(
    dense: Floats, small: Floats, truth: Flags, small_on_test: Floats, truth_of_test: Flags
) -> ThresholdStability:
    """From probabilities of a class [n]: of both models on select, of the small one on test."""
    own, given = best_threshold(small, truth), best_threshold(dense, truth)
    return ThresholdStability(
        dense=given,
        small=own,
        f1_at_own=f1_at(own, small_on_test, truth_of_test),
        f1_at_dense=f1_at(given, small_on_test, truth_of_test),
    )


def best_threshold(probabilities: Floats, truth: Flags) -> float:
    """The threshold of the highest F1, half-way between the two probabilities that it parts.

    Of equal ones the middle, so that chance in a few examples moves it less; 0.5 where nothing is true.
    """
    if not truth.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    ordered, right = probabilities[order], np.cumsum(truth[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + truth.sum())
    last = np.append(ordered[1:] != ordered[:-1], True)  # a threshold parts no equal probabilities
    f1 = np.where(last, f1, -1.0)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    place = int(best[len(best) // 2])
    below = ordered[place + 1] if place + 1 < len(ordered) else 0.0
    return float((ordered[place] + below) / 2)


def f1_at(threshold: float, probabilities: Floats, truth: Flags) -> float:
    said = probabilities >= threshold
    return float(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))

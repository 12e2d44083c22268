"""Intervals of statistics that are no means: F1, MCC, areas under curves, each by its influence.

The influence of an example is the derivative of the statistic with respect to the example's weight (Hampel
1974); the statistic varies between samples as the sum of the influences of independent units does, whose
interval is that of a mean.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from compress.errors import DataError
from compress.metrics.statistics import LEVEL, mean_interval
from compress.schema.estimates import Estimate, Score

Floats = NDArray[np.float64]
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Statistic:
    """A value and the influence [n] of each example on it.

    `step`: how much it typically moves where one more answer is wrong. A model that answers as another does
    on a sample may not on the next: that one answer is added to what was seen, as Agresti & Min (2005) do
    for paired proportions, without which intervals of rare disagreement collapse.
    """

    value: float
    influence: Floats
    step: float

    def __len__(self) -> int:
        return len(self.influence)


def score(
    statistic: Statistic,
    clusters: ArrayLike | None = None,
    *,
    low: float = 0.0,
    high: float = 1.0,
    resamples: int = 2000,
    seed: int = 0,
) -> Score:
    """The value with its interval, within the statistic's own limits. `clusters` [n]: of each example the
    independent unit that it belongs to. Raises DataError for fewer than 2 units."""
    below, above = _reach(statistic.influence, statistic.step, clusters, resamples, seed)
    ends = (max(low, statistic.value - below), min(high, statistic.value + above))
    return Score(value=statistic.value, ci95=ends, n=len(statistic), higher_is_better=True)


def paired_drop(
    dense: Statistic,
    small: Statistic,
    clusters: ArrayLike | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """How much lower `small` is than `dense` on the same examples. Errors as above, and for other lengths."""
    if len(dense) != len(small):
        raise DataError("both models must answer the same examples", found=f"{len(dense)} and {len(small)}")
    drop = dense.value - small.value
    step = max(dense.step, small.step)
    below, above = _reach(dense.influence - small.influence, step, clusters, resamples, seed)
    return Estimate(value=drop, ci95=(drop - below, drop + above))


def _reach(
    influence: Floats, step: float, clusters: ArrayLike | None, resamples: int, seed: int
) -> tuple[float, float]:
    """How far the interval reaches below and above the value: of Student's interval and the studentised
    bootstrap's the further. In samples of 300 the one missed skewed differences of areas on one side, the
    other those of F1 on both (tests/metrics/test_text_metrics.py)."""
    centred = (influence - influence.mean()) * len(influence)
    low, high = mean_interval(centred, clusters, resamples=resamples, seed=seed).ci95
    student = _student(centred, clusters)
    more = _Z * step
    return float(np.hypot(max(-low, student), more)), float(np.hypot(max(high, student), more))


def _student(centred: Floats, clusters: ArrayLike | None) -> float:
    units = centred
    if clusters is not None:
        _, index = np.unique(np.asarray(clusters), return_inverse=True)
        units = np.bincount(index, centred).astype(np.float64)
    count = len(units)
    error = np.sqrt((units**2).sum() * count / (count - 1)) / len(centred)
    return float(scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)


def mean(values: Floats) -> Statistic:
    """Of scores [n] between 0 and 1."""
    return Statistic(float(values.mean()), (values - values.mean()) / len(values), 1 / len(values))


def mean_of(statistics: list[Statistic]) -> Statistic:
    """The mean of statistics of the same examples."""
    return Statistic(
        float(np.mean([each.value for each in statistics])),
        np.mean([each.influence for each in statistics], axis=0),
        float(np.sqrt(np.mean([each.step**2 for each in statistics]) / len(statistics))),
    )

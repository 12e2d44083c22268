"""Area under the ROC curve, with the influence of each example by its placement."""

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError
from compress.metrics.influence import Floats, Statistic, mean_of


def auc(scores: Floats, positive: NDArray[np.bool_]) -> Statistic:
    """The share of pairs of a positive and a negative whose positive has the higher of `scores` [n], ties
    counted by half.

    Influences are the placements of DeLong, DeLong & Clarke-Pearson (1988), summed over clusters as
    Obuchowski (1997) does. The interval of a difference misses more often than it should where few examples
    are of one class: 9 times of 100 with thirty of them.

    Raises DataError where all examples are of one class.
    """
    good, bad = scores[positive], scores[~positive]
    if not len(good) or not len(bad):
        raise DataError(
            "the area under the curve needs both classes",
            found=f"{len(good)} positive and {len(bad)} negative examples",
        )
    below = _share_below(bad, good)  # of each positive
    above = 1 - _share_below(good, bad)
    value = float(below.mean())
    influence = np.empty(len(scores))
    influence[positive] = (below - value) / len(good)
    influence[~positive] = (above - value) / len(bad)
    return Statistic(value, influence, 0.0)  # scores of two models never all agree


def macro_auc(scores: Floats, labels: NDArray[np.int64]) -> Statistic:
    """The mean over the classes that occur of the area of each against the others, by `scores` [n, classes];
    of two classes that of the second."""
    if scores.shape[1] == 2:
        return auc(scores[:, 1] - scores[:, 0], labels == 1)
    return mean_of([auc(scores[:, k], labels == k) for k in np.unique(labels)])


def _share_below(of: Floats, values: Floats) -> Floats:
    """For each value the share of `of` that is lower, half of those that are equal included."""
    ordered = np.sort(of)
    places = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray(sum(places) / (2 * len(of)))

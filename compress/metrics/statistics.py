"""Intervals and paired differences: what every quality number stands on.

All intervals are 95 % confidence intervals. Their coverage in simulations with known truth, and that of
the methods we did not take, is in experiments/interval_coverage.

Everything is deterministic: the bootstrap draws from a generator seeded by its argument.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import scipy  # its parts load when they are used: scipy.stats takes a second
from numpy.typing import ArrayLike, NDArray

from compress.errors import DataError
from compress.schema.estimates import Estimate, Score

Floats = NDArray[np.float64]
LEVEL = 0.95
_FEW = 4
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


# --- means -----------------------------------------------------------------------------------------------


def mean_interval(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    higher_is_better: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> Score:
    """Mean of `values` [n] with a studentised bootstrap interval (Efron & Tibshirani 1993, section 12.5).

    It misses equally often on both sides where scores are skewed, as those bounded by 1 are; Student's
    interval missed six times as often on one side (experiments/interval_coverage), and the verdict is by one
    end. `clusters` [n] names the independent unit each value belongs to (article, user, document): whole
    clusters are then resampled, and the mean is a ratio of sums.

    Raises DataError for values that are not finite, and for fewer than 2 values or clusters.
    """
    data = finite("values", values)
    value, interval = _studentised(data, clusters, resamples, seed)
    return Score(value=value, ci95=interval, n=len(data), higher_is_better=higher_is_better)


def paired_mean_drop(
    dense: ArrayLike,
    small: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    higher_is_better: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """How much worse the mean of `small` [n] is than that of `dense` [n] on the same examples.

    Positive means worse. Method and errors as in `mean_interval`, on the differences.
    """
    before, after = finite("dense", dense), finite("small", small)
    same_length("small", after, "dense", before)
    difference = before - after if higher_is_better else after - before
    value, interval = _studentised(difference, clusters, resamples, seed)
    return Estimate(value=value, ci95=interval)


def _studentised(
    data: Floats, clusters: ArrayLike | None, resamples: int, seed: int
) -> tuple[float, tuple[float, float]]:
    return _studentised_ratio(*_cluster_sums(data, clusters), resamples, seed)


def _studentised_ratio(
    sums: Floats, sizes: Floats, resamples: int, seed: int
) -> tuple[float, tuple[float, float]]:
    """The ratio of the totals of `sums` and `sizes` [units], each unit being independent of the others.

    Fewer than `_FEW` units have so few different resamples that some have next to no spread to studentise
    with, and ends lie anywhere: they get Student's interval.
    """
    units = len(sums)
    mean = float(sums.sum() / sizes.sum())
    sums = sums - mean * sizes  # about 0, so that the variances below do not cancel
    own_error = float(np.sqrt((sums**2).sum()) / sizes.sum())
    if units < _FEW:
        half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, units - 1)) * own_error * (units / (units - 1)) ** 0.5
        return mean, (mean - half, mean + half)
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    totals = counts @ np.stack([sums, sizes, sums**2, sums * sizes, sizes**2], axis=1)
    total, size, squares, mixed, size_squares = totals.T
    shift = total / size
    error = np.sqrt(np.maximum(squares - 2 * shift * mixed + shift**2 * size_squares, 0.0)) / size
    # A resample of equal units only has no spread to studentise with; rounding leaves about 1e-16 of its
    # square, 1e-8 of it.
    usable = error > 1e-6 * own_error
    if not usable.any():
        return mean, (mean, mean)
    low, high = np.quantile(shift[usable] / error[usable], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return mean, (mean - float(high) * own_error, mean - float(low) * own_error)


def ratio_interval(
    sums: ArrayLike,
    sizes: ArrayLike,
    *,
    n: int,
    higher_is_better: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> Score:
    """Total of `sums` [units] over that of `sizes` [units], e.g. bits per byte of whole documents.

    Interval and errors as in `mean_interval`, with the units as clusters; `n` is what the score tells.
    """
    above, below = finite("sums", sums), finite("sizes", sizes)
    _enough_units(above, below)
    value, interval = _studentised_ratio(above, below, resamples, seed)
    return Score(value=value, ci95=interval, n=n, higher_is_better=higher_is_better)


def paired_ratio_drop(
    dense: tuple[ArrayLike, ArrayLike],
    small: tuple[ArrayLike, ArrayLike],
    *,
    higher_is_better: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """How much worse the ratio of totals of `small` is than that of `dense`, each (sums, sizes) of the same
    units. Positive means worse.

    The sizes may differ a little, as the bytes scored under two tokenizers do: they enter by their totals,
    whose quotient counts as known.
    """
    (before, sizes), (after, others) = ([finite("a ratio", each) for each in pair] for pair in (dense, small))
    for each in (before, after, others):
        _enough_units(each, sizes)
    difference = after * (sizes.sum() / others.sum()) - before
    value, interval = _studentised_ratio(
        -difference if higher_is_better else difference, sizes, resamples, seed
    )
    return Estimate(value=value, ci95=interval)


def _enough_units(sums: Floats, sizes: Floats) -> None:
    same_length("sums", sums, "sizes", sizes)
    if len(sums) < 2 or not (sizes > 0).all():
        raise DataError(
            "an interval needs at least 2 independent units, none of them empty",
            found=f"{len(sums)} units, the smallest {sizes.min() if len(sizes) else 0:g}",
            next="evaluate on more documents",
        )


def quantile_interval(
    values: ArrayLike, quantile: float, clusters: ArrayLike | None = None, *, higher_is_better: bool = True
) -> Score:
    """Quantile (0 to 1) of `values` [n], interval between two order statistics (Woodruff 1952).

    Which two follows from Clopper & Pearson's interval of the share below the quantile; with `clusters`
    [n] from its form for an effective number of examples (Korn & Graubard 1998). Distribution-free and
    a little wide. Raises DataError for values that are not finite, and for fewer than 2 clusters.
    """
    data = finite("values", values)
    value = float(np.quantile(data, quantile))
    n = _effective((data <= value).astype(np.float64), clusters)
    hits = quantile * n
    low = scipy.stats.beta.ppf((1 - LEVEL) / 2, hits, n - hits + 1) if hits > 0 else 0.0
    high = scipy.stats.beta.ppf((1 + LEVEL) / 2, hits + 1, n - hits) if hits < n else 1.0
    ends = (float(np.quantile(data, low, method="lower")), float(np.quantile(data, high, method="higher")))
    return Score(value=value, ci95=ends, n=len(data), higher_is_better=higher_is_better)


def _effective(data: Floats, clusters: ArrayLike | None) -> float:
    """How many independent values would tell the mean of `data` [n] as well; n without `clusters` [n].

    Few clusters count for less, as Student's t does (Korn & Graubard 1998). Of values that are all the same,
    of which none says how alike a cluster is, each cluster counts once.
    """
    n = float(len(data))
    if clusters is None:
        return n
    sums, sizes = _cluster_sums(data, clusters)
    variance, units = ((sums - data.mean() * sizes) ** 2).sum() / n**2, len(sums)
    if variance <= 0:
        return float(units)
    few = scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1) / scipy.stats.t.ppf((1 + LEVEL) / 2, units - 1)
    return float(min(n, data.var() / variance * float(few) ** 2))


def _cluster_sums(data: Floats, clusters: ArrayLike | None) -> tuple[Floats, Floats]:
    """Sum and number of the values of each independent unit; without clusters each value is one."""
    if clusters is None:
        sums, sizes = data, np.ones_like(data)
    else:
        labels = np.asarray(clusters)
        same_length("clusters", labels, "values", data)
        _, index = np.unique(labels, return_inverse=True)
        sums = np.asarray(np.bincount(index, data), dtype=np.float64)
        sizes = np.bincount(index).astype(np.float64)
    if len(sums) < 2:
        raise DataError(
            "an interval needs at least 2 independent values",
            found=len(sums),
            next="evaluate on more examples, or on more clusters",
        )
    return sums, sizes


# --- proportions -----------------------------------------------------------------------------------------


def accuracy(correct: ArrayLike, clusters: ArrayLike | None = None) -> Score:
    """Share of `correct` [n, bool] with the score interval (Wilson 1927).

    With `clusters` [n], as in `mean_interval`, for an effective number of examples (Rao & Scott 1992).
    Raises DataError for no examples, and for fewer than 2 clusters.
    """
    right = np.asarray(correct, dtype=bool)
    if right.size == 0:
        raise DataError("an accuracy needs at least 1 example", found=0)
    share, n = float(right.mean()), _effective(right.astype(np.float64), clusters)
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    ends = (max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))
    return Score(value=share, ci95=(float(ends[0]), float(ends[1])), n=right.size, higher_is_better=True)


def paired_accuracy_drop(dense: ArrayLike, small: ArrayLike, clusters: ArrayLike | None = None) -> Estimate:
    """Accuracy of `dense` [n, bool: correct] minus that of `small` [n] on the same examples, with the
    score interval for paired proportions (Tango 1998), which holds when the models rarely or never
    disagree, where the Wald interval collapses. `clusters` and errors as in `accuracy`, and DataError for
    other lengths."""
    lost, gained, n = map(float, _discordant(dense, small))
    difference = np.asarray(dense, dtype=np.float64) - np.asarray(small, dtype=np.float64)
    value, independent = (lost - gained) / n, _effective(difference, clusters) / n
    lost, gained, n = lost * independent, gained * independent, n * independent

    def score(drop: float) -> float:
        linear = (2 * n - lost + gained) * drop - lost - gained
        constant = -gained * drop * (1 - drop)
        share = (np.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
        variance = n * (2 * share + drop * (1 - drop))
        return float((lost - gained - n * drop) / np.sqrt(max(variance, 1e-300)))

    edge = 1 - 1e-12
    low = -1.0 if value <= -1 else scipy.optimize.brentq(lambda d: score(d) - _Z, -edge, value)
    high = 1.0 if value >= 1 else scipy.optimize.brentq(lambda d: score(d) + _Z, value, edge)
    return Estimate(value=value, ci95=(float(low), float(high)))


def mcnemar(dense: ArrayLike, small: ArrayLike) -> float:
    """Two-sided p-value of McNemar's exact test that both models [n, bool: correct] are equally accurate."""
    lost, gained, _ = _discordant(dense, small)
    return float(scipy.stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def _discordant(dense: ArrayLike, small: ArrayLike) -> tuple[int, int, int]:
    before, after = np.asarray(dense, dtype=bool), np.asarray(small, dtype=bool)
    same_length("small", after, "dense", before)
    if before.size == 0:
        raise DataError("an accuracy needs at least 1 example", found=0)
    return int((before & ~after).sum()), int((after & ~before).sum()), before.size


# --- decisions -------------------------------------------------------------------------------------------


def noninferiority_p(drop: Estimate, margin: float) -> float:
    """One-sided p-value of the hypothesis that the drop is `margin` (same unit) or more.

    From the interval, whose upper half is read as a normal's (Altman & Bland 2011, BMJ 343:d2304): below
    0.025 exactly where the interval ends below the margin; a small one may be a little too small where few
    examples gave the interval.
    """
    half = drop.ci95[1] - drop.value
    if half == 0:
        return float(drop.value >= margin)
    p = NormalDist().cdf(-_Z * (margin - drop.value) / half)
    return p if np.isfinite(p) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing all of them at once (Holm 1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


# --- samples ---------------------------------------------------------------------------------------------


def spread(total: int, count: int | None) -> NDArray[np.int64]:
    """`count` of `total` rows, or all, evenly spread: a file may be sorted by kind of word or by class."""
    count = total if count is None else min(count, total)
    return np.arange(count) * total // max(1, count)


# --- checks ----------------------------------------------------------------------------------------------


def finite(name: str, values: ArrayLike) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise DataError(f"{name} must be a list of numbers", found=f"shape {data.shape}")
    bad = int((~np.isfinite(data)).sum())
    if bad:
        raise DataError(
            f"{name} must be finite",
            found=f"{bad} of {data.size} are not",
            next="look at the model's outputs for these examples",
        )
    return data


def same_length(name: str, values: NDArray[Any], other: str, others: NDArray[Any]) -> None:
    if values.shape != others.shape:
        raise DataError(
            f"{name} and {other} must be of the same examples",
            found=f"{values.shape} and {others.shape}",
        )

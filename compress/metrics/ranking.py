"""How well scores rank the candidates of a query. Of candidates with equal scores every order counts alike:
a model whose scores have collapsed to one number is no better than chance, whatever order it was given."""

from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.errors import DataError

Floats = NDArray[np.float64]


def ndcg(scores: ArrayLike, gains: ArrayLike, k: int = 10) -> float:
    """Discounted cumulated gain of the first `k` over the highest possible (Järvelin & Kekäläinen 2002).

    Gains count as they are, divided by log2 of 1 + rank, as in trec_eval and scikit-learn; ties are averaged
    (McSherry & Najork 2008). Raises DataError for a query that nothing answers.
    """
    ranked = _Ranked(scores, gains)
    discounts = np.where(np.arange(len(ranked.gains)) < k, 1 / np.log2(np.arange(len(ranked.gains)) + 2), 0)
    best = np.sort(ranked.gains)[::-1] @ discounts
    return float(ranked.averaged(discounts) @ ranked.gains / best)


def reciprocal_rank(scores: ArrayLike, gains: ArrayLike, k: int = 10) -> float:
    """1 / rank of the first candidate that answers, 0 where it is not among the first `k`."""
    ranked = _Ranked(scores, gains)
    good = ranked.gains > 0
    start = int(ranked.starts[good.argmax()])
    size = int((ranked.starts == start).sum())
    hits = int(good[start : start + size].sum())
    chance = [comb(size - 1 - j, hits - 1) / comb(size, hits) for j in range(size - hits + 1)]
    return sum(p / (start + j + 1) for j, p in enumerate(chance) if start + j < k)


def recall(scores: ArrayLike, gains: ArrayLike, k: int = 10) -> float:
    """The share of the candidates that answer which is among the first `k`."""
    ranked = _Ranked(scores, gains)
    first = (np.arange(len(ranked.gains)) < k).astype(np.float64)
    good = ranked.gains > 0
    return float(ranked.averaged(first)[good].sum() / good.sum())


class _Ranked:
    """Gains in the order of falling scores, and of each place where its block of equal scores starts."""

    def __init__(self, scores: ArrayLike, gains: ArrayLike) -> None:
        values, gained = np.asarray(scores, np.float64), np.asarray(gains, np.float64)
        if values.shape != gained.shape or values.ndim != 1 or not (gained > 0).any():
            raise DataError(
                "a query needs scores and gains of the same candidates, one of which answers it",
                found=f"{values.shape} scores, {gained.shape} gains, {int((gained > 0).sum())} above 0",
            )
        if not np.isfinite(values).all():
            raise DataError(
                "scores of candidates must be finite", found=f"{int((~np.isfinite(values)).sum())} are not"
            )
        order = np.argsort(-values, kind="stable")
        self.gains: Floats = gained[order]
        ordered = values[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=np.inf) != 0)
        self._sizes = np.diff(begins, append=len(ordered))
        self._begins = begins
        self.starts = np.repeat(begins, self._sizes)

    def averaged(self, weights: Floats) -> Floats:
        """The mean of the weights of each block, for each of its places."""
        return np.repeat(np.add.reduceat(weights, self._begins) / self._sizes, self._sizes)

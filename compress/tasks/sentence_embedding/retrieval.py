"""How well embeddings find the passages that answer queries, among all passages of a split."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import scipy
from numpy.typing import NDArray

from compress.config.evaluate import retrieval_metrics
from compress.data.retrieval import RetrievalSet
from compress.metrics import ranking
from compress.metrics.statistics import mean_interval, paired_mean_drop, spread
from compress.schema.estimates import Estimate, Score

Floats = NDArray[np.float64]
_BLOCK = 512  # queries compared with all passages at a time
_OF_QUERY: dict[str, Callable[[Floats, Floats], float]] = dict(
    zip(retrieval_metrics(), (ranking.ndcg, ranking.reciprocal_rank, ranking.recall), strict=True)
)


def few(asked: RetrievalSet, count: int | None) -> RetrievalSet:
    """At most so many queries, and the passages that answer them alone."""
    rows = spread(len(asked.queries), count)
    used, answers = np.unique([asked.answers[row] for row in rows], return_inverse=True)
    return replace(
        asked,
        queries=tuple(asked.queries[row] for row in rows),
        answers=tuple(answers.tolist()),
        passages=tuple(asked.passages[place] for place in used),
        documents=tuple(asked.documents[row] for row in rows),
    )


def by_query(queries: Floats, passages: Floats, answers: Sequence[int], similarity: str) -> dict[str, Floats]:
    """Metric -> its value [queries], of embeddings [queries, hidden] and [passages, hidden]; `answers`: of
    each query the place of the passage that answers it."""
    found: dict[str, list[float]] = {name: [] for name in _OF_QUERY}
    gains = np.zeros(len(passages))
    for start in range(0, len(queries), _BLOCK):
        block = _similar(queries[start : start + _BLOCK], passages, similarity)
        for scores, answer in zip(block, answers[start : start + _BLOCK], strict=True):
            gains[answer] = 1
            for name, value in _OF_QUERY.items():
                found[name].append(value(scores, gains))
            gains[answer] = 0
    return {name: np.array(values) for name, values in found.items()}


def _similar(queries: Floats, passages: Floats, similarity: str) -> Floats:
    """[queries, passages]: the higher, the more alike."""
    if similarity == "euclidean":
        return np.asarray(-scipy.spatial.distance.cdist(queries, passages, "euclidean"))
    if similarity == "manhattan":
        return np.asarray(-scipy.spatial.distance.cdist(queries, passages, "cityblock"))
    if similarity == "cosine":
        queries, passages = (
            each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, passages)
        )
    return np.asarray(queries @ passages.T)


def judge(
    dense: dict[str, Floats], small: dict[str, Floats], documents: Sequence[int], resamples: int, seed: int
) -> tuple[dict[str, Score], dict[str, Estimate]]:
    """Quality and drops of what `by_query` found; queries of one document depend on each other."""
    quality = {
        name: mean_interval(each, documents, resamples=resamples, seed=seed) for name, each in small.items()
    }
    drops = {
        name: paired_mean_drop(dense[name], each, documents, resamples=resamples, seed=seed)
        for name, each in small.items()
    }
    return quality, drops

"""Passages ranked for queries by the words that they share: BM25 (Robertson & Zaragoza 2009)."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

_K1, _B = 1.2, 0.75  # as Lucene
_ROWS = 512  # queries scored at a time


def best_passages(queries: Sequence[str], passages: Sequence[str], count: int) -> NDArray[np.int64]:
    """[queries, count]: numbers of the passages of highest score for each query, the best first.

    Scores are those of Lucene: idf log(1 + (N - n + 1/2) / (n + 1/2)), each word of a query as often as it
    has it. Of equal scores the passage that comes first wins.
    """
    words = {word: i for i, word in enumerate(sorted({w for text in passages for w in _words(text)}))}
    counts = _counts(passages, words)
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    having = np.bincount(counts.indices, minlength=len(words))
    idf = np.log1p((len(passages) - having + 0.5) / (having + 0.5))
    rows = np.repeat(np.arange(len(passages)), np.diff(counts.indptr))
    norm = _K1 * (1 - _B + _B * lengths / max(lengths.mean(), 1e-9))
    counts.data = idf[counts.indices] * counts.data * (_K1 + 1) / (counts.data + norm[rows])
    asked, index = _counts(queries, words), counts.T.tocsr()
    count = min(count, len(passages))
    best = np.empty((len(queries), count), np.int64)
    for start in range(0, len(queries), _ROWS):
        scores = (asked[start : start + _ROWS] @ index).toarray()
        best[start : start + _ROWS] = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return best


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _counts(texts: Sequence[str], words: dict[str, int]) -> "scipy.sparse.csr_array":
    """[texts, words]: how often each has each known word."""
    data, columns, ends = [], [], [0]
    for text in texts:
        found = Counter(words[word] for word in _words(text) if word in words)
        columns += sorted(found)
        data += [float(found[column]) for column in sorted(found)]
        ends.append(len(columns))
    shape = (len(texts), len(words))
    arrays = (np.array(data, np.float64), np.array(columns, np.int64), np.array(ends, np.int64))
    return scipy.sparse.csr_array(arrays, shape=shape)

"""Texts of one split that nearly repeat a text of another, found exactly and fast.

Two texts resemble one another as much as their sets of shingles overlap (Broder 1997). Of a text that is
to share the part LIMIT of the union with another, any few of its shingles must hold one that is shared;
looking up the rarest alone leaves hardly any pair to compare (prefix filter: Chaudhuri, Ganti & Kaushik
2006).
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import scipy
from numpy.typing import NDArray

from compress.data.text import split_sentences
from compress.schema.report import NearDuplicates

SHINGLE = 5  # characters, so that languages without spaces count too
LIMIT = 0.8  # Jaccard similarity from which on a text is a near-duplicate
MIN_CHARACTERS = 20  # "He said." and "She said." are no copies of each other
_CHARACTERS = 4_000_000  # whose shingles are in memory at a time
_CODE = np.uint64(40)  # bits of a shingle's hash; the others number its text


def near_duplicates(
    tested: Mapping[str, Sequence[Sequence[str]]], seen: Mapping[str, Sequence[str]]
) -> dict[str, NearDuplicates]:
    """How many examples of each tested set nearly repeat a sentence of the texts `seen`.

    An example is one text or several, a text seen one sentence or a passage of several: sentences are
    compared. `seen` is by name of the split.
    """
    sources = [
        (name, part) for name, texts in seen.items() for text in texts for part in split_sentences(text)
    ]
    texts = {text for examples in tested.values() for each in examples for text in each}
    sentences = {text: split_sentences(text) for text in texts}
    unique = sorted({part for parts in sentences.values() for part in parts})
    best = dict(zip(unique, nearest(unique, [part for _, part in sources]), strict=True))
    found = {}
    for name, examples in tested.items():
        nearly = [
            max((*best[part], part) for text in each for part in sentences[text])
            for each in examples
            if any(best[part][0] for text in each for part in sentences[text])
        ]
        similarity, other, text = max(nearly, default=(0.0, -1, ""))
        split, copy = sources[other] if nearly else ("", "")
        found[name] = NearDuplicates(
            examples=len(nearly),
            share=len(nearly) / len(examples),
            limit=LIMIT,
            similarity=similarity,
            text=_short(text),
            other=_short(copy),
            other_split=split,
        )
    return found


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."


def nearest(texts: Sequence[str], others: Sequence[str]) -> list[tuple[float, int]]:
    """For each text the highest Jaccard similarity with any of `others`, and which one it is with.

    (0.0, -1) where none reaches LIMIT, or the text is shorter than MIN_CHARACTERS. Case, punctuation and
    white space do not count.
    """
    found = [(0.0, -1)] * len(texts)
    for i in _blocks(texts):
        for j in _blocks(others):
            here = _nearest(texts[i], others[j])
            near = ((score, at + j.start if at >= 0 else at) for score, at in here)
            found[i] = map(max, found[i], near)
    return found


def _blocks(texts: Sequence[str]) -> list[slice]:
    ends = np.cumsum([len(text) for text in texts])
    which = np.flatnonzero(np.diff(ends // _CHARACTERS, prepend=0, append=-1))
    edges = sorted({0, *which.tolist(), len(texts)})
    return [slice(start, end) for start, end in pairwise(edges)]


def _nearest(texts: Sequence[str], others: Sequence[str]) -> list[tuple[float, int]]:
    rows, codes = _shingles(texts)
    other_rows, other_codes = _shingles(others)
    found = [(0.0, -1)] * len(texts)
    if not len(codes) or not len(other_codes):
        return found
    sizes = np.bincount(rows, minlength=len(texts))
    other_sizes = np.bincount(other_rows, minlength=len(others))
    known, columns = np.unique(codes, return_inverse=True)
    place = np.minimum(np.searchsorted(known, other_codes), len(known) - 1)
    hit = known[place] == other_codes
    ours = _matrix(rows, columns, (len(texts), len(known)))
    theirs = _matrix(other_rows[hit], place[hit], (len(others), len(known)))

    rarity = np.bincount(place[hit], minlength=len(known))[columns]
    order = np.lexsort((rarity, rows))
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rare = order[rank < (sizes - np.ceil(LIMIT * sizes - 1e-9) + 1)[rows]]
    candidates = (_matrix(rows[rare], columns[rare], ours.shape) @ theirs.T).tocoo()

    left, right = candidates.row, candidates.col
    shared = np.asarray(ours[left].multiply(theirs[right]).sum(axis=1)).ravel()
    similarity = shared / (sizes[left] + other_sizes[right] - shared)
    for i in np.argsort(similarity, kind="stable"):  # so that the highest is written last
        if similarity[i] >= LIMIT:
            found[left[i]] = (float(similarity[i]), int(right[i]))
    return found


def _matrix(
    rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> "scipy.sparse.csr_array":
    return scipy.sparse.csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Number of the text and hash, for each distinct shingle of each text, by text."""
    normal = [" ".join(re.findall(r"\w+", text.lower())) for text in texts]
    kept = [text if len(text) >= MIN_CHARACTERS else "" for text in normal]
    joined = "".join(text + "\0" * (SHINGLE - 1) for text in kept) + "\0" * SHINGLE
    letters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in kept], np.int64)
    owners = np.repeat(np.arange(len(texts)), lengths)
    starts = np.arange(len(owners)) + owners * (SHINGLE - 1)
    factors = np.random.default_rng(0).integers(2**63, size=SHINGLE, dtype=np.uint64) | np.uint64(1)
    code = np.zeros(len(starts), np.uint64)
    for k, factor in enumerate(factors):  # multilinear hashing, modulo 2^64; the high bits are the good ones
        code += letters[starts + k] * factor
    keys = np.sort(owners.astype(np.uint64) << _CODE | code >> np.uint64(64) - _CODE)
    keys = keys[np.diff(keys, prepend=~keys[:1]) != 0]  # np.unique hashes them, eight times as slowly
    return (keys >> _CODE).astype(np.int64), keys & (np.uint64(1) << _CODE) - np.uint64(1)

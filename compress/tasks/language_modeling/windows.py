"""Documents in a row, cut to windows of tokens: which tokens a language model reads and which are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.models.tokenizer import Tokenizer

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """Documents in a row, as one tokenizer reads them; three arrays [tokens]."""

    ids: Ints
    ends: Ints  # bytes of the row up to the end of each token
    documents: Ints  # which text each token is of

    @property
    def bytes(self) -> Ints:
        """Of each token; one that is a part of a character only may have none, the first part has all."""
        return np.diff(self.ends, prepend=0)


@dataclass(frozen=True)
class Window:
    """Tokens [start, stop) of a row, of which those from `scored` on are scored."""

    start: int
    stop: int
    scored: int


def read_row(tokenizer: Tokenizer, texts: Sequence[str]) -> Row:
    """The texts one after another, each ended by a line feed; no marks of a beginning or an end."""
    ids: list[int] = []
    ends: list[Ints] = []
    documents: list[int] = []
    total = 0
    for number, text in enumerate(texts):
        text += "\n"
        of_text, letters = tokenizer.with_ends(text)
        ids += of_text
        documents += [number] * len(of_text)
        sizes = np.cumsum([0, *(len(letter.encode("utf-8", "surrogatepass")) for letter in text)])
        found = sizes[letters]
        found[-1:] = sizes[-1]  # of a line feed that the tokenizer leaves out
        ends.append(total + np.maximum.accumulate(found))
        total += int(sizes[-1])
    return Row(np.array(ids, np.int64), np.concatenate(ends).astype(np.int64), np.array(documents, np.int64))


def cut(tokens: int, context: int, stride: int) -> list[Window]:
    """Windows of at most `context` tokens, `stride` apart, as perplexity is usually measured.

    A token is scored in the first window that has it, unless it is the first one there: nothing precedes it.
    """
    windows: list[Window] = []
    done = 0
    for start in range(0, tokens, stride):
        stop = min(start + context, tokens)
        if max(done, start + 1) < stop:
            windows.append(Window(start, stop, max(done, start + 1)))
        done = stop
        if stop == tokens:
            break
    return windows


def same_text(windows: Sequence[Window], row: Row, other: Row, longest: int) -> list[Window]:
    """The windows of `other`, a row of the same texts by another tokenizer, that hold the text of `windows`
    of `row`; of one longer than `longest` tokens the last ones."""
    starts = np.concatenate([[0], other.ends[:-1]])
    edges = np.concatenate([[0], row.ends])
    found = []
    for window in windows:
        wanted = edges[[window.start, window.stop, window.scored]]
        start, stop, scored = (int(place) for place in np.searchsorted(starts, wanted))
        start = max(start, stop - longest)
        found.append(Window(start, stop, min(max(scored, start + 1), stop)))
    return found


def common_places(row: Row, window: Window, other: Row, others: Window) -> tuple[Ints, Ints]:
    """Scored tokens of a window, and of another tokenizer's window of the same text, that begin at the same
    place of the text: two lists of equal length, counted from the beginning of the windows."""
    before, after = (
        each.ends[span.scored - 1 : span.stop - 1] for each, span in ((row, window), (other, others))
    )
    _, left, right = np.intersect1d(before, after, return_indices=True)
    return left + window.scored - window.start, right + others.scored - others.start

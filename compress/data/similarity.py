"""Readers of human judgements of similarity: a square matrix beside its texts, or a table of pairs."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.data.text import read_text
from compress.errors import DataError

# texts, indices of the two texts of each pair [n, 2], human score of each pair [n]
Judgements = tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.float64]]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Of a score: what stands for a number, or for one that is missing, is no title of a column.
_LIKE_A_NUMBER = re.compile(r"[+-]?[.,]?\d|([+-]?(nan|inf|infinity)|na|n/a|none|null|[-?.]+)$", re.IGNORECASE)


def read_matrix(matrix: Path, texts: Path, encoding: str = "utf-8") -> Judgements:
    """Every pair i < j of the texts (one a line), scored by the matrix of the same order.

    The lower triangle is either empty (zeros, as in Lee 2005) or equal to the upper one. Raises DataError.
    """
    lines = [" ".join(line.split()) for line in read_text(texts, encoding).split("\n")]
    names = tuple(line for line in lines if line)
    rows = [
        (number, [_number(cell, matrix, number) for cell in line.split()])
        for number, line in enumerate(read_text(matrix, encoding).split("\n"), 1)
        if line.strip() and not line.startswith("#")
    ]
    for number, row in rows:
        if len(row) != len(rows):
            raise DataError(
                f"{matrix.name}, line {number}: the matrix is not square",
                found=f"{len(row)} numbers",
                allowed=f"{len(rows)}, one for each of its rows",
            )
    if len(rows) != len(names) or len(rows) < 2:
        raise DataError(
            f"{matrix.name} does not fit {texts.name}",
            found=f"{len(rows)} rows for {len(names)} texts",
            allowed="a row for each text, at least two",
        )
    values = np.array([row for _, row in rows])
    upper = np.triu_indices(len(names), k=1)
    lower = values.T[upper]
    if lower.any() and not np.allclose(lower, values[upper]):
        worst = int(np.argmax(np.abs(lower - values[upper])))
        i, j = (int(index[worst]) for index in upper)
        raise DataError(
            f"{matrix.name}, line {rows[j][0]}: the matrix is not symmetric",
            found=f"{values[i, j]} and {values[j, i]} for the texts {i + 1} and {j + 1}",
            allowed="equal values, or zeros below the diagonal",
        )
    return names, np.stack(upper, axis=1).astype(np.int64), values[upper]


def read_table(path: Path, encoding: str = "utf-8") -> Judgements:
    """Lines of text, text and score with tabs between. Skipped are lines that begin with # before all others,
    unless they are pairs, and then a header, whose third word is like no number."""
    rows: list[tuple[str, str, float]] = []
    header_allowed = True
    for number, line in enumerate(read_text(path, encoding).split("\n"), 1):
        cells = [" ".join(cell.split()) for cell in line.split("\t")]
        of_words = len(cells) != 3 or not _LIKE_A_NUMBER.match(cells[2])
        if not line.strip() or (not rows and line.startswith("#") and of_words):
            continue
        if len(cells) != 3 or not all(cells):
            raise DataError(
                f"{path.name}, line {number}: not a pair",
                found=line[:80],
                allowed="text, text and score with tabs between",
            )
        header, header_allowed = header_allowed and of_words, False
        if not header:
            rows.append((cells[0], cells[1], _number(cells[2], path, number)))
    if not rows:
        raise DataError(f"{path.name} holds no pairs", allowed="text, text and score with tabs between")
    return _indexed(rows)


def _indexed(rows: Sequence[tuple[str, str, float]]) -> Judgements:
    index: dict[str, int] = {}
    pairs = [[index.setdefault(text, len(index)) for text in row[:2]] for row in rows]
    return tuple(index), np.array(pairs, np.int64), np.array([row[2] for row in rows], np.float64)


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell)) and math.isfinite(float(cell))


def _number(cell: str, path: Path, line: int) -> float:
    if not _is_number(cell):
        raise DataError(f"{path.name}, line {line}: not a number", found=cell, allowed="a finite number")
    return float(cell)

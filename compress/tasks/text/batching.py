"""Which texts are read in one batch."""

import random
from collections.abc import Sequence

from compress.metrics.statistics import spread
from compress.models.tokenizer import Tokens


def bucketed(rows: Sequence[Tokens], batch_tokens: int, seed: int) -> list[list[int]]:
    """One epoch: batches of similar length with at most `batch_tokens` padded tokens, shuffled.

    The pairs of one query stay together; what is longer than that makes a batch of its own.
    """
    rng = random.Random(seed)
    order = sorted(together(rows), key=lambda group: _longest(rows, group) + rng.random() * 2)
    batches: list[list[int]] = []
    longest = 0
    for group in order:
        longest = max(longest, _longest(rows, group))
        if not batches or (len(batches[-1]) + len(group)) * longest > batch_tokens:
            batches.append([])
            longest = _longest(rows, group)
        batches[-1] += group
    rng.shuffle(batches)
    return batches


def in_batches(rows: Sequence[Tokens], size: int) -> list[list[Tokens]]:
    """All, from the shortest to the longest, `size` to a batch, or fewer or more where queries stay whole."""
    batches: list[list[Tokens]] = []
    for group in sorted(together(rows), key=lambda group: _longest(rows, group)):
        if not batches or len(batches[-1]) + len(group) > size:
            batches.append([])
        batches[-1] += [rows[row] for row in group]
    return batches


def together(rows: Sequence[Tokens]) -> list[list[int]]:
    """The pairs of each query, which follow one another; every other text alone."""
    groups: list[list[int]] = []
    before = None
    for number, row in enumerate(rows):
        if row.query is None or row.query != before:
            groups.append([])
        groups[-1].append(number)
        before = row.query
    return groups


def spread_queries(rows: Sequence[Tokens], count: int) -> list[Tokens]:
    """About `count` of the rows, or all, evenly spread, the pairs of each query whole."""
    groups = together(rows)
    kept = spread(len(groups), max(1, count * len(groups) // max(1, len(rows))))
    return [rows[row] for group in kept for row in groups[group]]


def _longest(rows: Sequence[Tokens], group: Sequence[int]) -> int:
    return max(len(rows[row]) for row in group)

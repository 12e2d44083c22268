"""Batches hold every text once, queries whole, and pad little."""

import random

from hypothesis import given
from hypothesis import strategies as st

from compress.models.tokenizer import Tokens
from compress.tasks.text.batching import bucketed, in_batches, spread_queries, together

# of each query how long its pairs are; those of no query stand alone
GROUPS = st.lists(
    st.tuples(st.booleans(), st.lists(st.integers(1, 128), min_size=1, max_size=5)), min_size=1, max_size=80
)


def rows_of(groups):
    return [
        Tokens([number] * length, [], query=number if of_query else None)
        for number, (of_query, lengths) in enumerate(groups)
        for length in lengths
    ]


def wholes(groups):
    """The same as lists of rows that must stay together."""
    found, start = [], 0
    for of_query, lengths in groups:
        rows = list(range(start, start + len(lengths)))
        found += [rows] if of_query else [[row] for row in rows]
        start += len(lengths)
    return found


@given(groups=GROUPS, bound=st.integers(1, 2000), seed=st.integers(0, 9))
def test_buckets_hold_every_text_once_within_the_bound(groups, bound, seed):
    rows, expected = rows_of(groups), wholes(groups)
    assert together(rows) == expected
    batches = bucketed(rows, bound, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        inside = [group for group in expected if set(group) & set(batch)]
        assert sorted(row for group in inside for row in group) == sorted(batch)
        assert len(batch) * max(len(rows[row]) for row in batch) <= bound or len(inside) == 1
    assert batches == bucketed(rows, bound, seed)


@given(groups=GROUPS, size=st.integers(1, 20))
def test_batches_in_order_hold_queries_whole(groups, size):
    rows = rows_of(groups)
    batches = in_batches(rows, size)
    assert sorted(map(id, (row for batch in batches for row in batch))) == sorted(map(id, rows))
    queries = [{row.query for row in batch} - {None} for batch in batches]
    assert sum(map(len, queries)) == len({row.query for row in rows} - {None})
    for batch in batches:
        assert len(batch) <= size or len({row.query for row in batch}) == 1
    longest = [max(map(len, batch)) for batch in batches]
    assert longest == sorted(longest)


@given(groups=GROUPS, count=st.integers(1, 60))
def test_few_rows_are_of_whole_queries(groups, count):
    rows = rows_of(groups)
    places = {id(row): number for number, row in enumerate(rows)}
    kept = [places[id(row)] for row in spread_queries(rows, count)]
    assert kept == sorted(kept)
    inside = [group for group in wholes(groups) if set(group) & set(kept)]
    assert sorted(row for group in inside for row in group) == sorted(kept)
    assert len(inside) == min(len(wholes(groups)), max(1, count * len(wholes(groups)) // len(rows)))


def test_buckets_of_two_seeds_differ_and_pad_little():
    rng = random.Random(0)
    lengths = [rng.randint(5, 128) for _ in range(1000)]
    rows = [Tokens([0] * length, []) for length in lengths]
    first, second = bucketed(rows, 4096, 1), bucketed(rows, 4096, 2)
    assert first != second
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))  # not only their order
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in first)
    assert padded < 1.1 * sum(lengths)
    assert len(first) < 1.3 * sum(lengths) / 4096

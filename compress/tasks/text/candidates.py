"""Fewer passages of a query, of rerankers, than those that it is judged by."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, cast

from compress.data.record import Record

Example = TypeVar("Example", bound=str | Record)


def fewer_candidates(examples: Sequence[Example], count: int) -> list[Example]:
    """Of every query the passages that answer it, and others up to `count`, drawn by the query's place.

    What has no passages stays as it is.
    """
    return [
        cast(Example, _fewer(each, count, random.Random(place))) if isinstance(each, Record) else each
        for place, each in enumerate(examples)
    ]


def _fewer(example: Record, count: int, rng: random.Random) -> Record:
    if len(example.candidates) <= count:
        return example
    good = [k for k, gain in enumerate(example.relevance) if gain > 0]
    bad = [k for k in range(len(example.candidates)) if k not in good]
    kept = sorted([*good, *rng.sample(bad, min(len(bad), max(0, count - len(good))))])
    return replace(
        example,
        candidates=tuple(example.candidates[k] for k in kept),
        relevance=tuple(example.relevance[k] for k in kept),
    )

"""An artifact's measured numbers against limits: the worse end of each interval decides."""

import json
from math import nan
from typing import Any

import pytest
from pydantic import TypeAdapter

from compress.judge.limits import Limits, holds


def headline(drop=(-0.01, -0.02, 0.004), dense=0.5, **speedup):
    value, *ci95 = drop
    of_workload = {name: {"value": 3.0, "ci95": ends} for name, ends in speedup.items()}
    found = {
        "metric": "f1",
        "dense": dense,
        "drop": {"value": value, "ci95": ci95},
        "speedup": of_workload,
        "not_timed": "",
    }
    return {"size_bytes": 2_000_000, "measured": found}


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        ({"max_mb": 2}, [True]),
        ({"max_mb": 1.99}, [False]),
        ({"max_drop": 0.008}, [True]),  # 0.004 of 0.5
        ({"max_drop": 0.0079}, [False]),
        ({"min_speedup": 2}, [True, False]),
        ({"max_mb": 3, "max_drop": 0.1, "min_speedup": 1.5}, [True, True, True, True]),
    ],
)
def test_the_worse_end_decides(limits, passed):
    given = headline(one=[2.0, 4.0], two=[1.5, 5.0])
    assert [each.passed for each in holds(given, Limits(**limits))] == passed


def test_what_is_not_known_holds_nothing():
    limits = Limits(max_drop=0.5, min_speedup=0.1)
    assert [each.passed for each in holds(headline(drop=(nan, nan, nan)), limits)] == [False, False]
    given = headline()
    given["measured"] |= {"drop": None, "not_timed": "too large"}
    assert [(each.passed, each.told) for each in holds(given, limits)] == [
        (False, "not known"),
        (False, "too large"),
    ]


@pytest.mark.parametrize("dense", [0.0, -0.0])
def test_nothing_is_a_share_of_nothing(dense):
    (held,) = holds(headline(dense=dense), Limits(max_drop=1))
    assert (held.passed, held.told) == (False, "no share of the dense model's score, which is 0")


def test_a_negative_score_of_the_dense_model():
    (held,) = holds(headline(drop=(0.01, 0.0, 0.02), dense=-0.5), Limits(max_drop=0.04))
    assert (held.passed, held.told) == (True, "2.00% [0.00%, 4.00%] (at most 4.00%)")


def test_json_has_null_for_nan():
    """As manifests are written."""
    given = headline(one=[nan, nan], drop=(nan, nan, nan), dense=nan)
    stored = json.loads(TypeAdapter(dict[str, Any]).dump_json(given))
    assert stored["measured"]["drop"] == {"value": None, "ci95": [None, None]}
    assert [each.passed for each in holds(stored, Limits(max_drop=9, min_speedup=0))] == [False, False]


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ({"size_bytes": 1}, [True, False]),  # of an earlier release
        ({}, [False]),
        ({"size_bytes": "much"}, [False]),
        ({"size_bytes": 1, "measured": [1]}, [False]),
        ({"size_bytes": 1, "measured": {"metric": "f1"}}, [False]),
        (headline(one=[2.0]), [False]),
        (headline(dense="f1"), [False]),
    ],
)
def test_a_manifest_without_numbers(given, passed):
    limits = Limits(max_mb=1, max_drop=1)
    assert [each.passed for each in holds(given, limits)] == passed

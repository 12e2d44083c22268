"""An artifact's measured numbers against limits: the worse end of each interval decides."""

from math import nan

import pytest

from compress.errors import ArtifactError
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


def test_an_artifact_without_numbers():
    assert [each.passed for each in holds({"size_bytes": 1}, Limits(max_mb=1))] == [True]
    with pytest.raises(ArtifactError, match="earlier release"):
        list(holds({"size_bytes": 1}, Limits(max_drop=1)))

"""What is kept, computed by hand."""

import pytest

from compress.benchmark.speed import Comparison
from compress.metrics.quality import Quality
from compress.schema.estimates import Estimate, Score
from compress.tune.candidates import thread_counts
from compress.tune.choice import enough_threads, fastest_first, is_faster, too_bad, why_not_faster


def estimate(low, value, high):
    return Estimate(value=value, ci95=(low, high))


def found(overall, *workloads):
    return Comparison(
        speedup={str(i): estimate(*each) for i, each in enumerate(workloads or [overall])},
        overall=estimate(*overall),
        slowest=overall[0],
    )


@pytest.mark.parametrize(
    ("comparison", "reason"),
    [
        (found((1.01, 1.1, 1.2)), ""),
        (found((1.0, 1.1, 1.2)), "not shown to be faster"),
        (found((0.9, 1.5, 2.5)), "not shown to be faster"),
        (found((0.8, 0.9, 0.99)), "slower"),
        (found((1.01, 1.1, 1.2), (1.2, 1.3, 1.4), (0.95, 0.99, 1.03)), ""),
        (found((1.01, 1.1, 1.2), (1.2, 1.3, 1.4), (0.9, 0.95, 0.99)), "slower at 1"),
    ],
)
def test_faster_is_an_interval_above_1_and_slower_at_no_workload(comparison, reason):
    assert why_not_faster(comparison) == reason
    assert is_faster(comparison) == (not reason)


def test_the_fastest_is_first_and_what_is_not_faster_is_not_there():
    all_of_them = {
        "a": found((1.1, 1.2, 1.3)),
        "b": found((0.9, 1.9, 3.0)),
        "c": found((1.2, 1.4, 1.6)),
    }
    assert fastest_first(all_of_them) == ["c", "a"]


def quality(low, drop, high, value=0.8, higher_is_better=True):
    score = Score(value=value, ci95=(0, 1), n=10, higher_is_better=higher_is_better)
    return Quality(
        primary="m", quality={"m": score}, fidelity={}, drop_from_dense={"m": estimate(low, drop, high)}
    )


ASKED = quality(-0.01, 0.02, 0.05, value=0.78)  # dense has 0.80


@pytest.mark.parametrize(
    ("asked", "other", "max_drop", "may"),
    [
        (ASKED, quality(0.0, 0.05, 0.09), None, True),  # as bad as what was asked for may be
        (ASKED, quality(0.0, 0.051, 0.09), None, False),
        (ASKED, quality(0.0, 0.05, 0.081), 0.1, False),  # 0.08 of 0.80 are allowed
        (ASKED, quality(0.0, 0.06, 0.079), 0.1, True),
        (ASKED, quality(0.0, 0.05, 0.09), 0.05, True),  # what was asked for misses 0.04 as well
        (ASKED, quality(0.0, 0.06, 0.09), 0.05, False),
    ],
)
def test_quality_is_held_against_the_budget_or_what_was_asked_for(asked, other, max_drop, may):
    assert (too_bad(asked, other, max_drop) == "") == may


def test_of_a_metric_whose_best_is_low_the_dense_score_is_below():
    asked = quality(0.0, 1.0, 1.5, value=11.0, higher_is_better=False)  # dense has 10
    assert too_bad(asked, quality(0, 1.0, 2.0, 11.0, False), 0.2) == ""
    assert "the budget allows 2" in too_bad(asked, quality(0, 1.0, 2.1, 11.0, False), 0.2)


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 5, 6]), (8, [1, 2, 4, 7, 8])]
)
def test_thread_counts(cores, counts):
    assert thread_counts(cores) == counts


def test_threads_are_taken_only_where_they_help_in_every_process():
    ratios = {
        (1, 2): found((1.5, 1.8, 2.0)),
        (2, 3): found((0.7, 1.2, 2.0)),  # faster in one process, slower in the next
        (2, 4): found((1.02, 1.3, 1.5)),
    }
    assert enough_threads([1, 2, 3, 4], lambda a, b: ratios[a, b]) == (4, {2: 1, 3: 2, 4: 2})
    noisy = {(1, 2): found((0.6, 1.3, 2.2))}
    assert enough_threads([1, 2], lambda a, b: noisy[a, b]) == (1, {2: 1})

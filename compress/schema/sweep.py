"""The schema of sweep.json: what the points of a sweep have in common, and which of them are worth having.

Everything in it follows from the `point.json` and `report.json` of the points. Units are in the names; an
interval is a 95 % confidence interval.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from compress.schema.estimates import Estimate, Latency, Score
from compress.schema.report import Verdict

SWEEP_SCHEMA_VERSION = 1

Status = Literal["done", "failed", "running"]
Kind = Literal["latency", "size", "memory"]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The dense model, once for all points; every run timed it again."""

    name: str
    quality: Score | None  # of the primary metric
    size_bytes: int
    peak_memory_bytes: float | None  # median over the runs
    latency_ms: dict[str, float]  # p50 by workload, median over the runs
    latency_range_ms: dict[str, tuple[float, float]]  # least and greatest p50 of all runs


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The variant a point's verdict names."""

    variant: str
    verdict: Verdict
    quality: Score | None  # of the primary metric
    drop: Estimate | None  # of the primary metric from dense, paired; positive is worse
    size_bytes: int
    peak_memory_bytes: int | None
    latency_ms: dict[str, Latency]  # as timed in its own run
    speedup: dict[str, Estimate]  # over the dense model of its own run
    # What points are compared by: the baseline's p50 over the speed-up, milliseconds.
    comparable_ms: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Point:
    number: int  # its folder's name
    overrides: tuple[str, ...]  # as given
    settings: dict[str, str]  # the overrides by key
    status: Status
    error: str | None = None
    kept: Kept | None = None  # of a point that is done


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a point stands on the plane of a front; less is better on both axes."""

    number: int
    cost: Estimate
    drop: Estimate


@dataclass(frozen=True, kw_only=True)
class Domination:
    """`number` is dominated: `by` is no worse in both cost and drop and better in one."""

    number: int
    by: int
    why: str
    certain: bool  # the intervals do not overlap, neither in cost nor in drop


@dataclass(frozen=True, kw_only=True)
class Front:
    """The points no other point beats in both the cost and the drop of the primary metric."""

    kind: Kind
    cost: str  # latency at 1x32, size, peak memory
    unit: str  # of the cost: ms or MB
    workload: str | None
    dense_cost: float
    places: tuple[Place, ...]  # all points with this cost and a drop
    members: tuple[int, ...]  # by increasing cost
    dominated: tuple[Domination, ...]
    missing: tuple[int, ...]  # points that are done but have no such cost or no drop
    beaten_by_dense: tuple[int, ...]  # members that neither cost less than the dense model nor drop less
    reference: tuple[float, float]  # cost of dense, worst drop seen (dense's zero included)
    hypervolume: float  # unit times drop, between the front and `reference`


@dataclass(frozen=True, kw_only=True)
class Sweep:
    experiment: str
    primary_metric: str  # empty while no point is done
    points: tuple[Point, ...]  # by number
    varying: tuple[str, ...]  # keys of the settings that differ between points
    fixed: tuple[str, ...]  # overrides that all points share
    workloads: tuple[str, ...]  # the first decides the order of the table
    baseline: Baseline | None
    max_drop: float | None  # the budget in units of the metric, where all points share one
    fronts: tuple[Front, ...]
    ships: tuple[int, ...]  # points that meet the budget, fastest first
    not_told_apart: tuple[int, ...]  # of `ships`: may be as fast as the first, the intervals overlap
    same_settings: tuple[tuple[int, ...], ...]
    doubts: tuple[str, ...] = field(default=())  # why numbers of the points may not compare
    schema_version: int = SWEEP_SCHEMA_VERSION

    def point(self, number: int) -> Point:
        return next(point for point in self.points if point.number == number)


def setting_value(text: str | None) -> float | str | None:
    """What a setting is compared by: 0.5 and 0.50 are the same."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return text
    return text if value is None or math.isnan(value) else value  # NaN does not equal itself

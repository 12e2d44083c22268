"""What was measured of an artifact, as its manifest tells it, against limits that somebody sets later."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compress.schema.estimates import Estimate
from compress.schema.report import Report, Variant


@dataclass(frozen=True, kw_only=True)
class Limits:
    max_drop: float | None = None  # of the primary metric, as a share of the dense model's
    max_mb: float | None = None
    min_speedup: float | None = None  # on every workload


@dataclass(frozen=True, kw_only=True)
class Held:
    """One limit, and what of the artifact was held against it."""

    name: str
    passed: bool
    told: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a manifest keeps of the variant that ships."""

    metric: str
    dense: float | None  # the dense model's score
    drop: Estimate | None
    speedup: dict[str, Estimate]  # by workload
    not_timed: str | None


@dataclass(frozen=True, kw_only=True)
class _Headline:
    size_bytes: int
    measured: Measured | None = None


_HEADLINE = TypeAdapter(_Headline)


def measured(report: Report, variant: Variant) -> Measured:
    dense = report.variants[0]
    score = dense.score(report.primary_metric)
    return Measured(
        metric=report.primary_metric,
        dense=None if score is None else score.value,
        drop=variant.drop_from_dense.get(report.primary_metric),
        speedup=variant.speedup,
        not_timed=dense.not_timed,
    )


def holds(headline: Mapping[str, Any], limits: Limits) -> Iterator[Held]:
    """Each limit against the worse end of the 95 % interval, as in a run's verdict.

    What is not known, or NaN, holds nothing. `headline` is a manifest's, which may be of an earlier release
    or be no such thing.
    """
    try:
        found = _HEADLINE.validate_python(headline)
    except ValidationError as error:
        where = ".".join(map(str, ("headline", *error.errors()[0]["loc"])))
        yield Held(name="measured", passed=False, told=f"manifest.json has no such numbers: see {where}")
        return
    if limits.max_mb is not None:
        size = found.size_bytes / 1e6
        told = f"{size:.1f} MB (at most {limits.max_mb:g})"
        yield Held(name="size", passed=size <= limits.max_mb, told=told)
    if limits.max_drop is None and limits.min_speedup is None:
        return
    if found.measured is None:
        told = (
            "the manifest, of an earlier release, has no quality and speed: make it again, compress reproduce"
        )
        yield Held(name="measured", passed=False, told=told)
        return
    if limits.max_drop is not None:
        yield _drop(found.measured, limits.max_drop)
    if limits.min_speedup is not None:
        yield from _speedups(found.measured, limits.min_speedup)


def _drop(found: Measured, most: float) -> Held:
    name = f"drop in {found.metric}"
    if found.dense == 0:
        return Held(name=name, passed=False, told="no share of the dense model's score, which is 0")
    if not found.drop or found.dense is None or isnan(found.dense) or isnan(found.drop.ci95[1]):
        return Held(name=name, passed=False, told="not known")
    low, high = (end / abs(found.dense) for end in found.drop.ci95)
    told = f"{found.drop.value / abs(found.dense):.2%} [{low:.2%}, {high:.2%}] (at most {most:.2%})"
    return Held(name=name, passed=high <= most, told=told)


def _speedups(found: Measured, least: float) -> Iterator[Held]:
    if not found.speedup:
        yield Held(name="speed-up", passed=False, told=found.not_timed or "not known")
    for workload, each in found.speedup.items():
        low, high = each.ci95
        told = f"{each.value:.2f}x [{low:.2f}, {high:.2f}] (at least {least:g}x)"
        yield Held(name=f"speed-up at {workload}", passed=low >= least, told=told)

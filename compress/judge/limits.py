"""What was measured of an artifact, as its manifest tells it, against limits that somebody sets later."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

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


# JSON has no NaN: a manifest has null in its place.
_Number = Annotated[float, BeforeValidator(lambda found: nan if found is None else found)]


@dataclass(frozen=True, kw_only=True)
class _Estimate:
    value: _Number
    ci95: tuple[_Number, _Number]


@dataclass(frozen=True, kw_only=True)
class _Measured:
    metric: str
    dense: float | None  # the dense model's score
    drop: _Estimate | None
    speedup: dict[str, _Estimate]  # by workload
    not_timed: str | None


@dataclass(frozen=True, kw_only=True)
class _Headline:
    size_bytes: int
    measured: _Measured | None = None


_HEADLINE = TypeAdapter(_Headline)


def measured(report: Report, variant: Variant) -> dict[str, Any]:
    """What a manifest keeps for `holds`."""
    primary, dense = report.primary_metric, report.variants[0]
    score, drop = dense.score(primary), variant.drop_from_dense.get(primary)
    return {
        "metric": primary,
        "dense": score and score.value,
        "drop": drop and asdict(drop),
        "speedup": {workload: asdict(each) for workload, each in variant.speedup.items()},
        "not_timed": dense.not_timed,
    }


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


def _drop(found: _Measured, most: float) -> Held:
    name = f"drop in {found.metric}"
    if found.dense == 0:
        return Held(name=name, passed=False, told="no share of the dense model's score, which is 0")
    if not found.drop or found.dense is None or isnan(found.dense) or isnan(found.drop.ci95[1]):
        return Held(name=name, passed=False, told="not known")
    low, high = (end / abs(found.dense) for end in found.drop.ci95)
    told = f"{found.drop.value / abs(found.dense):.2%} [{low:.2%}, {high:.2%}] (at most {most:.2%})"
    return Held(name=name, passed=high <= most, told=told)


def _speedups(found: _Measured, least: float) -> Iterator[Held]:
    if not found.speedup:
        yield Held(name="speed-up", passed=False, told=found.not_timed or "not known")
    for workload, each in found.speedup.items():
        low, high = each.ci95
        told = f"{each.value:.2f}x [{low:.2f}, {high:.2f}] (at least {least:g}x)"
        yield Held(name=f"speed-up at {workload}", passed=low >= least, told=told)

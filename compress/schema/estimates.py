"""Scores, intervals and times, as every part of a report has them."""

from dataclasses import dataclass
from math import nan
from typing import Annotated

from pydantic import BeforeValidator

# JSON has no NaN: a file has null in its place.
Number = Annotated[float, BeforeValidator(lambda found: nan if found is None else found)]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A quality metric on `n` examples."""

    value: float
    ci95: tuple[float, float]
    n: int
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A drop, a difference or a ratio with its interval."""

    value: Number
    ci95: tuple[Number, Number]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds a call; `ci95` is the interval of the p50."""

    p50: float
    p90: float
    p99: float
    ci95: tuple[float, float]
    samples: int

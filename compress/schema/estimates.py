"""Scores, intervals and times, as every part of a report has them."""

from dataclasses import dataclass


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

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds a call; `ci95` is the interval of the p50."""

    p50: float
    p90: float
    p99: float
    ci95: tuple[float, float]
    samples: int

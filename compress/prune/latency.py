"""Which share of the channels gives a latency: found by measuring, at most a few models more than one.

A machine that others share is up to a third faster in one minute than in the next. What holds is how much
faster a model is than the dense one timed beside it; milliseconds are that of the dense model's typical ones.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from compress.config.prune import ChannelPrune, PruneConfig
from compress.errors import ConfigError

log = logging.getLogger(__name__)
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the first table
NEAR = 0.03  # relative; nearer than two runs of one model are to each other
CORRECTIONS = 3
CLOSEST = 0.01  # shares that differ by less are one


@dataclass(frozen=True)
class Timed:
    """One run of the benchmark."""

    dense_ms: float
    speedups: Sequence[float]  # over the dense model, of each share


def at_latency(
    config: PruneConfig, time: Callable[[Sequence[ChannelPrune], str | None], Timed] | None
) -> PruneConfig:
    """`config` with the share of channels that has the latency it asks for; one that asks for none as it is.

    `time` makes and times models of other shares at a workload; without it the share stays as it is given.
    """
    if not isinstance(config, ChannelPrune) or config.latency_ms is None:
        return config
    workload = config.latency_workload

    def at(share: float) -> ChannelPrune:
        return replace(config, keep=share, latency_ms=None, latency_workload=None)

    if time is None:
        return at(config.keep)
    return at(share_for_latency(config.latency_ms, lambda shares: time([at(s) for s in shares], workload)))


def share_for_latency(goal: float, measure: Callable[[Sequence[float]], Timed]) -> float:
    """The share in (0, 1] whose model comes nearest to `goal` ms.

    Four shares are measured, then what lies between them is interpolated, measured, and corrected up to
    three times. Raises ConfigError for a goal beyond the table.
    """
    speedups: dict[float, float] = {}
    dense: list[float] = []

    def latencies(*shares: float) -> dict[float, float]:
        """Of these shares and of all that were measured before, in ms."""
        timed = measure(shares)
        speedups.update(zip(shares, timed.speedups, strict=True))
        dense.append(timed.dense_ms)
        return {share: median(dense) / speedup for share, speedup in speedups.items()}

    table = latencies(*SHARES)
    if not min(table.values()) * (1 - NEAR) <= goal <= max(table.values()) * (1 + NEAR):
        raise ConfigError(
            "no share of the channels gives this latency",
            found=f"prune.latency_ms={goal:g}",
            allowed=f"{min(table.values()):.3g} to {max(table.values()):.3g} ms, which "
            f"{min(SHARES):.0%} and {max(SHARES):.0%} of the channels took",
            next="another workload (prune.latency_workload), or 8-bit integers (quantize=int8_static)",
        )
    for _ in range(CORRECTIONS):
        share = interpolate(table, goal)
        near = min(table, key=lambda known: abs(known - share))
        if abs(near - share) < CLOSEST or abs(table[nearest(table, goal)] / goal - 1) <= NEAR:
            break
        table = latencies(share)
    chosen = nearest(table, goal)
    log.info("%.1f %% of the channels took %.3g ms, asked for %.3g ms", chosen * 100, table[chosen], goal)
    return chosen


def nearest(table: dict[float, float], goal: float) -> float:
    """The largest measured share whose latency is near `goal`, or the one that is nearest."""
    off = {share: abs(latency / goal - 1) for share, latency in table.items()}
    return max((share for share in table if off[share] <= NEAR), default=min(off, key=off.__getitem__))


def interpolate(table: dict[float, float], goal: float) -> float:
    """Largest share at which the line through the measured points crosses `goal`.

    Few channels may take longer than some more: kernels have widths that they like.
    """
    shares = sorted(table)
    rising = np.minimum.accumulate([table[share] for share in shares[::-1]])[::-1]
    return float(np.interp(goal, rising, shares))

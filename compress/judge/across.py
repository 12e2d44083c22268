"""What wins on one target and loses on another."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from compress.benchmark.speed import Speed
from compress.report.format import number


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model on a target."""

    model: str
    path: Path
    target: str


def losers(speed: Speed, timed: Mapping[str, Entry], built_for: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each model that was built for one target, as `built_for` says, and is slower on another
    than some model there, wherever in their intervals the truth lies; by workload."""
    for name, entry in timed.items():
        home = built_for.get(entry.model)
        if home is None or home == entry.target:
            continue
        there = [other for other, each in timed.items() if each.target == entry.target and other != name]
        for workload, latency in speed.latency_ms[name].items():
            faster = {other: speed.latency_ms[other][workload] for other in there}
            best = min(faster, key=lambda other: faster[other].p50, default=None)
            if best is not None and faster[best].ci95[1] < latency.ci95[0]:
                yield (
                    f"{entry.model}, built for {home}, loses on {entry.target} at {workload}: "
                    f"{number(latency.p50)} ms, where {timed[best].model} takes {number(faster[best].p50)}"
                )

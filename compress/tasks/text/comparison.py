"""Two models on the same examples: metrics with intervals, and how much worse the second is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.config.evaluate import EvaluateConfig
from compress.data import HeldOut
from compress.data.record import Record
from compress.errors import ConfigError, DataError, did_you_mean
from compress.metrics.quality import Quality
from compress.metrics.statistics import mean_interval, paired_mean_drop, spread
from compress.schema.report import Estimate, Score

Example = str | Record


def examples_of(held_out: HeldOut) -> list[Example]:
    """Those that are asked for; raises DataError for fewer than two."""
    every = held_out.part.examples
    rows = spread(len(every), held_out.samples)
    if len(rows) < 2:
        raise DataError(f"the {held_out.split.value} split has too few examples", found=len(rows), allowed=2)
    return [every[row] for row in rows]


def groups_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Number of the group of each example: what is of one group is no independent evidence."""
    names = [
        example.group or str(place) if isinstance(example, Record) else str(place)
        for place, example in enumerate(examples)
    ]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


class Comparison:
    """Collects metrics of a model beside the dense one."""

    def __init__(self, config: EvaluateConfig) -> None:
        self.how = {"resamples": config.resamples, "seed": config.seed}
        self.quality: dict[str, Score] = {}
        self.fidelity: dict[str, Score] = {}
        self.drops: dict[str, Estimate] = {}

    def mean(
        self, name: str, dense: ArrayLike, small: ArrayLike, groups: ArrayLike, higher_is_better: bool = True
    ) -> None:
        """The mean of a score of every example."""
        how = {**self.how, "higher_is_better": higher_is_better}
        self.quality[name] = mean_interval(small, groups, **how)  # type: ignore[arg-type]
        self.drops[name] = paired_mean_drop(dense, small, groups, **how)  # type: ignore[arg-type]

    def nearness(self, name: str, values: ArrayLike, groups: ArrayLike, perfect: float) -> None:
        """The mean of how near a model's answers are to the dense model's; `perfect`: those of itself."""
        higher = perfect > 0
        how = {**self.how, "higher_is_better": higher}
        self.fidelity[name] = mean_interval(values, groups, **how)  # type: ignore[arg-type]
        best = np.full(np.shape(values), perfect)
        self.drops[name] = paired_mean_drop(best, values, groups, **how)  # type: ignore[arg-type]

    def add(self, name: str, score: Score, drop: Estimate) -> None:
        self.quality[name], self.drops[name] = score, drop

    def result(self, primary: str | None, *defaults: str) -> Quality:
        """`primary`, or the first of `defaults` that there is; ConfigError for a metric that is not."""
        known = {**self.quality, **self.fidelity}
        chosen = primary or next(name for name in defaults if name in known)
        if chosen not in known:
            raise ConfigError(
                "evaluate.primary names no metric of this model and data",
                found=chosen,
                allowed=did_you_mean(chosen, known),
            )
        return Quality(
            primary=chosen, quality=self.quality, fidelity=self.fidelity, drop_from_dense=self.drops
        )

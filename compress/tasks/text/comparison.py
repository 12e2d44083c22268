"""Two models on the same examples: metrics with intervals, and how much worse the second is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from compress.config.evaluate import EvaluateConfig
from compress.data import HeldOut
from compress.data.record import Record
from compress.errors import ConfigError, DataError, did_you_mean
from compress.metrics.influence import Statistic, mean, paired_drop, score
from compress.metrics.quality import Quality
from compress.metrics.statistics import (
    accuracy,
    mean_interval,
    paired_accuracy_drop,
    paired_mean_drop,
    spread,
)
from compress.metrics.thresholds import threshold_stability
from compress.schema.details import ChangedText, MovedThreshold, PartScore, TextDetails
from compress.schema.estimates import Estimate, Score

Example = str | Record
Floats = NDArray[np.float64]
Totals = tuple[NDArray[np.int64], NDArray[np.int64]]  # of each example: what is counted, and of how many
NOTHING = Estimate(value=0.0, ci95=(0.0, 0.0))
SHOWN = 12  # examples whose answer changed


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

    def __init__(self, config: EvaluateConfig, itself: bool) -> None:
        """`itself`: both are the dense model, between which another sample could tell nothing either."""
        self.how: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
        self.itself = itself
        self.quality: dict[str, Score] = {}
        self.fidelity: dict[str, Score] = {}
        self.drops: dict[str, Estimate] = {}

    def mean(self, name: str, both: Sequence[ArrayLike], groups: ArrayLike) -> None:
        """The mean of scores between 0 and 1, high is good; `both`: of the dense model and of this one, as
        below. Answers that are right or wrong have the intervals of proportions."""
        dense, small = (np.asarray(each, dtype=np.float64) for each in both)
        if np.isin([dense, small], (0, 1)).all():
            self.add(name, accuracy(small, groups), paired_accuracy_drop(dense, small, groups))
        else:
            self.statistic(name, [mean(dense), mean(small)], groups)

    def loss(self, name: str, both: Sequence[ArrayLike], groups: ArrayLike) -> None:
        """The mean of losses, low is good."""
        dense, small = both
        how = {**self.how, "higher_is_better": False}
        self.add(name, mean_interval(small, groups, **how), paired_mean_drop(dense, small, groups, **how))

    def nearness(self, name: str, values: ArrayLike, groups: ArrayLike, perfect: float) -> None:
        """The mean of how near a model's answers are to the dense model's; `perfect`: those of itself."""
        best = np.full(np.shape(values), perfect)
        how = {**self.how, "higher_is_better": perfect > 0}
        if self.itself or not (perfect and np.isin(values, (0, 1)).all()):
            drop = paired_mean_drop(best, values, groups, **how)
            self.add(name, mean_interval(values, groups, **how), drop)
        else:
            self.mean(name, (best, values), groups)
        self.fidelity[name] = self.quality.pop(name)

    def statistic(self, name: str, both: Sequence[Statistic], groups: ArrayLike, low: float = 0.0) -> None:
        """What is no mean; `low`: the least that it may be."""
        dense, small = both
        self.quality[name] = score(small, groups, low=low, **self.how)
        self.drops[name] = paired_drop(dense, small, groups, **self.how)

    def ratio(self, name: str, both: Sequence[Totals], groups: ArrayLike) -> None:
        """Of totals over all examples, such as right of answered; nothing where a model has none."""
        if all(of.sum() for _, of in both):
            self.statistic(name, [_ratio(*each) for each in both], groups)

    def add(self, name: str, score: Score, drop: Estimate) -> None:
        self.quality[name], self.drops[name] = score, drop

    def result(self, primary: str | None, *defaults: str, text: TextDetails | None = None) -> Quality:
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
            primary=chosen,
            quality=self.quality,
            fidelity=self.fidelity,
            drop_from_dense=dict.fromkeys(self.drops, NOTHING) if self.itself else self.drops,
            text=text,
        )


def _ratio(counted: NDArray[np.int64], of: NDArray[np.int64]) -> Statistic:
    value, total = float(counted.sum() / of.sum()), float(of.sum())
    return Statistic(value, (counted - value * of) / total, 1 / total)


def details(
    both: Sequence[Floats],
    change: Callable[[int], ChangedText],
    metric: str = "",
    parts: Iterable[PartScore] = (),
    thresholds: Iterable[MovedThreshold] = (),
) -> TextDetails:
    """By scores [examples] of both models, high is good. `change`: row -> what to show of it."""
    dense, small = both
    worse, better = np.flatnonzero(small < dense), np.flatnonzero(small > dense)
    shown = [*_spread(worse, SHOWN), *_spread(better, SHOWN - min(SHOWN, len(worse)))]
    return TextDetails(
        lost=len(worse),
        gained=len(better),
        metric=metric,
        parts=tuple(sorted(parts, key=lambda part: -part.drop.value)),
        thresholds=tuple(thresholds),
        changed=tuple(change(int(row)) for row in shown),
    )


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of them, evenly spread."""
    count = min(count, len(rows))
    return rows[np.arange(count) * len(rows) // max(1, count)]


def moved_thresholds(
    names: Sequence[str], both: Sequence[Floats], truth: NDArray[np.bool_]
) -> Iterator[MovedThreshold]:
    """Of each label by its probabilities and its truth [texts, labels]: chosen on every other text, tried on
    those between; of labels that half of the texts lack, none."""
    for number, name in enumerate(names):
        true, (before, after) = truth[:, number], [of[:, number] for of in both]
        if true[::2].any() and true[1::2].any():
            found = threshold_stability(before[::2], after[::2], true[::2], after[1::2], true[1::2])
            yield MovedThreshold(name=name, dense=found.dense, variant=found.small, cost=found.cost)


def brief(text: str, letters: int = 160) -> str:
    """Its beginning, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= letters else line[: letters - 1] + "…"

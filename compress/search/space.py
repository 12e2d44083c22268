"""What a search may try, and what it concludes from numbers: pure arithmetic, nothing is run here."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar, get_type_hints

from compress.config.prune import NoPrune
from compress.config.recover import NoRecover
from compress.config.run import RunConfig, leaves
from compress.config.space import Choice, Range
from compress.config.target import BudgetConfig
from compress.judge.pareto import dominates
from compress.prune.shares import canonical as canonical_prune
from compress.registry import OPTIONS
from compress.schema.estimates import Estimate

MIN_PAST = 3  # finished trials, until the gain of recovery is taken as known
Settings = Mapping[str, Any]  # dotted name -> number, or name of an enum's member or of an option
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A candidate beside the dense model, on the select split."""

    metric: str
    drop: Estimate  # of the metric, as a share of the dense model's; positive is worse
    speedup: Estimate  # geometric mean over the workloads
    slowest: float  # the least that the interval of any workload's speed-up allows
    size_mb: float
    memory_mb: float


# ---------------------------------------------------------------- settings


def collect(config: RunConfig) -> dict[str, Range]:
    """Dotted name -> range of all that the options of `config` declare, and those that may replace them."""
    space: dict[str, Range] = {}
    for group in fields(config):
        kinds = {type(getattr(config, group.name))}
        if (choice := group.metadata.get("search")) is not None:
            options = {OPTIONS[group.name][name] for name in choice.names}
            if kinds <= options:  # else it is an option of the user's own
                space[group.name] = choice
                kinds |= options
        for kind in sorted(filter(is_dataclass, kinds), key=lambda kind: kind.__name__):
            space.update(_declared(kind, f"{group.name}."))
    return space


def _declared(kind: type, prefix: str) -> Iterator[tuple[str, Range]]:
    hints = get_type_hints(kind)
    for item in fields(kind):
        if "search" in item.metadata:
            yield f"{prefix}{item.name}", item.metadata["search"]
        elif is_dataclass(hints[item.name]):
            yield from _declared(hints[item.name], f"{prefix}{item.name}.")


def configure(config: RunConfig, settings: Settings) -> RunConfig:
    """`config` with `settings`; what an option does not have is passed over, range checks are done.

    An option that takes another's place keeps the settings that both have.
    """
    for name, value in settings.items():
        if name in OPTIONS:
            old, kind = getattr(config, name), OPTIONS[name][value]
            if kind is not type(old):
                shared = {item.name for item in fields(old)} & {item.name for item in fields(kind)}
                config = replace(config, **{name: kind(**{key: getattr(old, key) for key in shared})})
    for name, value in settings.items():
        if name not in OPTIONS:
            config = _with(config, name.split("."), value)
    return config


def _with(node: T, path: Sequence[str], value: Any) -> T:
    name, *rest = path
    if not hasattr(node, name):
        return node
    old = getattr(node, name)
    if rest:
        value = _with(old, rest, value)
    elif isinstance(old, Enum):
        value = type(old)[value]
    return replace(node, **{name: value})  # type: ignore[type-var]


def settings_of(config: RunConfig, space: Mapping[str, Range]) -> dict[str, Any]:
    """The searched settings that `config` has, by name; the inverse of `configure`."""
    settings: dict[str, Any] = {}
    for group, options in OPTIONS.items():
        if group in space:
            settings[group] = next(n for n, kind in options.items() if kind is type(getattr(config, group)))
    for name, value in leaves(config):
        if name in space:
            settings[name] = value.name if isinstance(value, Enum) else value
    return settings


def starts(config: RunConfig, space: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Where to begin: the mildest corner, the experiment's own settings, the most aggressive corner.

    Mild is what a setting has by default, aggressive the far end of its range; between options without
    an order the experiment's own stays.
    """
    own = {name: _default(name, values) for name, values in space.items()} | settings_of(config, space)
    mild = {name: own[name] if name in OPTIONS else _default(name, values) for name, values in space.items()}
    far = {
        name: own[name]
        if isinstance(values, Choice)
        else (values.low if mild[name] - values.low >= values.high - mild[name] else values.high)
        for name, values in space.items()
    }
    own = {name: _nearest(value, space[name]) for name, value in own.items()}
    return [start for i, start in enumerate([mild, own, far]) if start not in [mild, own, far][:i]]


def _default(name: str, values: Range) -> Any:
    """Of the first option that has the setting."""
    group, *path = name.split(".")
    if not path:
        return values.names[0] if isinstance(values, Choice) else values.low
    for kind in OPTIONS[group].values():
        if dict(_declared(kind, f"{group}.")).get(name) is values:
            for key in path[:-1]:
                kind = get_type_hints(kind)[key]
            default = next(item.default for item in fields(kind) if item.name == path[-1])
            return default.name if isinstance(default, Enum) else default
    raise KeyError(name)


def _nearest(value: Any, values: Range) -> Any:
    """The point of the grid next to a setting of the user's."""
    if isinstance(values, Choice):
        return value if value in values.names else values.names[0]
    steps = round((min(max(value, values.low), values.high) - values.low) / values.step)
    return min(values.low + steps * values.step, values.high)


def canonical(config: RunConfig, widths: Mapping[str, tuple[int, ...]]) -> RunConfig:
    """One config for all that lead to the same model; `widths` of the dense one: kind -> of each layer.

    Where nothing goes there is nothing to prune or recover.
    """
    prune = canonical_prune(config.prune, widths)
    if isinstance(prune, NoPrune) and not isinstance(config.prune, NoPrune):
        return replace(config, prune=prune, recover=NoRecover())
    return replace(config, prune=prune)


# ---------------------------------------------------------------- judgements


def relative(drop: Estimate, dense_score: float) -> Estimate:
    """A drop as a share of what the dense model reaches; NaN where that is nothing."""
    scale = abs(dense_score) or math.nan
    return Estimate(value=drop.value / scale, ci95=(drop.ci95[0] / scale, drop.ci95[1] / scale))


def geometric_mean(speedups: Iterable[Estimate]) -> Estimate:
    """Of the workloads' speed-ups and of the ends of their intervals, which is no narrower than its own
    interval would be; 1 for the dense model, which has none."""
    triples = [(speedup.value, *speedup.ci95) for speedup in speedups] or [(1.0, 1.0, 1.0)]
    value, low, high = (statistics.geometric_mean(column) for column in zip(*triples, strict=True))
    return Estimate(value=value, ci95=(low, high))


def objective_values(measured: Measured, objectives: Sequence[str]) -> tuple[float, ...]:
    """One number an objective, all to be small; latency is a share of the dense model's."""
    values = {
        "quality_drop": measured.drop.value,
        "latency": 1 / measured.speedup.value,
        "size": measured.size_mb,
        "memory": measured.memory_mb,
    }
    return tuple(values[name] for name in objectives)


def violations(measured: Measured, budget: BudgetConfig) -> dict[str, float]:
    """By how much each limit is missed, without a unit so that they add up; at most 0 is met.

    As in the verdict, the end of the interval counts that speaks against the candidate.
    """
    excess_by_limit = {}
    if budget.max_quality_drop is not None:
        excess_by_limit["quality_drop"] = measured.drop.ci95[1] - budget.max_quality_drop
    if budget.min_speedup is not None:
        excess_by_limit["speedup"] = (budget.min_speedup - measured.slowest) / (budget.min_speedup or 1.0)
    if budget.max_size_mb is not None:
        excess_by_limit["size"] = (measured.size_mb - budget.max_size_mb) / (budget.max_size_mb or 1.0)
    return {name: 1e3 if math.isnan(excess) else excess for name, excess in excess_by_limit.items()}


def total_violation(measured: Measured, budget: BudgetConfig) -> float:
    """0 for what meets the budget (Deb's rules, 2000)."""
    return sum(max(0.0, excess) for excess in violations(measured, budget).values())


def cannot_win(
    glance: Measured, best: Measured | None, objectives: Sequence[str], budget: BudgetConfig
) -> str | None:
    """Why speed or size rule the candidate out, which training does not change; None when they do not."""
    high = glance.speedup.ci95[1]
    if budget.max_size_mb is not None and glance.size_mb > budget.max_size_mb:
        return f"{glance.size_mb:.1f} MB (budget {budget.max_size_mb:g} MB)"
    if budget.min_speedup is not None and high < budget.min_speedup:
        return f"too slow: at most {high:.2f}x (budget {budget.min_speedup:g}x)"
    if best is None:
        return None
    if tuple(objectives) == ("latency",) and high < best.speedup.ci95[0]:
        return f"too slow: at most {high:.2f}x, the best has at least {best.speedup.ci95[0]:.2f}x"
    if tuple(objectives) == ("size",) and glance.size_mb >= best.size_mb:
        return f"not smaller: {glance.size_mb:.1f} MB, the best has {best.size_mb:.1f} MB"
    return None


def hopeless(glance: Measured, past: Sequence[tuple[Measured, Measured]], budget: BudgetConfig) -> str | None:
    """Why no recovery seen so far would bring the candidate into the budget; None while it might.

    `past` holds (glance, final) of finished trials. Conservative: a candidate is given the best end of its
    interval and the largest gain, absolute or as a share, that any earlier one had, and must have begun
    worse than the median of those that missed the budget.
    """
    limit = budget.max_quality_drop
    if limit is None or len(past) < MIN_PAST:
        return None
    failed = [before.drop.value for before, after in past if after.drop.ci95[1] > limit]
    if not failed or glance.drop.value <= statistics.median(failed):
        return None
    start = glance.drop.ci95[0]
    gains = [(before.drop.value, before.drop.value - after.drop.ci95[1]) for before, after in past]
    absolute = max(gain for _, gain in gains)
    share = max((gain / before for before, gain in gains if before > 0), default=0.0)
    expected = start - max(absolute, share * start, 0.0)
    if expected <= limit:
        return None
    return (
        f"hopeless: {glance.drop.value:+.1%} before recovery, "
        f"{expected:+.1%} after the largest gain so far (budget {limit:.1%})"
    )


def winner(candidates: Sequence[Measured], objectives: Sequence[str], budget: BudgetConfig) -> int | None:
    """Index of the best: feasible before infeasible, then the objectives.

    Of several objectives: the point of the front nearest to the ideal one, each scaled to its range on
    the front. Without a feasible one: that which misses the budget least.
    """
    feasible = [i for i, candidate in enumerate(candidates) if total_violation(candidate, budget) == 0]
    if not feasible:
        return min(range(len(candidates)), key=lambda i: total_violation(candidates[i], budget), default=None)
    values = {i: objective_values(candidates[i], objectives) for i in feasible}
    front = [i for i in feasible if not any(dominates(values[j], values[i]) for j in feasible)]
    lows = [min(values[i][k] for i in front) for k in range(len(objectives))]
    spans = [max(values[i][k] for i in front) - low or 1.0 for k, low in enumerate(lows)]

    def distance(i: int) -> float:
        return math.hypot(*((v - low) / span for v, low, span in zip(values[i], lows, spans, strict=True)))

    return min(front, key=distance)

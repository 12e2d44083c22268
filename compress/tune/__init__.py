"""`target.tune=true`: what runs fastest on a target is found by timing a few candidates there.

Greedy, one question after the other: the format of weights and activations, the settings of the runtime, the
operators of the graph, the number of threads. The candidates of a question are timed in one job with what was
kept until then, and one takes its place only where the interval of its speed-up lies above 1. Before that it
has to compute the same: on the target as here, and to rounding what the kept graph computes or, where it
changes more than that, with a quality on select that may stand for what was asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from compress.config.run import RunConfig
from compress.config.target import MachineTarget, TargetConfig
from compress.graph.session import CPU
from compress.judge.assemble import Built
from compress.registry import declared
from compress.schema.speed import Tuning
from compress.stages.runner import StageRunner
from compress.targets import open_target
from compress.tune.candidates import formats, settings, thread_counts
from compress.tune.search import DENSE, Make, OnSelect, Search


@dataclass(frozen=True)
class Tuned:
    config: RunConfig  # with what was chosen
    built: Built
    targets: Mapping[str, TargetConfig] = field(default_factory=dict)  # of a variant with other settings
    tuning: Tuning | None = None


def tune(config: RunConfig, built: Built, make: Make, on_select: OnSelect, runner: StageRunner) -> Tuned:
    """What is fastest on the target of `config`; what was asked for, already `built`, where it does not ask.

    Raises GateError where what was asked for does not compute on the target what it is to.
    """
    if not isinstance(config.target, MachineTarget) or not config.target.tune:
        return Tuned(config, built)
    asked = replace(config, target=replace(config.target, tune=False))
    search = Search(asked, make, on_select, runner)
    target = open_target(asked.target)
    facts, provider = target.facts(), str(target.runs_with().get("provider", CPU))
    counts = [] if config.target.threads else thread_counts(int(facts["threads"]))
    search.check(asked, built.variants[-1], built.variants[-1].name)
    start = kept = search.threads(asked, counts)
    kept = search.best(kept, formats(kept, facts, provider))
    kept = search.best(kept, settings(kept, facts))
    kept = search.best_operators(kept, facts)
    if kept is not start:
        kept = search.threads(kept, counts)
    assert isinstance(kept.target, MachineTarget)
    own = search.dense_threads not in (0, kept.target.threads)
    dense = replace(kept.target, threads=search.dense_threads, rewrites=[])
    tuning = Tuning(
        tried=tuple(search.tried),
        chosen=chosen(asked, kept),
        dense_threads=search.dense_threads or target.runs_with()["threads"],
    )
    return Tuned(kept, search.built(kept), {DENSE: dense} if own else {}, tuning)


def chosen(asked: RunConfig, kept: RunConfig) -> dict[str, Any]:
    """What differs, as words of the command line say it: setting -> value."""
    words: dict[str, Any] = {}
    if type(asked.quantize) is not type(kept.quantize):
        words["quantize"] = declared(type(kept.quantize)).name
    for item in fields(kept.target):
        before, after = (getattr(config.target, item.name) for config in (asked, kept))
        if before != after:
            words[f"target.{item.name}"] = _plain(after)
    return words


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, list) else getattr(value, "value", value)

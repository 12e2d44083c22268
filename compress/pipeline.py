"""The whole road, on one screen: a model in, a measured and shippable ONNX file out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress import tasks
from compress.benchmark import (
    benchmark,
    check_workloads,
    cpu_facts,
    cpu_flags,
    load_speed,
    measure_limits,
    profile_operators,
)
from compress.config.data import Split
from compress.config.prune import ChannelPrune
from compress.config.recover import NoRecover
from compress.config.run import RunConfig
from compress.config.target import LocalTarget, TargetConfig
from compress.data import input_digests, load_splits, open_splits
from compress.evaluate import evaluate, score
from compress.export import export, plain
from compress.judge import test_set_uses as looks
from compress.judge.assemble import Rung, assemble, ship
from compress.models import check_options
from compress.prune import prune
from compress.prune.latency import Timed, share_for_latency
from compress.quantize import left_out, quantize, without_exclusion
from compress.recover import recover
from compress.report import write_reports
from compress.schema.report import Report
from compress.stages.runner import Road
from compress.stages.store import Entry, sha256_model


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What the stages that change the model left; `rungs[0]` is the dense model, the last the smallest."""

    dense: Entry
    splits: Entry
    pruned: Entry
    rungs: tuple[Rung, ...]


def run(config: RunConfig, folder: Path, road: Road, command: str = "") -> Report | None:
    """Walk the road; results appear in `folder`. Returns None on a dry run.

    `command` is what started it, for the report.

    Every number in the report is measured on ONNX files by onnxruntime, not on their torch ancestors.
    Raises CompressError; what earlier runs left stays as it was, and finished stages are kept.
    """
    config = at_latency(config, road)
    ladder = build(config, road)
    splits, rungs = ladder.splits, ladder.rungs
    scores = score_dense(config, ladder, road)
    quality = [measure_quality(config, ladder, rung, scores, road, command) for rung in rungs]
    speed = measure_speed(config.target, ladder, rungs, road)
    profiles = [profile(config.target, ladder, rung, road) for rung in rungs]
    limits = road.stage("limits", measure_limits, config.target, identity=cpu_facts(), alone=True)
    if road.dry_run:
        return None

    report = assemble(config, rungs, quality, speed, profiles, limits, splits, ladder.pruned, road, command)
    ship(report, rungs, folder / "artifact")
    write_reports(report, folder)
    return report


def build(config: RunConfig, road: Road) -> Ladder:
    """The part of the road that changes the model: from the checkpoint to the smallest ONNX file."""
    dense = load(config, road)
    if not road.dry_run:
        check_workloads(config.target, dense.path)
        check_options(config.model.task, vars(config).values(), dense.path)
    splits = road.stage("split", open_splits, config.data, identity=input_digests(config.data))
    baseline = road.stage("export", export, plain(config.export), dense, splits, label="export dense")
    pruned = road.stage("prune", prune, config.prune, dense, splits)
    student = road.stage("recover", recover, config.recover, pruned, dense, splits, scratch=True)
    graph = road.stage("export", export, config.export, student, splits)
    flags = (cpu_flags(config.target),)
    small = road.stage("quantize", quantize, config.quantize, graph, student, splits, extra=flags)

    name = "fused" if student is dense else "recovered" if pruned is dense else "pruned"
    rungs = [Rung("dense", "export", baseline, dense)]
    if graph.digest != baseline.digest:
        rungs.append(Rung(name, "export", graph, student))
    if small is not graph:
        if small.path.is_absolute() and left_out(small.path):  # so that their price is measured; no dry run
            plain_config = without_exclusion(config.quantize)
            every = road.stage(
                "quantize", quantize, plain_config, graph, student, splits, extra=flags, label="quantize all"
            )
            rungs.append(Rung("int8_all", "quantize", every, student))
        rungs.append(Rung(config.quantize.rung, "quantize", small, student))
    return Ladder(dense=dense, splits=splits, pruned=pruned, rungs=tuple(rungs))


def at_latency(config: RunConfig, road: Road) -> RunConfig:
    """With the share of channels that has the latency asked for, measured on what would ship unrecovered."""
    prune, target = config.prune, config.target
    if not isinstance(prune, ChannelPrune) or prune.latency_ms is None:
        return config
    assert isinstance(target, LocalTarget)

    def at(share: float) -> RunConfig:
        return replace(config, prune=replace(prune, keep=share, latency_ms=None, latency_workload=None))

    def measure(shares: Sequence[float]) -> Timed:
        ladders = [build(replace(at(share), recover=NoRecover()), road) for share in shares]
        rungs = [replace(each.rungs[-1], name=f"{s:.4f}") for each, s in zip(ladders, shares, strict=True)]
        speed = load_speed(measure_speed(only, ladders[0], [ladders[0].rungs[0], *rungs], road).path)
        speedups = [speed.speedup[rung.name][workload].value for rung in rungs]
        return Timed(speed.latency_ms["dense"][workload].p50, speedups)

    workload = prune.latency_workload or target.workloads[-1]
    only = replace(target, workloads=[workload])
    if road.dry_run:  # which shares will be tried is known when the first are measured
        return at(prune.keep)
    return at(share_for_latency(prune.latency_ms, measure))


def load(config: RunConfig, road: Road) -> Entry:
    """The dense checkpoint."""
    road.of_task = tasks.modules(config.model.task)
    identity = tasks.identity(config.model)
    return road.stage("load", tasks.import_model, config.model, identity=identity)


def score_dense(
    config: RunConfig, ladder: Ladder, road: Road, split: Split = Split.test, samples: int | None = None
) -> Entry:
    """What the dense model says of each example of `split`, which `compare` needs for every other."""
    return road.stage(
        "score",
        score,
        config.evaluate,
        ladder.rungs[0].graph,
        ladder.dense,
        ladder.splits,
        extra=(split, samples),
        label="score dense",
    )


def compare(
    config: RunConfig,
    ladder: Ladder,
    rung: Rung,
    scores: Entry,
    road: Road,
    split: Split = Split.test,
    samples: int | None = None,
) -> Entry:
    """The quality of `rung` beside the dense model, whose `scores` are stored."""
    return road.stage(
        "evaluate",
        evaluate,
        config.evaluate,
        rung.graph,
        rung.checkpoint,
        ladder.rungs[0].graph,
        ladder.dense,
        scores,
        ladder.splits,
        extra=(split, samples),
        label=f"evaluate {rung.name}",
    )


def measure_quality(
    config: RunConfig, ladder: Ladder, rung: Rung, scores: Entry, road: Road, command: str
) -> Entry:
    """Compare `rung` with the dense model on test, and note that test was looked at."""
    found = compare(config, ladder, rung, scores, road)
    if not (found.reused or road.dry_run or rung is ladder.rungs[0]):
        looks.note(
            road.store.root.parent,
            experiment=config.name,
            model=sha256_model(rung.graph.path / "model.onnx"),
            command=command,
            sets=load_splits(ladder.splits.path).test_sets,
        )
    return found


def profile(target: TargetConfig, ladder: Ladder, rung: Rung, road: Road) -> Entry:
    """Where the time of a call goes: a stage for each rung, so that a sweep profiles what it shares once."""
    return road.stage(
        "profile",
        profile_operators,
        target,
        rung.checkpoint,
        ladder.splits,
        rung.graph,
        extra=(rung.name,),
        identity=cpu_facts(),
        alone=True,
        label=f"profile {rung.name}",
    )


def measure_speed(target: TargetConfig, ladder: Ladder, rungs: Sequence[Rung], road: Road) -> Entry:
    """Time `rungs`, the dense one first, while nothing else of ours computes."""
    return road.stage(
        "benchmark",
        benchmark,
        target,
        ladder.splits,
        *[entry for rung in rungs for entry in (rung.graph, rung.checkpoint)],
        extra=(tuple(rung.name for rung in rungs),),
        identity=cpu_facts(),
        alone=True,
    )

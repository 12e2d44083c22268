"""The whole pipeline, on one screen: a model in, a measured and shippable ONNX file out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress import tasks
from compress.benchmark import (
    benchmark,
    check_on_target,
    check_workloads,
    measure_limits,
    profile_operators,
    time_card,
)
from compress.benchmark.as_shipped import load_card_times
from compress.benchmark.speed import load_speed
from compress.config.data import Split
from compress.config.prune import ChannelPrune
from compress.config.recover import NoRecover
from compress.config.run import RunConfig
from compress.config.target import TargetConfig, rewrites_of
from compress.data import input_digests, load_splits, open_splits
from compress.errors import BenchmarkError
from compress.evaluate import evaluate, on_target, score
from compress.export import export, in_place, plain
from compress.export.beside import write_beside
from compress.graph.files import sha256_graphs
from compress.judge import test_set_uses
from compress.judge.assemble import Built, BuiltVariant, assemble, kept, ship, with_failed_card, with_gates
from compress.models import check_options
from compress.models.checkpoint import read_config
from compress.models.gguf_write import check_writable
from compress.models.lengths import check_lengths
from compress.models.needs import is_large
from compress.prune import prune
from compress.prune.latency import Timed, at_latency
from compress.quantize import also_measured, quantize, watches_metric
from compress.recover import recover
from compress.report import write_reports
from compress.rewrite import Rewriting, rewrite
from compress.schema.report import Report
from compress.stages.runner import StageRunner
from compress.stages.store import Entry
from compress.targets import open_target
from compress.tune import tune

NOT_TIMED = "the dense model, large and stored in 16 bits, is not timed: it would be widened for each token"


def run(config: RunConfig, folder: Path, runner: StageRunner, command: str = "") -> Report | None:
    """Build, measure and judge; results appear in `folder`. Returns None on a dry run.

    `command` is what started it, for the report.

    Every number in the report is measured on ONNX files, by onnxruntime or the target's runtime, not on their
    torch ancestors.
    Raises CompressError; what earlier runs left stays as it was, and finished stages are kept.
    """

    def time(options: Sequence[ChannelPrune], workload: str | None) -> Timed:
        return time_pruned(config, options, workload, runner)

    config = replace(config, prune=at_latency(config.prune, None if runner.dry_run else time))
    tuned = tune(config, build(config, runner), build, on_select, runner)
    config, built, target = tuned.config, tuned.built, open_target(tuned.config.target)
    scores = score_dense(config, built, runner)
    quality = [measure_quality(config, built, v, scores, runner, command) for v in built.variants]
    speed = measure_speed(config, built, built.variants, runner, tuned.targets)
    there: dict[str, Any] = {"identity": target.facts(), "lock": target.lock}
    profiles = [
        runner.stage("profile", profile_operators, tuned.targets.get(variant.name, config.target),
                     config=config.benchmark, name=variant.name, checkpoint=variant.checkpoint,
                     splits=built.splits, graph=variant.graph, label=f"profile {variant.name}", **there)
        for variant in built.variants if not variant.not_timed
    ]  # fmt: skip
    limits = runner.stage("limits", measure_limits, config.target, **there)
    if runner.dry_run:
        return None

    report = assemble(config, target, built, quality, profiles, speed, limits, runner, command, tuned.tuning)
    beside = as_gguf(config, kept(report, built).checkpoint, runner)
    report = with_gates(report, beside)
    artifact = ship(report, built, target, folder / "artifact", beside)
    try:
        card = runner.stage(
            "time card", time_card, config.target, config=config.benchmark, artifact=artifact,
            checkpoint=kept(report, built).checkpoint, splits=built.splits, **there,
        )  # fmt: skip
        report = replace(report, card_speed=load_card_times(card.path), stages=tuple(runner.stages))
    except BenchmarkError as error:  # all else is measured, and the artifact written
        report = with_failed_card(report, error)
    write_reports(report, folder)
    return report


def build(config: RunConfig, runner: StageRunner) -> Built:
    """The part that changes the model: from the checkpoint to the smallest ONNX file."""
    stage = runner.stage
    dense = load(config, runner)
    large = config.model.has_cache and dense.path.is_dir() and is_large(dense.path)
    if dense.reused or not runner.dry_run:
        if config.model.has_cache:
            check_lengths(config, read_config(dense.path), plain=not large)
        check_workloads(config.benchmark, dense.path)
        check_options(config.model.task, vars(config).values(), dense.path)
        if config.ship.gguf_file:
            check_writable(read_config(dense.path))
    read: dict[str, Any] = {"checkpoint": dense} if config.data.reads_model else {}
    read |= {"examples": config.model.examples} if config.data.labelled else {}
    splits = stage("split", open_splits, config.data, identity=input_digests(config.data), **read)
    graph_of = in_place if large else plain
    baseline = stage(
        "export", export, graph_of(config.export), checkpoint=dense, splits=splits, label="export dense"
    )
    pruned = stage("prune", prune, config.prune, checkpoint=dense, splits=splits)
    student = stage(
        "recover", recover, config.recover, student=pruned, teacher=dense, splits=splits, scratch=True
    )
    graph = stage("export", export, config.export, checkpoint=student, splits=splits)
    flags, of_target = open_target(config.target).cpu_flags(), rewrites_of(config.target)
    inputs: dict[str, Any] = {"graph": graph, "checkpoint": student, "splits": splits, "cpu_flags": flags}
    judged: dict[str, Any] = {"evaluate": config.evaluate} if watches_metric(config.quantize) else {}
    small = stage("quantize", quantize, config.quantize, **inputs, **judged)

    variants = [BuiltVariant(name="dense", stage="export", graph=baseline, checkpoint=dense)]

    def add(name: str, made_by: str, made: Entry) -> None:
        variants.append(BuiltVariant(name=name, stage=made_by, graph=made, checkpoint=student))

    if graph.digest != baseline.digest:
        add("fused" if student is dense else "recovered" if pruned is dense else "pruned", "export", graph)
    last = stage("rewrite", rewrite, Rewriting(tuple(of_target)), graph=small) if of_target else small
    if small is not graph:
        for name, option in also_measured(config.quantize, small.path):
            add(name, "quantize", stage("quantize", quantize, option, label="quantize all", **inputs))
        add(config.quantize.variant, "rewrite" if of_target else "quantize", last)
    elif of_target:
        add("rewritten", "rewrite", last)
    if large and len(variants) > 1:
        variants[0] = replace(variants[0], not_timed=NOT_TIMED)
    return Built(dense=dense, splits=splits, pruned=pruned, variants=tuple(variants))


def as_gguf(config: RunConfig, checkpoint: Entry, runner: StageRunner) -> Entry | None:
    """The checkpoint of what ships as a GGUF file, where one is asked for."""
    if (file := config.ship.gguf_file) is None:
        return None
    return runner.stage("gguf", write_beside, file, checkpoint=checkpoint)


def on_select(config: RunConfig, built: Built, runner: StageRunner, label: str) -> Entry:
    """The quality on select of what was asked for."""
    scores = score_dense(config, built, runner, Split.select)
    return compare(config, built, built.variants[-1], scores, runner, Split.select, label=label)


def load(config: RunConfig, runner: StageRunner) -> Entry:
    """The dense checkpoint."""
    return runner.stage("load", tasks.import_model, config.model, identity=tasks.identity(config.model))


def score_dense(
    config: RunConfig,
    built: Built,
    runner: StageRunner,
    split: Split = Split.test,
    samples: int | None = None,
) -> Entry:
    """What the dense model says of each example of `split`, which `compare` needs for every other."""
    return runner.stage(
        "score",
        score,
        config.evaluate,
        graph=built.variants[0].graph,
        checkpoint=built.dense,
        splits=built.splits,
        split=split,
        samples=samples,
        label="score dense",
    )


def compare(
    config: RunConfig,
    built: Built,
    variant: BuiltVariant,
    scores: Entry,
    runner: StageRunner,
    split: Split = Split.test,
    samples: int | None = None,
    label: str = "",
) -> Entry:
    """The quality of `variant` beside the dense model, whose `scores` are stored."""
    there: dict[str, Any] = {}
    if config.evaluate.on_target:
        target = open_target(config.target)
        there = {"target": config.target, "identity": target.facts(), "lock": target.lock}
    return runner.stage(
        "evaluate",
        on_target.evaluate if there else evaluate,
        config.evaluate,
        graph=variant.graph,
        student=variant.checkpoint,
        baseline=built.variants[0].graph,
        checkpoint=built.dense,
        scores=scores,
        splits=built.splits,
        split=split,
        samples=samples,
        label=label or f"evaluate {variant.name}",
        **there,
    )


def measure_quality(
    config: RunConfig, built: Built, variant: BuiltVariant, scores: Entry, runner: StageRunner, command: str
) -> Entry:
    """Compare `variant` with the dense model on test, and note that test was looked at."""
    quality = compare(config, built, variant, scores, runner)
    if not (quality.reused or runner.dry_run or variant is built.variants[0]):
        test_set_uses.note(
            runner.store.root.parent,
            experiment=config.name,
            model=sha256_graphs(variant.graph.path),
            command=command,
            sets=load_splits(built.splits.path).test_sets,
        )
    return quality


def measure_speed(
    config: RunConfig,
    built: Built,
    variants: Sequence[BuiltVariant],
    runner: StageRunner,
    targets: Mapping[str, TargetConfig] = {},
) -> Entry:
    """Time `variants`, the dense one first unless nobody does, while nothing else of ours computes on the
    target: once it has been seen to compute what they are to. `targets`: that of a variant which is timed
    with other settings."""
    target, variants = open_target(config.target), [each for each in variants if not each.not_timed]
    there: dict[str, Any] = {"identity": target.facts(), "lock": target.lock}
    parity = {
        variant.name: runner.stage("parity", check_on_target, config.target, name=variant.name,
                                   workloads=config.benchmark.workloads, checkpoint=variant.checkpoint,
                                   splits=built.splits, graph=variant.graph,
                                   label=f"parity {variant.name}", **there)
        for variant in variants
    }  # fmt: skip
    return runner.stage(
        "benchmark",
        benchmark,
        config.target,
        config=config.benchmark,
        graphs={variant.name: variant.graph for variant in variants},
        checkpoints={variant.name: variant.checkpoint for variant in variants},
        parity=parity,
        splits=built.splits,
        targets=targets,
        **there,
    )


def time_pruned(
    config: RunConfig, options: Sequence[ChannelPrune], workload: str | None, runner: StageRunner
) -> Timed:
    """Time what each of these ways to prune would ship, without recovery, at one workload."""
    workload = workload or config.benchmark.workloads[-1]
    config = replace(config, recover=NoRecover(), benchmark=replace(config.benchmark, workloads=[workload]))
    models_of = [build(replace(config, prune=option), runner) for option in options]
    names = [f"{option.keep:.4f}" for option in options]
    pruned = [replace(b.variants[-1], name=name) for b, name in zip(models_of, names, strict=True)]
    variants = [models_of[0].variants[0], *pruned]
    speed = load_speed(measure_speed(config, models_of[0], variants, runner).path)
    return Timed(speed.latency_ms["dense"][workload].p50, [speed.speedup[n][workload].value for n in names])

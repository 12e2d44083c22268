"""From what the stages measured to one report and one artifact."""

import json
import logging
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from compress import models
from compress.artifact import GENAI, Manifest, write_artifact
from compress.benchmark.limits import floor, load_limits, memory_ms
from compress.benchmark.profile import load_profiles
from compress.benchmark.speed import Speed, load_speed
from compress.config.compose import options_of, to_plain
from compress.config.run import RunConfig
from compress.data import load_splits
from compress.errors import BenchmarkError
from compress.graph import MODEL, SUFFIX, graph_files, named_graphs
from compress.graph.files import sha256_graphs
from compress.judge import test_set_uses
from compress.judge.explain import advise, explain
from compress.judge.limits import measured
from compress.judge.verdict import judge
from compress.metrics.quality import Quality, load_quality
from compress.report.card import model_card
from compress.schema.estimates import Estimate, Latency
from compress.schema.gate import Gate
from compress.schema.layout import PLAIN, TRANSFORMERS_JS, graph_name
from compress.schema.pruning import Pruning, PruningSensitivity, Recovery
from compress.schema.quantization import Coverage, LayerErrors, Sensitivity, SmoothedLayers, WeightBlocks
from compress.schema.report import CutTexts, Report, Split, Variant
from compress.schema.speed import Limits, Profile, Tuning
from compress.schema.workload import Workload
from compress.stages.code_version import library_versions
from compress.stages.result import read_result
from compress.stages.runner import StageRunner
from compress.stages.store import Entry
from compress.system.disk import sha256_json
from compress.targets import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuiltVariant:
    """One step from the dense model to what was asked for: its graphs, and the checkpoint they came from."""

    name: str
    stage: str  # that made the graphs
    graph: Entry
    checkpoint: Entry
    not_timed: str = ""  # why nobody does


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the stages that change the model left; the first variant is dense, the last what was asked for."""

    dense: Entry  # checkpoint
    splits: Entry
    pruned: Entry
    variants: tuple[BuiltVariant, ...]


def assemble(
    config: RunConfig,
    target: Target,
    built: Built,
    quality: Sequence[Entry],
    profiles: Sequence[Entry],
    speed: Entry,
    limits: Entry,
    runner: StageRunner,
    command: str,
    tuning: Tuning | None = None,
) -> Report:
    """One report out of the folders that the stages of `runner` left.

    `quality` is in the order of the variants, `profiles` of those that are timed.
    """
    qualities = [load_quality(entry.path) for entry in quality]
    timed, machine = load_speed(speed.path), load_limits(limits.path)
    names = [variant.name for variant in built.variants if not variant.not_timed]
    profiled = {name: load_profiles(each.path) for name, each in zip(names, profiles, strict=True)}
    parts = zip(built.variants, qualities, strict=True)
    measured = [_variant(v, scores, timed, profiled.get(v.name, {}), machine) for v, scores in parts]
    if measured[0].not_timed:  # the others' speed-ups are over the first that was timed
        measured = [replace(variant, speedup={}) for variant in measured]
    variants = _explained(measured, timed, machine)
    primary = qualities[0].primary
    verdict = judge(variants, primary, config.budget)
    student = built.variants[-1].checkpoint.path
    facts, cut = models.read_facts(student), read_result(built.pruned.path)
    return Report(
        experiment=config.name,
        config=to_plain(config),
        options=options_of(config),
        environment={
            **environment(target),
            "quality": _quality_of(config, target),
            "threads": target.runs_with()["threads"],
            **_settings(target),
            "providers": timed.machine["session"]["providers"],
            "fallback_nodes": _fallback_nodes(variants),
            "torch_threads": _read_json(student / "entry.json").get("torch_threads"),
        },
        splits=_splits(load_splits(built.splits.path), runner.store.root.parent, qualities[0].cut),
        primary_metric=primary,
        variants=tuple(_with_examples_of(verdict.best, variant) for variant in variants),
        verdict=verdict,
        stages=tuple(runner.stages),
        gates=(*_gates(built), *read_result(speed.path).gates),
        limits=machine,
        pruning_sensitivity=cut.fact("pruning_sensitivity", PruningSensitivity),
        command=command,
        lineage=facts.lineage,
        noise=tuple(timed.noise),
        pruning=cut.fact("pruning", Pruning),
        recovery=read_result(student).fact("recovery", Recovery),
        tuning=tuning,
    )


def with_failed_card(report: Report, error: BenchmarkError) -> Report:
    """The report of a run whose model card's code failed on the target."""
    log.warning("the code of README.md does not run on the target: %s", error)
    failed = Gate(name="the code of the model card runs on the target", passed=False, numbers={})
    return replace(report, card_failure=str(error), gates=(*report.gates, failed))


def with_gates(report: Report, beside: Entry | None) -> Report:
    """The report with what was checked of a file that ships beside the graph, where there is one."""
    gates = read_result(beside.path).gates if beside else ()
    return replace(report, gates=(*report.gates, *gates))


def kept(report: Report, built: Built) -> BuiltVariant:
    """What the verdict names."""
    return next(variant for variant in built.variants if variant.name == report.verdict.best)


def ship(report: Report, built: Built, target: Target, folder: Path, beside: Entry | None = None) -> Entry:
    """Write the variant that the verdict names, whether it meets the budget or not, and what ships beside it;
    what ships, as an input of a stage that runs it."""
    variant = next(variant for variant in report.variants if variant.name == report.verdict.best)
    shipped = kept(report, built)
    checkpoint = shipped.checkpoint.path
    facts, summary = models.read_facts(checkpoint), models.read_summary(checkpoint)
    of_source = {"base_model": facts.base_model, "license": facts.license, "source": facts.source}
    code = _code(shipped, target, _layout(report.config))
    javascript = target.javascript(_graph_in(_layout(report.config), shipped)) if code else ""
    of_card = {**summary.card, "example_code": code, "javascript": javascript, "gguf": _gguf(beside)}
    card = model_card(report, {**of_source, **of_card})
    manifest = Manifest(
        name=report.experiment,
        base_model=facts.base_model,
        source=facts.source,
        license=facts.license,
        lineage=facts.lineage,
        config=report.config,
        environment=report.environment,
        splits={name: split.fingerprint for name, split in report.splits.items()},
        headline={
            "variant": variant.name,
            "ships": report.verdict.ships,
            "reasons": list(report.verdict.reasons),
            "size_bytes": variant.size_bytes,
            "measured": asdict(measured(report, variant)),
        },
        opset=max(map(_opset, named_graphs(shipped.graph.path).values())),
        options=report.options,
    )
    pack(shipped, folder, card, manifest, beside)
    return Entry(folder, sha256_json([shipped.graph.digest, code, javascript]), reused=False, seconds=0.0)


def _gguf(beside: Entry | None) -> dict[str, Any] | None:
    """What the card says of the GGUF file that ships beside the graph, where there is one."""
    if beside is None:
        return None
    result = read_result(beside.path)
    [name], [checked] = result.ships, result.gates
    return {
        "name": name,
        "format": name.removesuffix(".gguf").rpartition("-")[2],
        "size_bytes": (beside.path / name).stat().st_size,
        "kl_of_rounding_nats": checked.numbers["kl_of_rounding_nats"],
    }


def _layout(config: Mapping[str, Any]) -> str:
    """Of a run's configuration; those of earlier releases name none."""
    return str((config.get("ship") or {}).get("layout", PLAIN))


def _graph_in(layout: str, variant: BuiltVariant) -> str:
    """Where the graph of a variant that has one lies in its artifact."""
    return graph_name(variant.name) if layout == TRANSFORMERS_JS else f"{MODEL}{SUFFIX}"


def _code(variant: BuiltVariant, target: Target, layout: str) -> str:
    """What of the card runs the variant as it was timed: the target's lines, then the task's."""
    names, card = list(named_graphs(variant.graph.path)), models.read_summary(variant.checkpoint.path).card
    generates = (variant.graph.path / GENAI).is_file()
    code = card.get("generating_code" if generates else "example_code", "")
    return target.opening(_graph_in(layout, variant), generates) + code if code and len(names) == 1 else ""


def pack(
    variant: BuiltVariant, folder: Path, card: str, manifest: Manifest, beside: Entry | None = None
) -> None:
    """The artifact of one variant."""
    checkpoint = variant.checkpoint.path
    write_artifact(
        folder,
        graph=variant.graph.path,
        checkpoint=checkpoint,
        inputs=models.read_check_inputs(checkpoint),
        card=card,
        manifest=manifest,
        keep_checkpoint=models.read_summary(checkpoint).keeps_checkpoint,
        layout=_layout(manifest.config),
        beside=beside.path if beside else None,
    )


def environment(target: Target) -> dict[str, Any]:
    """What of the target, and of the software here, may change a number or a file."""
    machine = target.facts()
    return {
        "cpu": machine["model"],
        "isa_flags": machine["flags"],
        "physical_cores": machine["physical_cores"],
        "memory_bytes": machine["memory_bytes"],
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": library_versions(),
        "runtime": machine["runtime"],
        "git": _git(),
    }


def _settings(target: Target) -> dict[str, Any]:
    """What else the runtime was told, as precision; nothing where it was not."""
    told = target.runs_with().get("settings")
    return {"settings": dict(told)} if told else {}


def _quality_of(config: RunConfig, target: Target) -> str:
    """Of which computations the scores are."""
    if config.evaluate.on_target:
        return "of what the target computes"
    precision = target.runs_with().get("settings", {}).get("precision", "f32")
    more = (
        ""
        if precision == "f32"
        else f"; the target computes in {precision}: evaluate.on_target=true scores that"
    )
    return f"of what onnxruntime computes here{more}"


def _fallback_nodes(variants: Sequence[Variant]) -> dict[str, int]:
    """Variant -> nodes that ran on another execution provider than the target's, where there are any."""
    most = {v.name: max((p.fallback_nodes for p in v.profile.values()), default=0) for v in variants}
    return {name: nodes for name, nodes in most.items() if nodes}


def _variant(
    built: BuiltVariant, quality: Quality, speed: Speed, profiles: dict[str, Profile], machine: Limits
) -> Variant:
    summary = models.read_summary(built.checkpoint.path)
    files, graphs = graph_files(built.graph.path), list(named_graphs(built.graph.path).values())
    result, latency = read_result(built.graph.path), speed.latency_ms.get(built.name, {})
    return Variant(
        name=built.name,
        stage=built.stage,
        path=f"{built.graph.digest}/{', '.join(path.name for path in graphs)}",
        sha256=built.graph.sums[graphs[0].name] if len(graphs) == 1 else sha256_graphs(built.graph.path),
        size_bytes=sum(path.stat().st_size for path in files),
        parameters=summary.parameters,
        macs=summary.macs,
        quality=quality.quality,
        fidelity=quality.fidelity,
        drop_from_dense=quality.drop_from_dense,
        latency_ms=latency,
        speedup=speed.speedup.get(built.name, {}),
        not_timed=built.not_timed,
        tokens_per_second={
            workload: _tokens_per_second(tokens, latency[workload])
            for workload, tokens in speed.tokens.items()
            if workload in latency
        },
        bandwidth_share={
            workload: memory_ms(profiles[workload], machine) / latency[workload].p50
            for workload in speed.tokens
            if Workload.parse(workload).past and workload in profiles
        },
        load_ms=speed.load_ms.get(built.name),
        peak_memory_bytes=speed.peak_memory_bytes.get(built.name),
        quantization=result.fact("coverage", Coverage),
        layer_errors=result.fact("layer_errors", LayerErrors),
        sensitivity=result.fact("sensitivity", Sensitivity),
        blocks=result.fact("blocks", WeightBlocks),
        smoothing=result.fact("smoothing", tuple[SmoothedLayers, ...]) or (),
        classification=quality.classification,
        language=quality.language,
        text=quality.text,
        widths=summary.widths,
        layer_names=summary.layer_names,
        profile=profiles,
        floor={workload: floor(profile, machine) for workload, profile in profiles.items()},
        seconds=built.graph.seconds,
    )


def _tokens_per_second(tokens: int, latency: Latency) -> Estimate:
    fastest, slowest = latency.ci95
    return Estimate(value=1e3 * tokens / latency.p50, ci95=(1e3 * tokens / slowest, 1e3 * tokens / fastest))


def _with_examples_of(kept: str, variant: Variant) -> Variant:
    """Examples whose answer changed stay with the variant that is kept: they are most of report.json."""
    if variant.name == kept:
        return variant
    classes, text = variant.classification, variant.text
    return replace(
        variant,
        classification=classes and replace(classes, changed=()),
        text=text and replace(text, changed=()),
    )


def _explained(variants: Sequence[Variant], speed: Speed, machine: Limits) -> tuple[Variant, ...]:
    dense, *others = variants
    explained = [dense]
    flags, formats = speed.machine.get("flags", ()), speed.machine.get("runtime", {}).get("integer_products")
    for variant in others:
        sentences = {
            workload: explain(dense, variant, workload, machine, flags, speed.noise, formats)
            for workload in variant.speedup
        }
        said = {workload: lines for workload, lines in sentences.items() if lines}
        advice = advise(variant, list(variant.profile.values()), formats)
        explained.append(replace(variant, not_faster=said, advice=advice))
    return tuple(explained)


def _splits(opened: Any, cache: Path, cut: CutTexts | None) -> dict[str, Split]:
    facts: dict[str, Split] = opened.facts()
    facts["test"] = replace(facts["test"], cut=cut)
    for name, fingerprint in opened.test_sets.items():
        facts[name] = replace(facts[name], looks=test_set_uses.count(cache, fingerprint))
    return facts


def _gates(built: Built) -> list[Gate]:
    """Every gate that the stages passed, with the numbers they stored; a failed one ended the run."""
    cut = [("pruned", built.pruned)] if built.pruned is not built.dense else []
    stages = [("dense", built.dense), *cut, *((variant.name, variant.graph) for variant in built.variants)]
    return [
        replace(gate, name=f"{name}: {gate.name}")
        for name, entry in stages
        for gate in read_result(entry.path).gates
    ]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _opset(path: Path) -> int:
    model = onnx.load(path, load_external_data=False)
    return int(next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")))


def _git() -> dict[str, Any] | None:
    """Commit of the checkout this package lies in; None for an installed wheel."""

    def ask(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout

    try:
        return {
            "commit": ask("rev-parse", "HEAD").strip(),
            "dirty": bool(ask("status", "--porcelain").strip()),
        }
    except (OSError, subprocess.CalledProcessError):
        return None

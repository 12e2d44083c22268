"""Everything a report says below its table, as headings, lines and grids: Markdown and HTML draw the same."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from compress.report.classification import answer_sections
from compress.report.format import (
    MISSING,
    duration,
    interval,
    megabytes,
    number,
    p_value,
    percent,
    precise,
    relevant_flags,
)
from compress.report.language import language_sections
from compress.report.layers import layer_sections
from compress.report.pruning import pruning_sections
from compress.report.section import Section, best_variant
from compress.schema.report import KINDS, Report, SkippedNode, Split, Variant

_NODES_SHOWN = 3
_ONE_SIDED = 0.025  # the level that belongs to one end of a 95 % interval
_LEAST_SHARE = 0.01  # of the time, for an operator to be named


def sections(report: Report) -> list[Section]:
    """Sections that have something to say, in the order of a reader's doubts."""
    drawn = [
        _noninferiority(report),
        *answer_sections(report),
        *language_sections(report),
        _gates(report),
        _noise(report),
        *_not_faster(report),
        _kinds(report),
        _operators(report),
        _limits(report),
        _coverage(report),
        _skipped(report),
        *layer_sections(report),
        *pruning_sections(report),
        _recovery(report),
        _stages(report),
        _splits(report),
        _files(report),
        _environment(report),
        _reproduce(report),
    ]
    return [section for section in drawn if section.lines or section.rows or section.code]


def _noninferiority(report: Report) -> Section:
    tests = report.verdict.noninferiority
    rows = [
        (
            f"{test.metric} (primary)" if test.metric == report.primary_metric else test.metric,
            interval(test.drop.value, test.drop.ci95),
            number(test.margin),
            p_value(test.p_value),
            p_value(test.p_holm),
            "yes" if test.p_holm < _ONE_SIDED else "not shown",
        )
        for test in tests
    ]
    lines = (
        f"The hypothesis to refute: {report.verdict.best} is worse than the dense model by the budget or "
        f"more. A one-sided p-value below {_ONE_SIDED} refutes it, which is where the 95 % interval of the "
        "drop ends below the budget. Holm's adjustment is for testing all metrics at once. The verdict rests "
        "on the primary metric alone.",
    )
    header = ("metric", "drop", "budget", "p", "p, Holm", "within the budget, all metrics tested")
    return Section(
        anchor="noninferiority",
        title="Not worse than the budget allows",
        lines=lines if tests else (),
        header=header,
        rows=rows,
    )


def _gates(report: Report) -> Section:
    rows = [
        (
            gate.name,
            "passed" if gate.passed else "FAILED",
            ", ".join(f"{name} {precise(value)}" for name, value in gate.numbers.items()),
        )
        for gate in report.gates
    ]
    return Section(anchor="gates", title="Gates", header=("gate", "result", "numbers"), rows=rows)


def noise(report: Report) -> tuple[str, ...]:
    """Why the timing may not be trusted; empty on a quiet machine."""
    return report.noise


def noise_advice(report: Report) -> tuple[str, ...]:
    """The noise and, since a timing is kept for later runs like any result, how to time again."""
    if not noise(report):
        return ()
    earlier = any(stage.name == "benchmark" and stage.reused for stage in report.stages)
    target = report.config.get("target")
    seed = target.get("seed", 0) if isinstance(target, dict) else 0
    whose = "timed by an earlier run" if earlier else "later runs reuse this timing"
    return (*noise(report), f"{whose}; to time again, on a quieter machine: target.seed={int(seed) + 1}")


def _noise(report: Report) -> Section:
    return Section(anchor="noise", title="Noise of the timing", lines=noise_advice(report))


def _not_faster(report: Report) -> list[Section]:
    return [
        Section(
            anchor=f"not-faster-{i}-{j}",
            title=f"Why {variant.name} is not faster at {workload}",
            lines=sentences,
        )
        for i, variant in enumerate(report.variants)
        for j, (workload, sentences) in enumerate(variant.not_faster.items())
    ]


def _kinds(report: Report) -> Section:
    """A row per workload and class of operators, a column per variant."""
    rows = []
    for workload in profiled(report):
        every = [kind_ms(variant, workload) for variant in report.variants]
        totals = [sum(of_variant.values()) for of_variant in every]
        for kind in KINDS:
            if any(kind in of_variant for of_variant in every):
                cells = [
                    _ms(of_variant.get(kind), total) for of_variant, total in zip(every, totals, strict=True)
                ]
                rows.append((workload, kind, *cells))
        rows.append((workload, "all operators", *(_ms(total or None, None) for total in totals)))
    header = ("workload", "ms a call", *(variant.name for variant in report.variants))
    return Section(anchor="time", title="Where the time of a call goes", header=header, rows=rows)


def profiled(report: Report) -> list[str]:
    """Workloads of which some variant has a profile."""
    return list(dict.fromkeys(name for variant in report.variants for name in variant.profile))


def kind_ms(variant: Variant, workload: str) -> dict[str, float]:
    """Milliseconds by class of operators, in the order of KINDS; empty without a profile."""
    profile = variant.profile.get(workload)
    operators = profile.operators if profile else ()
    kinds = [kind for kind in KINDS if any(operator.kind == kind for operator in operators)]
    return {kind: sum(operator.ms for operator in operators if operator.kind == kind) for kind in kinds}


def _ms(value: float | None, total: float | None) -> str:
    if value is None:
        return MISSING
    return f"{number(value)} ({100 * value / total:.0f} %)" if total else number(value)


def _operators(report: Report) -> Section:
    """The slowest operators of the variant that is kept."""
    best = best_variant(report)
    rows = []
    for workload, profile in best.profile.items():
        total = sum(operator.ms for operator in profile.operators)
        shown = [operator for operator in profile.operators if operator.ms >= _LEAST_SHARE * total]
        rows += [
            (workload, operator.op_type, operator.kind, str(operator.nodes), _ms(operator.ms, total))
            for operator in shown
        ]
        if rest := profile.operators[len(shown) :]:
            nodes, ms = sum(operator.nodes for operator in rest), sum(operator.ms for operator in rest)
            rows.append((workload, f"{len(rest)} others", MISSING, str(nodes), _ms(ms, total)))
    header = ("workload", "operator", "class", "nodes", "ms a call")
    return Section(anchor="operators", title=f"Operators of {best.name}", header=header, rows=rows)


def _limits(report: Report) -> Section:
    """What the machine reaches, and how far each variant is from the least time it could take."""
    limits = report.limits
    if limits is None:
        return Section(anchor="limits", title="Distance from the machine's limit")
    gops = ", ".join(
        f"{number(rate)} GOP/s with {name} weights" for name, rate in limits.integer_gops.items()
    )
    cache = "unknown" if limits.cache_bytes is None else f"{megabytes(limits.cache_bytes)} MB"
    lines = (
        f"Measured on this machine with {limits.threads} threads: {number(limits.float32_gflops)} GFLOP/s "
        f"in float32 products, {gops}, {number(limits.bandwidth_gb_per_s)} GB/s from memory; "
        f"last cache {cache}; {number(limits.node_us)} microseconds to start a node.",
        "The limit is the time of the products alone at these rates, or of reading their weights from memory "
        "where they do not fit the cache.",
    )
    rows = []
    for variant in report.variants:
        for workload, floor in variant.floor.items():
            latency = variant.latency_ms.get(workload)
            parts = (floor.integer_ms, floor.float_ms, floor.memory_ms, floor.ms)
            far = f"{number(latency.p50 / floor.ms)} x" if latency and floor.ms else MISSING
            p50 = number(latency.p50) if latency else MISSING
            rows.append((variant.name, workload, *map(number, parts), p50, far))
    header = (
        "variant",
        "workload",
        "integers, ms",
        "floats, ms",
        "memory, ms",
        "limit, ms",
        "p50, ms",
        "p50 / limit",
    )
    return Section(
        anchor="limits", title="Distance from the machine's limit", lines=lines, header=header, rows=rows
    )


def _coverage(report: Report) -> Section:
    rows = [
        (v.name, percent(v.quantization.coverage_macs), percent(v.quantization.coverage_bytes))
        for v in report.variants
        if v.quantization is not None
    ]
    header = ("variant", "MACs in integers", "weight bytes in integers")
    return Section(anchor="coverage", title="Quantization coverage", header=header, rows=rows)


def _skipped(report: Report) -> Section:
    rows = [
        (v.name, reason, str(len(nodes)), _shortened(nodes))
        for v in report.variants
        if v.quantization is not None
        for reason, nodes in by_reason(v.quantization.skipped)
    ]
    header = ("variant", "reason", "nodes", "which")
    return Section(anchor="skipped", title="Nodes left in float", header=header, rows=rows)


def by_reason(skipped: Iterable[SkippedNode]) -> list[tuple[str, list[str]]]:
    """Names of nodes by reason, the most frequent reason first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for node in skipped:
        groups[node.reason].append(node.node)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def _shortened(nodes: list[str]) -> str:
    more = len(nodes) - _NODES_SHOWN
    return ", ".join(nodes[:_NODES_SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Loss by step; a loss is None where it was not taken."""

    steps: list[int]
    train_loss: list[float | None]
    select_loss: list[float | None]


def curve(report: Report) -> Curve | None:
    """The recovery's training curve, cut to the shortest of its lists; None where there is none."""
    found = report.recovery
    if found is None or not found.steps:
        return None
    steps = list(found.steps)
    nothing: list[float | None] = [None] * len(steps)
    train, select = list(found.train_loss) or nothing, list(found.select_loss) or nothing
    length = min(len(steps), len(train), len(select))
    return Curve(steps=steps[:length], train_loss=train[:length], select_loss=select[:length])


def _recovery(report: Report) -> Section:
    recovery = curve(report) or Curve(steps=[], train_loss=[], select_loss=[])
    rows = []
    for name, losses in (("train", recovery.train_loss), ("select", recovery.select_loss)):
        points = [(loss, step) for loss, step in zip(losses, recovery.steps, strict=True) if loss is not None]
        if points:
            shown = (points[0], min(points), points[-1])
            rows.append((name, *(f"{number(loss)} at step {step}" for loss, step in shown)))
    header = ("loss", "first", "lowest", "last")
    return Section(anchor="recovery", title="Recovery", header=header, rows=rows)


def _stages(report: Report) -> Section:
    rows = [
        (stage.name, duration(stage.seconds), _peak(stage.peak_memory_bytes),
         "reused" if stage.reused else "computed", stage.digest[:12])
        for stage in report.stages
    ]  # fmt: skip
    header = ("stage", "time", "peak memory, MB", "result", "digest")
    lines = tuple(_memory_lines(report))
    return Section(anchor="stages", title="Where the time went", lines=lines, header=header, rows=rows)


def _peak(size: int | None) -> str:
    return MISSING if size is None else megabytes(size)


def _memory_lines(report: Report) -> Iterator[str]:
    """The stage that needed the most memory, beside the size of the dense model."""
    peaks = {stage.name: stage.peak_memory_bytes for stage in report.stages if stage.peak_memory_bytes}
    if peaks:
        most, dense = max(peaks, key=lambda name: peaks[name]), report.variants[0].size_bytes
        yield (
            f"The most memory was needed by {most}: {megabytes(peaks[most])} MB, "
            f"{number(peaks[most] / dense)} times the dense ONNX file. Peaks are those of this toolkit's "
            "process, libraries included; a model that is timed runs in a process of its own, whose peak "
            "is in the table."
        )


def _splits(report: Report) -> Section:
    rows = [
        (name, str(split.examples), MISSING if split.requested is None else str(split.requested),
         _nearly(split), _looks(split), split.fingerprint)
        for name, split in report.splits.items()
    ]  # fmt: skip
    header = ("split", "examples", "requested", "near-duplicates", "looked at", "fingerprint")
    lines = tuple(_split_lines(report))
    return Section(anchor="splits", title="Data splits", lines=lines, header=header, rows=rows)


def _nearly(split: Split) -> str:
    repeats = split.near_duplicates
    return MISSING if repeats is None else f"{repeats.examples} ({percent(repeats.share)})"


def _looks(split: Split) -> str:
    used = split.looks
    return MISSING if used is None else f"{_times(used.looks)}, {_models(used.models)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"


def _split_lines(report: Report) -> Iterator[str]:
    used = [split.looks for split in report.splits.values() if split.looks]
    if used:
        most = max(used, key=lambda uses: uses.looks)
        advice = ": the best of several by these numbers looks better than it is" if most.models > 1 else ""
        yield (
            f"This test split has been looked at {_times(most.looks)} on this machine, for "
            f"{_models(most.models)} beside the dense one{advice}."
        )
    for name, split in report.splits.items():
        repeats = split.near_duplicates
        if repeats and repeats.examples:
            yield (
                f"{repeats.examples} of {split.examples} examples of {name} nearly repeat a sentence of "
                f"another split (Jaccard similarity of at least {repeats.limit:g}). The most alike, "
                f"{number(repeats.similarity)}: {repeats.text} | {repeats.other} ({repeats.other_split})"
            )


def _files(report: Report) -> Section:
    rows = [(v.name, v.stage, duration(v.seconds), v.path, v.sha256[:16]) for v in report.variants]
    header = ("variant", "made by", "in", "path", "sha256, first 16 digits")
    return Section(anchor="files", title="Files measured", header=header, rows=rows)


def _environment(report: Report) -> Section:
    rows = []
    for name, value in report.environment.items():
        if name == "isa_flags":
            value = relevant_flags([str(flag) for flag in _list(value)])
        rows.append((name.replace("_", " "), _flat(value)))
    header = ("what", "value")
    return Section(anchor="environment", title="Environment", header=header, rows=rows)


def _reproduce(report: Report) -> Section:
    return Section(anchor="reproduce", title="How to reproduce", code=report.command)


def settings(config: dict[str, Any], prefix: str = "") -> list[str]:
    """`{"keep": {"ffn": 0.5}} -> ["keep.ffn = 0.5"]`."""
    flat = []
    for name, value in config.items():
        if isinstance(value, dict):
            flat += settings(value, f"{prefix}{name}.")
        else:
            flat.append(f"{prefix}{name} = {_flat(value)}")
    return flat


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return MISSING if value is None else str(value)

"""Everything a report says below its table, as headings, lines and grids: Markdown and HTML draw the same."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from compress.report.format import MISSING, duration, number, percent, precise, relevant_flags, run_lengths
from compress.result import Report, SkippedNode

_NODES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Section:
    anchor: str
    title: str
    lines: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    code: str = ""  # a command, verbatim


def sections(report: Report) -> list[Section]:
    """Sections that have something to say, in the order of a reader's doubts."""
    drawn = [
        _gates(report),
        _noise(report),
        _coverage(report),
        _skipped(report),
        _widths(report),
        _recovery(report),
        _stages(report),
        _splits(report),
        _files(report),
        _environment(report),
        _reproduce(report),
    ]
    return [section for section in drawn if section.lines or section.rows or section.code]


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
    return tuple(str(line) for line in _list(report.notes.get("noise")))


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
    for each in skipped:
        groups[each.reason].append(each.node)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def _shortened(nodes: list[str]) -> str:
    more = len(nodes) - _NODES_SHOWN
    return ", ".join(nodes[:_NODES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _widths(report: Report) -> Section:
    kinds = list(dict.fromkeys(kind for variant in report.variants for kind in variant.widths))
    rows = [
        (v.name, *(run_lengths(v.widths.get(kind, ())) or MISSING for kind in kinds))
        for v in report.variants
        if v.widths
    ]
    return Section(anchor="widths", title="Widths per layer", header=("variant", *kinds), rows=rows)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Loss by step; a loss is None where it was not taken."""

    steps: list[float]
    train_loss: list[float | None]
    select_loss: list[float | None]


def curve(report: Report) -> Curve | None:
    """The recovery's training curve, cut to the shortest of its lists; None where there is none."""
    notes = report.notes.get("recover")
    steps = _list(notes.get("steps")) if isinstance(notes, dict) else []
    if not isinstance(notes, dict) or not steps:
        return None
    losses = [_list(notes.get(name)) or [None] * len(steps) for name in ("train_loss", "select_loss")]
    length = min(len(steps), *map(len, losses))
    return Curve(steps=steps[:length], train_loss=losses[0][:length], select_loss=losses[1][:length])


def _recovery(report: Report) -> Section:
    found = curve(report) or Curve(steps=[], train_loss=[], select_loss=[])
    rows = []
    for name, losses in (("train", found.train_loss), ("select", found.select_loss)):
        points = [(loss, step) for loss, step in zip(losses, found.steps, strict=True) if loss is not None]
        if points:
            shown = (points[0], min(points), points[-1])
            rows.append((name, *(f"{number(loss)} at step {step}" for loss, step in shown)))
    header = ("loss", "first", "lowest", "last")
    return Section(anchor="recovery", title="Recovery", header=header, rows=rows)


def _stages(report: Report) -> Section:
    rows = [
        (stage.name, duration(stage.seconds), "reused" if stage.reused else "computed", stage.digest[:12])
        for stage in report.stages
    ]
    header = ("stage", "time", "result", "digest")
    return Section(anchor="stages", title="Where the time went", header=header, rows=rows)


def _splits(report: Report) -> Section:
    rows = [
        (name, str(split.examples), MISSING if split.requested is None else str(split.requested),
         split.fingerprint)
        for name, split in report.splits.items()
    ]  # fmt: skip
    header = ("split", "examples", "requested", "fingerprint")
    return Section(anchor="splits", title="Data splits", header=header, rows=rows)


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
    command = str(report.notes.get("command", ""))
    return Section(anchor="reproduce", title="How to reproduce", code=command)


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

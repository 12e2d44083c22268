"""Everything a report says below its table, as headings, lines and grids: Markdown and HTML draw the same."""

from collections.abc import Iterator
from typing import Any

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
from compress.report.pruning import pruning_sections
from compress.report.quantization import quantization_sections
from compress.report.section import Section
from compress.report.tasks import tasks
from compress.report.timing import timing_sections
from compress.report.tuning import tuning_section
from compress.schema.report import Report, Split

_ONE_SIDED = 0.025  # the level that belongs to one end of a 95 % interval


def sections(report: Report) -> list[Section]:
    """Sections that have something to say, in the order of a reader's doubts."""
    drawn = [
        _noninferiority(report),
        *(section for task in tasks() for section in task.sections(report)),
        _gates(report),
        tuning_section(report),
        *timing_sections(report),
        *quantization_sections(report),
        *pruning_sections(report),
        _recovery(report),
        _stages(report),
        _splits(report),
        _files(report),
        _environment(report),
        Section("reproduce", "How to reproduce", code=report.command),
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
    title = "Not worse than the budget allows"
    return Section("noninferiority", title, header, rows, lines if tests else ())


def _gates(report: Report) -> Section:
    rows = [
        (
            gate.name,
            "passed" if gate.passed else "FAILED",
            ", ".join(f"{name} {precise(value)}" for name, value in gate.numbers.items()),
        )
        for gate in report.gates
    ]
    return Section("gates", "Gates", ("gate", "result", "numbers"), rows)


def curves(report: Report) -> dict[str, list[tuple[int, float]]]:
    """train and select -> step and loss where one was taken, up to the end of the shortest of the lists."""
    if (recovery := report.recovery) is None:
        return {}
    losses = {"train": recovery.train_loss, "select": recovery.select_loss}
    shortest = min((len(taken) for taken in (recovery.steps, *losses.values()) if taken), default=0)
    steps = recovery.steps[:shortest]
    points = {
        name: [(step, loss) for step, loss in zip(steps, taken, strict=False) if loss is not None]
        for name, taken in losses.items()
    }
    return {name: taken for name, taken in points.items() if taken}


def _recovery(report: Report) -> Section:
    rows = []
    for name, points in curves(report).items():
        shown = (points[0], min(points, key=lambda point: (point[1], point[0])), points[-1])
        rows.append((name, *(f"{number(loss)} at step {step}" for step, loss in shown)))
    return Section("recovery", "Recovery", ("loss", "first", "lowest", "last"), rows)


def _stages(report: Report) -> Section:
    rows = [
        (stage.name, duration(stage.seconds),
         MISSING if stage.peak_memory_bytes is None else megabytes(stage.peak_memory_bytes),
         "reused" if stage.reused else "computed", stage.digest[:12])
        for stage in report.stages
    ]  # fmt: skip
    header = ("stage", "time", "peak memory, MB", "result", "digest")
    return Section("stages", "Where the time went", header, rows, tuple(_memory_lines(report)))


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
         _nearly(split), _uses(split), split.fingerprint)
        for name, split in report.splits.items()
    ]  # fmt: skip
    header = ("split", "examples", "requested", "near-duplicates", "looked at", "fingerprint")
    return Section("splits", "Data splits", header, rows, tuple(_split_lines(report)))


def _nearly(split: Split) -> str:
    repeats = split.near_duplicates
    return MISSING if repeats is None else f"{repeats.examples} ({percent(repeats.share)})"


def _uses(split: Split) -> str:
    uses = split.looks
    return MISSING if uses is None else f"{_times(uses.looks)}, {_models(uses.models)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count} models"


def _split_lines(report: Report) -> Iterator[str]:
    used = [split.looks for split in report.splits.values() if split.looks]
    if used:
        most = max(used, key=lambda uses: uses.looks)
        advice = ": the best of several by these numbers seems better than it is" if most.models > 1 else ""
        yield (
            f"This test split has been looked at {_times(most.looks)} on this machine, for "
            f"{_models(most.models)} beside the dense one{advice}."
        )
    for name, split in report.splits.items():
        yield from _cut_lines(name, split)
        repeats = split.near_duplicates
        if repeats and repeats.examples:
            yield (
                f"{repeats.examples} of {split.examples} examples of {name} nearly repeat a sentence of "
                f"another split (Jaccard similarity of at least {repeats.limit:g}). The most alike, "
                f"{number(repeats.similarity)}: {repeats.text} | {repeats.other} ({repeats.other_split})"
            )


def _cut_lines(name: str, split: Split) -> Iterator[str]:
    if (cut := split.cut) and cut.cut:
        words = f", so that {cut.unread} of {cut.words} words get no tag" if cut.words else ""
        yield (
            f"{cut.cut} of {cut.texts} texts of {name} ({percent(cut.cut / cut.texts)}) are longer than the "
            f"{cut.limit} tokens that the model reads: their rest is left out{words}."
        )


def _files(report: Report) -> Section:
    rows = [(v.name, v.stage, duration(v.seconds), v.path, v.sha256[:16]) for v in report.variants]
    header = ("variant", "made by", "in", "path", "sha256, first 16 digits")
    return Section("files", "Files measured", header, rows)


def _environment(report: Report) -> Section:
    rows = []
    for name, value in report.environment.items():
        if name == "isa_flags":
            value = relevant_flags([str(flag) for flag in _list(value)])
        rows.append((name.replace("_", " "), _flat(value)))
    return Section("environment", "Environment", ("what", "value"), rows)


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

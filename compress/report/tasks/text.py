"""What the reports say of models of text with a head: labels, thresholds, examples."""

from collections.abc import Iterator

from compress.report.format import interval, number
from compress.report.section import Section, best_variant
from compress.schema.details import MovedThreshold, TextDetails
from compress.schema.report import Report, Variant

PARTS_SHOWN = 20


def sections(report: Report) -> list[Section]:
    return [_answers(report), _parts(report), _thresholds(report), _changed(report)]


def summary(report: Report) -> list[str]:
    """What became of the kept variant's answers, a sentence each; empty for what is no such model."""
    best, dense = best_variant(report), report.variants[0]
    sentences = []
    if best.text is not None and best is not dense:
        sentences.append(
            f"{best.text.lost} {'example is' if best.text.lost == 1 else 'examples are'} answered worse "
            f"than by {dense.name}, {best.text.gained} better."
        )
    if best.text is not None and best.text.parts and best is not dense:
        worst = best.text.parts[0]
        sentences.append(
            f"What lost the most is {worst.name}: its {best.text.metric} dropped by "
            f"{interval(worst.drop.value, worst.drop.ci95)} to {number(worst.value)}."
        )
    moved = max(_moved(best), key=lambda each: abs(each.variant - each.dense), default=None)
    if moved is not None and best is not dense:
        sentences.append(
            f"The probability from which on a text counts as {moved.name} moved from {number(moved.dense)} "
            f"to {number(moved.variant)}; keeping it where it was costs {number(moved.cost)} of F1."
        )
    return sentences


def _answers(report: Report) -> Section:
    rows = [
        (variant.name, str(details.lost), str(details.gained))
        for variant, details in _with_details(report)
        if variant is not report.variants[0]
    ]
    best = best_variant(report)
    return Section(
        anchor="text-answers",
        title="Examples against the dense model",
        lines=tuple(summary(report)) if best.text is not None and rows else (),
        header=("variant", "answered worse", "answered better"),
        rows=rows,
    )


def _parts(report: Report) -> Section:
    """A row per label or kind of entity, the one in which the kept variant lost the most first."""
    best, shown = best_variant(report), _with_details(report)
    parts = best.text.parts[:PARTS_SHOWN] if best.text else ()
    values = [{part.name: part.value for part in details.parts} for _, details in shown]
    rows = [
        (
            part.name,
            str(part.examples),
            *(number(of[part.name]) if part.name in of else "" for of in values),
            interval(part.drop.value, part.drop.ci95),
        )
        for part in parts
    ]
    more = len(best.text.parts) - PARTS_SHOWN if best.text else 0
    return Section(
        anchor="parts",
        title=f"{best.text.metric} by label" if best.text else "",
        lines=(f"{more} more lost less.",) if more > 0 else (),
        header=("label", "in test", *(variant.name for variant, _ in shown), f"drop of {best.name}"),
        rows=rows,
    )


def _thresholds(report: Report) -> Section:
    rows = [
        (variant.name, moved.name, number(moved.dense), number(moved.variant), number(moved.cost))
        for variant in report.variants[1:]
        for moved in _moved(variant)
    ]
    line = (
        "The probability from which on a text counts as of a label, by the highest F1 on every other example "
        "of test; what it costs to keep the dense model's, by the examples between."
    )
    return Section(
        anchor="thresholds",
        title="Thresholds",
        lines=(line,) if rows else (),
        header=("variant", "label", "of dense", "own", "F1 that dense's costs"),
        rows=rows,
    )


def _changed(report: Report) -> Section:
    dense, best = report.variants[0], best_variant(report)
    changed = best.text.changed if best.text else ()
    line = f"Of the examples that {best.name} answers otherwise than {dense.name}, the worse ones first."
    return Section(
        anchor="changed-texts",
        title="Examples whose answer changed",
        lines=(line,) if changed else (),
        header=("example of test", "text", "expected", dense.name, best.name),
        rows=[(str(each.example), each.text, each.expected, each.dense, each.variant) for each in changed],
    )


def _with_details(report: Report) -> list[tuple[Variant, TextDetails]]:
    return [(variant, variant.text) for variant in report.variants if variant.text is not None]


def _moved(variant: Variant) -> Iterator[MovedThreshold]:
    for details in (variant.text, variant.classification):
        yield from details.thresholds if details is not None else ()

"""What the reports say of a classifier's answers: which classes and which single examples changed."""

from collections.abc import Iterator, Sequence

from compress.report.format import MISSING, interval, number, p_value
from compress.report.section import Picture, Section, best_variant
from compress.schema.details import ChangedAnswer, ClassificationDetails
from compress.schema.report import Report, Variant

CLASSES_SHOWN = 20


def sections(report: Report) -> list[Section]:
    return [_answers(report), _classes(report), _confusions(report), _changed(report)]


def summary(report: Report) -> list[str]:
    """What became of the kept variant's answers, a sentence each; empty for what is no classifier."""
    best, dense = best_variant(report), report.variants[0]
    details = best.classification
    if details is None:
        return []
    sentences = []
    if best is not dense:
        p = p_value(details.mcnemar_p)
        equal_p = p if p.startswith("<") else f"= {p}"
        sentences.append(
            f"{details.lost} {'example' if details.lost == 1 else 'examples'} went from right to wrong, "
            f"{details.gained} from wrong to right (McNemar's exact test: p {equal_p})."
        )
        worst = details.per_class[0]
        sentences.append(
            f"The class that lost the most is {worst.name}: its accuracy dropped by "
            f"{interval(worst.drop.value, worst.drop.ci95)} to {number(worst.accuracy)}."
            if worst.drop.value > 0
            else "No class lost accuracy."
        )
    before = dense.classification
    beside = f", where {dense.name} has {number(before.ece)}" if before and best is not dense else ""
    sentences.append(f"The expected calibration error is {number(details.ece)}{beside}.")
    return sentences


def _answers(report: Report) -> Section:
    dense = report.variants[0]
    rows = [
        (variant.name, number(details.ece), *(_against(details) if variant is not dense else (MISSING,) * 5))
        for variant, details in _classified(report)
    ]
    lines = (
        *summary(report),
        "Calibration error: how far the confidence of an answer is from the share of answers that are right, "
        "over 15 bins of confidence. The worst class was picked from all of them, so chance alone makes it "
        "look bad; its interval does not allow for that.",
    )
    header = (
        *("variant", "calibration error", "right to wrong", "wrong to right", "McNemar p"),
        *("worst class", "its drop in accuracy"),
    )
    return Section(
        anchor="answers",
        title="Answers against the dense model",
        lines=lines if rows else (),
        header=header,
        rows=rows,
    )


def _against(details: ClassificationDetails) -> tuple[str, ...]:
    worst = details.per_class[0]
    drop = interval(worst.drop.value, worst.drop.ci95)
    return (str(details.lost), str(details.gained), p_value(details.mcnemar_p), worst.name, drop)


def _classes(report: Report) -> Section:
    """A row per class, the one in which the kept variant lost the most first."""
    classified, best = _classified(report), best_variant(report)
    accuracies = [
        {dropped.name: dropped.accuracy for dropped in details.per_class} for _, details in classified
    ]
    every = best.classification.per_class if best.classification else ()
    rows = [
        (
            dropped.name,
            str(dropped.examples),
            *(number(of[dropped.name]) if dropped.name in of else MISSING for of in accuracies),
            *([] if best is report.variants[0] else [interval(dropped.drop.value, dropped.drop.ci95)]),
        )
        for dropped in every[:CLASSES_SHOWN]
    ]
    more = len(every) - CLASSES_SHOWN
    drop = () if best is report.variants[0] else (f"drop of {best.name}",)
    return Section(
        anchor="classes",
        title="Accuracy by class",
        lines=(f"{more} more classes lost less.",) if more > 0 else (),
        header=("class", "examples", *(variant.name for variant, _ in classified), *drop),
        rows=rows,
    )


def _confusions(report: Report) -> Section:
    dense, best = report.variants[0], best_variant(report)
    confusions = best.classification.confusions if best.classification else ()
    rows = [
        (
            confusion.label,
            confusion.answer,
            str(confusion.dense),
            str(confusion.variant),
            f"{confusion.variant - confusion.dense:+d}",
        )
        for confusion in confusions
    ]
    lines = (f"Wrong answers whose number changed the most from {dense.name} to {best.name}.",)
    return Section(
        anchor="confusions",
        title="Confusions that changed",
        lines=lines if rows else (),
        header=("label", "answer", dense.name, best.name, "change"),
        rows=rows,
    )


def _changed(report: Report) -> Section:
    dense, best = report.variants[0], best_variant(report)
    changed = best.classification.changed if best.classification else ()
    texts = any(each.text for each in changed)
    lines = (
        f"Of the test examples whose answer changed from {dense.name} to {best.name}: those that went wrong "
        "first, evenly spread over the set. In brackets the confidence of each answer.",
    )
    return Section(
        anchor="changed",
        title="Examples whose answer changed",
        lines=lines if changed else (),
        header=("example of test", *(("text",) if texts else ()), "label", dense.name, best.name),
        rows=[
            (str(each.example), *((each.text,) if texts else ()), each.label, *_sure(each))
            for each in changed
        ],
        pictures=list(_pictures([answer for answer in changed if answer.png], dense, best)),
    )


def _sure(changed: ChangedAnswer) -> tuple[str, str]:
    return (
        f"{changed.dense} ({100 * changed.dense_confidence:.0f} %)",
        f"{changed.answer} ({100 * changed.confidence:.0f} %)",
    )


def _pictures(answers: Sequence[ChangedAnswer], dense: Variant, best: Variant) -> Iterator[Picture]:
    for changed in answers:
        was, now = _sure(changed)
        lines = (changed.label, f"{dense.name}: {was}", f"{best.name}: {now}", f"example {changed.example}")
        yield Picture(png=changed.png, lines=lines)


def _classified(report: Report) -> list[tuple[Variant, ClassificationDetails]]:
    return [(v, v.classification) for v in report.variants if v.classification is not None]

"""How well a classifier of texts does: against the labels, and against the dense model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data import HeldOut
from compress.data.class_names import classes_of
from compress.data.record import Record
from compress.graph import graph_path
from compress.graph.gates import check_answers
from compress.metrics.auc import macro_auc
from compress.metrics.classification import changed_answers, confusions, ece, log_softmax, per_class
from compress.metrics.confusion import (
    macro_f1,
    macro_f1_of_several,
    matthews,
    micro_f1_of_several,
    ratio_f1,
)
from compress.metrics.correlations import Kind as CorrelationKind
from compress.metrics.correlations import correlation, paired_correlation_drop
from compress.metrics.influence import paired_drop
from compress.metrics.quality import Quality, Scored
from compress.metrics.statistics import mcnemar
from compress.models.checkpoint import read_config
from compress.schema.details import ChangedText, ClassificationDetails, PartScore, TextDetails
from compress.tasks.text.answers import answers
from compress.tasks.text.comparison import (
    Comparison,
    Example,
    brief,
    details,
    examples_of,
    groups_of,
    moved_thresholds,
)
from compress.tasks.text.kind import Kind
from compress.tasks.text.processor import text_of
from compress.tasks.text_classification.options import TextClassification
from compress.tasks.text_classification.processor import kind_of, open_processor

Floats = NDArray[np.float64]
Groups = NDArray[np.int64]
_SCORES = "logits.npy"
CORRELATIONS: tuple[CorrelationKind, ...] = ("spearman", "pearson")
_PRIMARY = {Kind.classes: "accuracy", Kind.labels: "micro_f1", Kind.values: "spearman"}


def score(config: TextClassification, model: Scored, dense: Scored, held_out: HeldOut) -> None:
    """Write `logits.npy` [texts, labels] of the examples of a split, each read alone, as the dense checkpoint
    says.

    Raises ModelError for another kind of graph and GateError for a model whose logits are broken.
    """
    path, processor = graph_path(model.graph), open_processor(dense.checkpoint)
    rows = processor.encode(examples_of(held_out))
    found = answers(path, processor, [[row] for row in rows], ["logits"], there=model.there)
    logits = np.concatenate([each["logits"] for each in found])
    check_answers(logits, path.name, "logits", "text")
    np.save(model.scores / _SCORES, logits)


def compare(
    config: TextClassification, model: Scored, dense: Scored, held_out: HeldOut
) -> tuple[Quality, dict[str, Any]]:
    """Quality of what `score` wrote of a model beside what it wrote of the dense one, and scores by example:
    labels, logits of both.

    Fidelity is how often both models answer alike, and the divergence KL(dense || model) (nats). Without
    labels that is all there is.
    """
    examples = examples_of(held_out)
    before, after = (np.load(of.scores / _SCORES).astype(np.float64) for of in (dense, model))
    kind, groups = kind_of(read_config(dense.checkpoint)), groups_of(examples)
    found = Comparison(config, np.array_equal(before, after))
    found.nearness("agreement", alike(kind, before, after), groups, 1.0)
    found.nearness("kl", divergence(kind, before, after), groups, 0.0)
    by_example: dict[str, Any] = {"dense": before, "small": after}
    if (labels := labels_of(examples)) is None:
        return found.result(config.primary, "agreement"), by_example
    by_example["labels"] = labels
    asked = Asked(examples, classes_of(dense.checkpoint), before, after, labels, groups)
    classification, text = None, None
    if kind is Kind.classes:
        classification = _one_label(found, asked)
    elif kind is Kind.labels:
        text = _labels(found, asked)
    else:
        text = _values(found, asked)
    quality = found.result(config.primary, _PRIMARY[kind], text=text)
    return replace(quality, classification=classification), by_example


@dataclass(frozen=True)
class Asked:
    examples: Sequence[Example]
    names: tuple[str, ...]  # of the labels
    dense: Floats  # logits [texts, labels], as the next
    small: Floats
    labels: Floats  # [texts, 1 or labels]
    groups: Groups  # [texts]

    @property
    def both(self) -> tuple[Floats, Floats]:
        return self.dense, self.small

    def text(self, row: int) -> str:
        read = text_of(self.examples[row])
        return brief(read if isinstance(read, str) else " | ".join(read))


def _one_label(found: Comparison, asked: Asked) -> ClassificationDetails:
    """Of texts with one label each."""
    truth, names, groups = asked.labels[:, 0].astype(np.int64), asked.names, asked.groups
    logs = [log_softmax(each) for each in asked.both]
    said = [each.argmax(1) for each in logs]
    right = [each == truth for each in said]
    nll = [-each[np.arange(len(truth)), truth] for each in logs]
    found.mean("accuracy", [each.astype(float) for each in right], groups)
    found.statistic("macro_f1", [macro_f1(each, truth) for each in said], groups)
    found.statistic("mcc", [matthews(each, truth) for each in said], groups, low=-1.0)
    if len(np.unique(truth)) > 1:
        found.statistic("auc", [macro_auc(each, truth) for each in logs], groups)
    found.loss("nll", nll, groups)
    rows = np.arange(len(truth))
    changed = changed_answers(asked.dense, asked.small, truth, names, rows, lambda row: "")
    binary = [np.exp(each[:, 1:]) for each in logs] if len(names) == 2 else []
    moved = moved_thresholds(names[1:], binary, truth[:, None] == 1) if binary else ()
    return ClassificationDetails(
        lost=int((right[0] & ~right[1]).sum()),
        gained=int((right[1] & ~right[0]).sum()),
        mcnemar_p=mcnemar(right[0], right[1]),
        ece=ece(logs[1], truth),
        per_class=per_class(right[0], right[1], truth, names),
        confusions=confusions(said[0], said[1], truth, names),
        changed=tuple(replace(each, text=asked.text(each.example)) for each in changed),
        thresholds=tuple(moved),
    )


def _labels(found: Comparison, asked: Asked) -> TextDetails:
    """Of texts that may have several labels."""
    truth, names, groups = asked.labels > 0, asked.names, asked.groups
    said = [each > 0 for each in asked.both]
    nll = [np.logaddexp(0, np.where(truth, -each, each)).sum(1) for each in asked.both]
    share = [(each == truth).mean(1) for each in said]
    found.statistic("micro_f1", [micro_f1_of_several(each, truth) for each in said], groups)
    found.statistic("macro_f1", [macro_f1_of_several(each, truth) for each in said], groups)
    found.mean("accuracy", [(each == truth).all(1).astype(float) for each in said], groups)
    found.loss("nll", nll, groups)

    def parts() -> Iterator[PartScore]:
        for number in np.flatnonzero(truth.any(0)):
            true = truth[:, number]
            first, second = (
                ratio_f1(*(of.astype(np.int64) for of in (each[:, number] & true, each[:, number], true)))
                for each in said
            )
            drop = paired_drop(first, second, groups)
            examples = int(true.sum())
            yield PartScore(name=names[number], examples=examples, value=second.value, drop=drop)

    def change(row: int) -> ChangedText:
        listed = [
            ", ".join(name for name, has in zip(names, of[row], strict=True) if has) or "none"
            for of in (truth, *said)
        ]
        return ChangedText(
            example=row, text=asked.text(row), expected=listed[0], dense=listed[1], variant=listed[2]
        )

    moved = moved_thresholds(names, [_sigmoid(each) for each in asked.both], truth)
    return details(share, change, "F1", parts(), moved)


def _values(found: Comparison, asked: Asked) -> TextDetails:
    truth, values = asked.labels[:, 0], [each[:, 0] for each in asked.both]
    for name in CORRELATIONS:
        drop = paired_correlation_drop(name, values[0], values[1], truth)
        found.add(name, correlation(name, values[1], truth), drop)

    def change(row: int) -> ChangedText:
        told = [f"{of[row]:.3g}" for of in (truth, *values)]
        return ChangedText(
            example=row, text=asked.text(row), expected=told[0], dense=told[1], variant=told[2]
        )

    near = [-np.abs(each - truth) for each in values]
    return details(near, change)


def labels_of(examples: Sequence[Example]) -> Floats | None:
    """[texts, labels of each]; None where a text has none."""
    given = [example.labels for example in examples if isinstance(example, Record) and example.labels]
    return np.array(given, np.float64) if len(given) == len(examples) else None


def alike(kind: Kind, dense: Floats, small: Floats) -> Floats:
    """[texts]: 1 where both say the same; of values how near they are: 1 - |difference| / spread."""
    if kind is Kind.classes:
        return np.asarray((dense.argmax(1) == small.argmax(1)).astype(np.float64))
    if kind is Kind.labels:
        return np.asarray(((dense > 0) == (small > 0)).mean(1))
    return np.asarray(1 - np.abs(dense - small).mean(1) / max(float(dense.std()), 1e-30))


def divergence(kind: Kind, dense: Floats, small: Floats) -> Floats:
    """[texts]: KL(dense || small) in nats, summed over labels; of values the squared difference."""
    if kind is Kind.values:
        return np.asarray(np.square(dense - small).sum(1))
    if kind is Kind.classes:
        before, after = (log_softmax(each) for each in (dense, small))
        return np.asarray((np.exp(before) * (before - after)).sum(1))
    share = _sigmoid(dense)
    yes = np.logaddexp(0, -small) - np.logaddexp(0, -dense)
    no = np.logaddexp(0, small) - np.logaddexp(0, dense)
    return np.asarray((share * yes + (1 - share) * no).sum(1))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))

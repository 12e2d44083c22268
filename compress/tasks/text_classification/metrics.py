"""How well a classifier of texts does: against the labels, and against the dense model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data import HeldOut
from compress.data.record import Record
from compress.graph import graph_path
from compress.graph.gates import check_answers
from compress.metrics.classification import log_softmax
from compress.metrics.quality import Quality, Scored
from compress.metrics.statistics import Kind as StatisticsKind
from compress.metrics.statistics import correlation, paired_correlation_drop
from compress.models.checkpoint import read_config
from compress.tasks.text.answers import answers
from compress.tasks.text.comparison import Comparison, Example, examples_of, groups_of
from compress.tasks.text.kind import Kind
from compress.tasks.text_classification.options import TextClassification
from compress.tasks.text_classification.processor import kind_of, open_processor

Floats = NDArray[np.float64]
_SCORES = "logits.npy"
CORRELATIONS: tuple[StatisticsKind, ...] = ("spearman", "pearson")
_PRIMARY = {Kind.classes: ("accuracy",), Kind.labels: ("accuracy",), Kind.values: ("spearman",)}


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
    kind = kind_of(read_config(dense.checkpoint))
    found, groups = Comparison(config), groups_of(examples)
    found.nearness("agreement", alike(kind, before, after), groups, 1.0)
    found.nearness("kl", divergence(kind, before, after), groups, 0.0)
    by_example: dict[str, Any] = {"dense": before, "small": after}
    if (labels := labels_of(examples)) is not None:
        by_example["labels"] = labels
        against_labels(found, config, kind, before, after, labels, groups)
    return found.result(config.primary, *_PRIMARY[kind], "agreement"), by_example


def against_labels(
    found: Comparison,
    config: TextClassification,
    kind: Kind,
    before: Floats,
    after: Floats,
    labels: Floats,
    groups: NDArray[np.int64],
) -> None:
    if kind is Kind.values:
        truth = labels[:, 0]
        for name in CORRELATIONS:
            score = correlation(name, after[:, 0], truth)
            found.add(name, score, paired_correlation_drop(name, before[:, 0], after[:, 0], truth))
        return
    right, nll = ([of(kind, each, labels) for each in (before, after)] for of in (_right, _nll))
    found.mean("accuracy", right[0], right[1], groups)
    found.mean("nll", nll[0], nll[1], groups, higher_is_better=False)


def _right(kind: Kind, logits: Floats, labels: Floats) -> Floats:
    """[texts]: 1 where the answer, or that to every label, is right."""
    if kind is Kind.classes:
        return np.asarray((logits.argmax(1) == labels[:, 0]).astype(np.float64))
    return np.asarray(((logits > 0) == (labels > 0)).all(1).astype(np.float64))


def _nll(kind: Kind, logits: Floats, labels: Floats) -> Floats:
    """[texts]: nats of the right answer."""
    if kind is Kind.classes:
        return np.asarray(-log_softmax(logits)[np.arange(len(labels)), labels[:, 0].astype(int)])
    return np.asarray(np.logaddexp(0, np.where(labels > 0, -logits, logits)).sum(1))


def labels_of(examples: list[Example]) -> Floats | None:
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
    share = 1 / (1 + np.exp(-dense))
    yes = np.logaddexp(0, -small) - np.logaddexp(0, -dense)
    no = np.logaddexp(0, small) - np.logaddexp(0, dense)
    return np.asarray((share * yes + (1 - share) * no).sum(1))

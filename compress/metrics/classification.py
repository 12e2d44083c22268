"""From the logits of two classifiers to every metric, and to what became of classes and examples. Pure."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compress.config.evaluate import Classification
from compress.metrics.quality import Quality
from compress.metrics.statistics import (
    accuracy,
    mcnemar,
    mean_interval,
    paired_accuracy_drop,
    paired_mean_drop,
)
from compress.schema.details import ChangedAnswer, ClassDrop, ClassificationDetails, Confusion
from compress.schema.estimates import Estimate

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
ECE_BINS = 15
SHOWN = 12  # changed answers
_MANY_CLASSES = 10  # from which on the five likeliest are of interest


def judge(
    config: Classification,
    dense: Floats,
    small: Floats,
    labels: Labels,
    classes: tuple[str, ...],
) -> Quality:
    """From the logits [n, classes] of both models to every metric. Pure."""
    draws, seed = config.resamples, config.seed
    before, after = log_softmax(dense), log_softmax(small)
    right = {"dense": before.argmax(1) == labels, "small": after.argmax(1) == labels}
    rows = np.arange(len(labels))
    nll = {"dense": -before[rows, labels], "small": -after[rows, labels]}
    quality = {"accuracy": accuracy(right["small"])}
    drops = {"accuracy": paired_accuracy_drop(right["dense"], right["small"])}
    if len(classes) > _MANY_CLASSES:
        top = {n: _among_top(found, labels, 5) for n, found in (("dense", before), ("small", after))}
        quality["top5_accuracy"] = accuracy(top["small"])
        drops["top5_accuracy"] = paired_accuracy_drop(top["dense"], top["small"])
    quality["nll"] = mean_interval(nll["small"], higher_is_better=False, resamples=draws, seed=seed)
    drops["nll"] = paired_mean_drop(
        nll["dense"], nll["small"], higher_is_better=False, resamples=draws, seed=seed
    )
    agree = before.argmax(1) == after.argmax(1)
    kl = (np.exp(before) * (before - after)).sum(1)
    fidelity = {
        "agreement": accuracy(agree),
        "kl": mean_interval(kl, higher_is_better=False, resamples=draws, seed=seed),
    }
    drops["agreement"] = paired_accuracy_drop(np.ones_like(agree), agree)
    drops["kl"] = paired_mean_drop(np.zeros_like(kl), kl, higher_is_better=False, resamples=draws, seed=seed)
    if np.array_equal(dense, small):  # the dense model itself: nothing that another sample could tell
        drops = dict.fromkeys(drops, Estimate(value=0.0, ci95=(0.0, 0.0)))
    classification = ClassificationDetails(
        lost=int((right["dense"] & ~right["small"]).sum()),
        gained=int((right["small"] & ~right["dense"]).sum()),
        mcnemar_p=mcnemar(right["dense"], right["small"]),
        ece=ece(after, labels),
        per_class=per_class(right["dense"], right["small"], labels, classes),
        confusions=confusions(before.argmax(1), after.argmax(1), labels, classes),
    )
    return Quality(
        primary=config.primary,
        quality=quality,
        fidelity=fidelity,
        drop_from_dense=drops,
        classification=classification,
    )


def log_softmax(values: Floats) -> Floats:
    shifted = values - values.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def ece(log_probabilities: Floats, labels: Labels, bins: int = ECE_BINS) -> float:
    """Expected calibration error (Guo et al. 2017): mean distance of confidence and accuracy over bins of
    equal width."""
    confidence = np.exp(log_probabilities.max(1))
    right = log_probabilities.argmax(1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    weight = np.bincount(which, minlength=bins)
    gap = np.bincount(which, confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / max(1, weight.sum()))


def per_class(
    dense: NDArray[np.bool_], small: NDArray[np.bool_], labels: Labels, classes: tuple[str, ...]
) -> tuple[ClassDrop, ...]:
    """Accuracy on each class that has examples, the one that lost the most first."""
    rows = []
    for number, name in enumerate(classes):
        of_class = labels == number
        if of_class.any():
            before, after = dense[of_class], small[of_class]
            drop = paired_accuracy_drop(before, after)
            count, right = int(of_class.sum()), float(after.mean())
            rows.append(ClassDrop(name=name, examples=count, accuracy=right, drop=drop))
    return tuple(sorted(rows, key=lambda row: -row.drop.value))


def confusions(
    dense: Labels, small: Labels, labels: Labels, classes: tuple[str, ...]
) -> tuple[Confusion, ...]:
    """Confusions (label, answer) whose count changed the most, at most ten."""
    n = len(classes)
    counts = [np.bincount(labels * n + answer, minlength=n * n).reshape(n, n) for answer in (dense, small)]
    change = counts[1] - counts[0]
    np.fill_diagonal(change, 0)
    order = np.argsort(-np.abs(change), axis=None, kind="stable")[:10]
    pairs = [(int(i // n), int(i % n)) for i in order]
    was, now = (count.tolist() for count in counts)
    return tuple(
        Confusion(label=classes[a], answer=classes[b], dense=was[a][b], variant=now[a][b])
        for a, b in pairs
        if change[a, b]
    )


def _among_top(log_probabilities: Floats, labels: Labels, count: int) -> NDArray[np.bool_]:
    best = np.argpartition(-log_probabilities, count, axis=1)[:, :count]
    return np.asarray((best == labels[:, None]).any(1))


def changed_answers(
    dense: Floats,
    small: Floats,
    labels: Labels,
    classes: tuple[str, ...],
    examples: Labels,
    picture: Callable[[int], str],
) -> tuple[ChangedAnswer, ...]:
    """What `pick` picks, by the logits [n, classes] of both models.

    `examples` [n]: what each is counted as in its split. `picture`: row -> PNG in base64.
    """
    dense, small = log_softmax(dense), log_softmax(small)
    return tuple(
        ChangedAnswer(
            example=int(examples[row]),
            label=classes[labels[row]],
            dense=classes[dense[row].argmax()],
            dense_confidence=float(np.exp(dense[row].max())),
            answer=classes[small[row].argmax()],
            confidence=float(np.exp(small[row].max())),
            png=picture(row),
        )
        for row in pick(dense.argmax(1), small.argmax(1), labels)
    )


def pick(dense: Labels, small: Labels, labels: Labels) -> list[int]:
    """At most `SHOWN` rows: answers [n] that went from right to wrong, where there are fewer also those
    from wrong to right, then those from one wrong answer to another; of each kind evenly spread, since
    the images of a folder lie class by class."""
    moved = dense != small
    chosen: list[int] = []
    for kind in (dense == labels, small == labels, (dense != labels) & (small != labels)):
        rows = np.flatnonzero(moved & kind)
        count = min(len(rows), SHOWN - len(chosen))
        chosen += [int(row) for row in rows[np.arange(count) * len(rows) // max(1, count)]]
    return chosen

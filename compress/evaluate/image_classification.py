"""How well a classifier of images does: against the labels, and against the dense model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from compress.config.data import Split
from compress.config.evaluate import ImageClassification
from compress.data import load_images
from compress.errors import DataError, ModelError
from compress.evaluate.changed_answers import changed_answers
from compress.evaluate.quality import Dense, Quality, save_quality
from compress.evaluate.statistics import (
    accuracy,
    mcnemar,
    mean_interval,
    paired_accuracy_drop,
    paired_mean_drop,
)
from compress.graph.gates import check_answers
from compress.graph.session import open_session
from compress.models.preprocessing import pixel_values, read_preprocessing
from compress.schema.report import ClassDrop, ClassificationDetails, Confusion, Estimate

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_SCORES = "logits.npy"
BATCH = 64
ECE_BINS = 15
_MANY_CLASSES = 10  # from which on the five likeliest are of interest


def evaluate(
    config: ImageClassification,
    dense: Dense,
    graph: Path,
    student: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Score one model, unless it is the dense one, and `compare` it; both read by the dense checkpoint."""
    scores = dense.scores
    if not dense.is_in(graph):
        score(config, graph, dense.checkpoint, splits_folder, out, split, samples)
        scores = out
    compare(config, dense.scores, scores, splits_folder, out, split, samples)


def score(
    config: ImageClassification,
    graph: Path,
    checkpoint: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Write `logits.npy` [images, classes] of one model to `out`, of every image of a split.

    Raises ModelError for another kind of graph and GateError for a model whose logits are broken.
    """
    splits, model = load_images(splits_folder), graph / "model.onnx"
    images = (splits.test if split is Split.test else splits.select).images
    preprocessing = read_preprocessing(checkpoint)
    session = _session(model)
    batch = 1 if _scales_by_batch(model) else BATCH
    logits = []
    for start in range(0, len(images), batch):
        pixels = pixel_values(images[start : start + batch], preprocessing)
        logits.append(session.run(["logits"], {"pixel_values": pixels})[0])
    found = np.concatenate(logits)
    check_logits(found, len(splits.classes), model.name)
    np.save(out / _SCORES, found)


def compare(
    config: ImageClassification,
    dense_scores: Path,
    scores: Path,
    splits_folder: Path,
    out: Path,
    split: Split,
    samples: int | None,
) -> None:
    """Compare two folders that `score` wrote, of the dense model and of another.

    Writes `quality.json` (see `load_quality`) and `scores.npz` (per image: label, and logits of both) to the
    folder `out`. Quality is top-1 accuracy and the negative log likelihood (nats); fidelity is the share of
    images on which both models give the same answer, and the divergence KL(dense || model) (nats);
    `classification` is what became of single classes and images. `samples` limits the images, evenly spread.

    Raises DataError for a split without images.
    """
    splits = load_images(splits_folder)
    held_out = splits.test if split is Split.test else splits.select
    rows = _spread(len(held_out.labels), samples)
    if len(rows) < 2:
        raise DataError(f"the {split.value} split has too few images", found=len(rows), allowed=2)
    labels = held_out.labels[rows]
    dense, small = (np.load(path / _SCORES)[rows].astype(np.float64) for path in (dense_scores, scores))
    found = judge(config, dense, small, labels, splits.classes)
    changed = changed_answers(
        log_softmax(dense), log_softmax(small), labels, splits.classes, held_out.images[rows], rows
    )
    assert found.classification is not None
    found = replace(found, classification=replace(found.classification, changed=changed))
    np.savez(out / "scores.npz", allow_pickle=False, labels=labels, dense=dense, small=small, rows=rows)
    save_quality(found, out)


def judge(
    config: ImageClassification,
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
    """Accuracy on each class that has images, the one that lost the most first."""
    rows = []
    for number, name in enumerate(classes):
        of_class = labels == number
        if of_class.any():
            before, after = dense[of_class], small[of_class]
            drop = paired_accuracy_drop(before, after)
            images, right = int(of_class.sum()), float(after.mean())
            rows.append(ClassDrop(name=name, images=images, accuracy=right, drop=drop))
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


def check_logits(found: NDArray[Any], classes: int, name: str) -> None:
    if found.ndim != 2 or found.shape[1] != classes:
        raise ModelError(
            f"{name} does not give one logit a class", found=f"shape {found.shape}", allowed=f"(n, {classes})"
        )
    check_answers(found, name, "logits", "image")


def _among_top(log_probabilities: Floats, labels: Labels, count: int) -> NDArray[np.bool_]:
    best = np.argpartition(-log_probabilities, count, axis=1)[:, :count]
    return np.asarray((best == labels[:, None]).any(1))


def _spread(total: int, count: int | None) -> Labels:
    count = total if count is None else min(count, total)
    return np.arange(count) * total // max(1, count)


def _scales_by_batch(model: Path) -> bool:
    """Whether activations get one scale a batch, so that an answer depends on the images beside it."""
    graph = onnx.load(model, load_external_data=False).graph
    return any(node.op_type == "DynamicQuantizeLinear" for node in graph.node)


def _session(model: Path) -> InferenceSession:
    session = open_session(model)
    names = [node.name for node in session.get_inputs()], [node.name for node in session.get_outputs()]
    if names != (["pixel_values"], ["logits"]):
        raise ModelError(
            f"{model.name} is no classifier of images",
            found=" -> ".join(map(", ".join, names)),
            allowed="pixel_values -> logits",
        )
    return session

"""How well a classifier of images does: against the labels, and against the dense model."""

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.config.evaluate import ImageClassification
from compress.data import HeldOut
from compress.errors import DataError, ModelError
from compress.graph import graph_path
from compress.graph.gates import check_answers
from compress.graph.session import open_session
from compress.metrics.classification import changed_answers, judge
from compress.metrics.quality import Quality, Scored
from compress.metrics.statistics import spread
from compress.tasks.image_classification.processor import open_processor

_SCORES = "logits.npy"
BATCH = 64
SIDE = 224  # pixels of a picture in the report
BYTES = 32_000  # of a PNG: twelve of them stay below half a megabyte


def score(config: ImageClassification, model: Scored, dense: Scored, held_out: HeldOut) -> None:
    """Write `logits.npy` [images, classes] of every image of a split, read as the dense checkpoint says.

    Raises ModelError for another kind of graph and GateError for a model whose logits are broken.
    """
    path, images = graph_path(model.graph), held_out.part.images
    session = open_session(path)
    names = [node.name for node in session.get_inputs()], [node.name for node in session.get_outputs()]
    if names != (["pixel_values"], ["logits"]):
        raise ModelError(
            f"{path.name} is no classifier of images",
            found=" -> ".join(map(", ".join, names)),
            allowed="pixel_values -> logits",
        )
    batches = open_processor(dense.checkpoint).batches(images, 1 if _scales_by_batch(path) else BATCH)
    if model.there is None:
        parts = [session.run(["logits"], inputs)[0] for inputs in batches]
    else:
        parts = [given["logits"] for given in model.there(path, batches)]
    logits = np.concatenate(parts)
    check_logits(logits, len(held_out.splits.classes), path.name)
    np.save(model.scores / _SCORES, logits)


def compare(
    config: ImageClassification, model: Scored, dense: Scored, held_out: HeldOut
) -> tuple[Quality, dict[str, Any]]:
    """Quality of what `score` wrote of a model beside what it wrote of the dense one, and scores by image:
    label, logits of both, number in the split.

    Quality is top-1 accuracy and the negative log likelihood (nats); fidelity is the share of images on
    which both models give the same answer, and the divergence KL(dense || model) (nats); `classification`
    is what became of single classes and images.

    Raises DataError for a split without images.
    """
    part, classes = held_out.part, held_out.splits.classes
    rows = spread(len(part.labels), held_out.samples)
    if len(rows) < 2:
        raise DataError(f"the {held_out.split.value} split has too few images", found=len(rows), allowed=2)
    labels, images = part.labels[rows], part.images[rows]
    before, after = (np.load(of.scores / _SCORES)[rows].astype(np.float64) for of in (dense, model))
    quality = judge(config, before, after, labels, classes)
    changed = changed_answers(before, after, labels, classes, rows, lambda row: png(images[row]))
    assert quality.classification is not None
    quality = replace(quality, classification=replace(quality.classification, changed=changed))
    return quality, {"labels": labels, "dense": before, "small": after, "rows": rows}


def check_logits(logits: NDArray[Any], classes: int, name: str) -> None:
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ModelError(
            f"{name} does not give one logit a class",
            found=f"shape {logits.shape}",
            allowed=f"(n, {classes})",
        )
    check_answers(logits, name, "logits", "image")


def _scales_by_batch(model: Path) -> bool:
    """Whether activations get one scale a batch, so that an answer depends on the images beside it."""
    graph = onnx.load(model, load_external_data=False).graph
    return any(node.op_type == "DynamicQuantizeLinear" for node in graph.node)


def png(image: NDArray[np.uint8]) -> str:
    """An image [height, width, channels] as PNG in base64, shrunk until it has at most `SIDE` pixels a side
    and `BYTES` bytes. Of anything but RGB the first channel is shown, as grey."""
    from PIL import Image

    picture, side = Image.fromarray(image if image.shape[2] == 3 else image[..., 0]), SIDE
    while True:
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= BYTES:
            return base64.b64encode(buffer.getvalue()).decode()
        side //= 2

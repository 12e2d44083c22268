"""Images to which the smaller model gives another answer than the dense one, small enough for a report."""

import base64
import io

import numpy as np
from numpy.typing import NDArray

from compress.schema.report import ChangedAnswer

SHOWN = 12
SIDE = 224  # pixels
BYTES = 32_000  # of a PNG: twelve of them stay below half a megabyte
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def changed_answers(
    dense: Floats,
    small: Floats,
    labels: Labels,
    classes: tuple[str, ...],
    images: NDArray[np.uint8],
    examples: Labels,
) -> tuple[ChangedAnswer, ...]:
    """What `pick` picks of `images` [n, height, width, channels].

    `dense`, `small`: log probabilities [n, classes] of both models. `examples` [n]: what each image is
    counted as in its split.
    """
    return tuple(
        ChangedAnswer(
            example=int(examples[row]),
            label=classes[labels[row]],
            dense=classes[dense[row].argmax()],
            dense_confidence=float(np.exp(dense[row].max())),
            answer=classes[small[row].argmax()],
            confidence=float(np.exp(small[row].max())),
            png=png(images[row]),
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

"""Calibration examples, a batch at a time: texts, or images with their labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.models import Model


@dataclass(frozen=True)
class Labelled:
    images: NDArray[np.uint8]  # [n, height, width, channels]
    labels: NDArray[np.int64]  # [n]

    def first(self, count: int) -> "Labelled":
        return Labelled(self.images[:count], self.labels[:count])

    def batches(self, model: Model, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        labels = torch.from_numpy(self.labels)
        for number, inputs in enumerate(model.batches(self.images, size)):
            yield inputs, labels[number * size : (number + 1) * size]


Examples = Sequence[str] | Labelled


def inputs_of(model: Model, examples: Examples, size: int) -> Iterator[dict[str, Tensor]]:
    """Batches of at most `size`."""
    return model.batches(examples.images if isinstance(examples, Labelled) else examples, size)

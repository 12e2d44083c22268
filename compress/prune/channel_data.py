"""Labelled images, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.families.image_classifier import ImageClassifier


@dataclass(frozen=True)
class Labelled:
    images: NDArray[np.uint8]  # [n, height, width, channels]
    labels: NDArray[np.int64]  # [n]

    def first(self, count: int) -> "Labelled":
        return Labelled(self.images[:count], self.labels[:count])

    def batches(self, model: ImageClassifier, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        labels = torch.from_numpy(self.labels)
        for number, inputs in enumerate(model.batches(self.images, size)):
            yield inputs, labels[number * size : (number + 1) * size]

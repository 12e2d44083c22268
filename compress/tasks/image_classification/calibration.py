"""What a classifier of images is pruned by: images and their labels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.config.prune import TransformerPrune
from compress.data.images import load_images
from compress.models.device import computing, moved
from compress.tasks.base import Model
from compress.tasks.calibration import Batches


@dataclass(frozen=True)
class LabelledImages(Batches):
    model: Model
    images: NDArray[np.uint8]  # [n, height, width, channels]
    labels: NDArray[np.int64]  # [n]
    batch_size: int = 64

    def first(self, count: int) -> "LabelledImages":
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def batches(self) -> Iterator[dict[str, Tensor]]:
        return self.model.batches(self.images, self.batch_size)

    def labelled(self, size: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Inputs of each batch with its labels."""
        labels = torch.split(torch.from_numpy(self.labels), size)
        return zip(self.model.batches(self.images, size), labels, strict=True)

    def losses(self) -> Iterator[Tensor]:
        """Cross-entropy of the labels."""
        with computing(self.model.module) as device:
            for inputs, labels in self.labelled(self.batch_size):
                logits = self.model.run(moved(inputs, device))
                yield nn.functional.cross_entropy(logits, labels.to(device), reduction="sum")

    @staticmethod
    def distance(outputs: Tensor, dense: Tensor) -> Tensor:
        return kl_divergence(outputs, dense)


def open_calibration(model: Model, splits: Path, config: TransformerPrune) -> LabelledImages:
    images = load_images(splits).calibration
    return LabelledImages(model, images.images, images.labels, config.batch_size)


def kl_divergence(logits: Tensor, dense: Tensor) -> Tensor:
    """KL(dense || logits) in nats, of (batch, classes) each: (batch)."""
    answers, wanted = (nn.functional.log_softmax(values, -1) for values in (logits, dense))
    return nn.functional.kl_div(answers, wanted, log_target=True, reduction="none").sum(-1)

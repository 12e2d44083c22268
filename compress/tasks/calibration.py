"""What a model is pruned by: examples of its task, one batch after another.

They give losses, one a batch and summed over its examples, to be differentiated before the next is computed;
moments of what the readers of each transformer layer read in the model as it was at the first; and distances
of the model without a layer from what it is now.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from compress.models.device import computing, moved
from compress.models.moments import Moments, observing, unseen
from compress.tasks.base import Model

Readers = Sequence[Sequence[nn.Linear]]  # of every transformer layer, in order
# Layers -> how far the model without each of them is from the dense one.
Distances = Callable[[Sequence[int]], Mapping[int, float]]


class Calibration(Protocol):
    @property
    def tokens(self) -> int | None:
        """How many there are, where the report says it."""

    def losses(self) -> Iterator[Tensor]:
        """The next is computed when the one before was differentiated."""

    def moments(self, readers: Readers) -> Iterator[Mapping[nn.Linear, Moments]]:
        """Of the layers in turn."""

    def distances(self) -> Distances: ...


class Batches(ABC):
    """Examples that all layers see in one pass, as `model` reads them."""

    model: Model
    tokens = None

    @abstractmethod
    def batches(self) -> Iterator[dict[str, Tensor]]: ...

    @staticmethod
    @abstractmethod
    def distance(outputs: Tensor, dense: Tensor) -> Tensor:
        """Of (batch, ...) each: (batch)."""

    @torch.no_grad()
    def moments(self, readers: Readers) -> Iterator[Mapping[nn.Linear, Moments]]:
        """Padding does not count."""
        moments = unseen(linear for linears in readers for linear in linears)
        mask: list[Tensor | None] = [None]
        with observing(moments, mask), computing(self.model.module) as device:
            for batch in self.batches():
                batch = moved(batch, device)
                mask[0] = batch["attention_mask"].bool() if "attention_mask" in batch else None
                self.model.run(batch)
        return iter([moments] * len(readers))

    @torch.no_grad()
    def distances(self) -> Distances:
        """By the mean `distance` of each output from the dense model's, which is `model` as it is now."""

        def outputs() -> Iterator[Tensor]:
            with computing(self.model.module) as device:
                for batch in self.batches():
                    yield self.model.run(moved(batch, device)).cpu()

        dense = list(outputs())

        @torch.no_grad()
        def distances(candidates: Sequence[int]) -> dict[int, float]:
            far = {}
            for index in candidates:
                with self.model.stack.without_layer(index):
                    pairs = zip(outputs(), dense, strict=True)
                    far[index] = float(torch.cat([self.distance(*pair) for pair in pairs]).mean())
            return far

        return distances


def accumulate(module: nn.Module, losses: Iterator[Tensor]) -> None:
    """Sum their gradients, in the weights: what Taylor importance reads."""
    module.zero_grad()
    with torch.enable_grad():
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]

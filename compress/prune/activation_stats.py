"""First and second moments of what flows into a layer, over real tokens only."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.models import Model
from compress.prune.examples import Examples, inputs_of


class Moments:
    """Running sums of x and x x^T over all tokens of all batches, in float64.

    Products are taken in float32, of x less the mean of the first batch: channels whose mean is large
    beside their spread would lose it.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.shift = torch.zeros(width)
        self.total = torch.zeros(width, dtype=torch.float64)
        self.product = torch.zeros(width, width, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """`x`: (tokens, width)."""
        if self.count == 0:
            self.shift = x.mean(0)
        x = x - self.shift
        self.count += len(x)
        self.total += x.sum(0, dtype=torch.float64)
        self.product += (x.T @ x).double()

    def mean(self) -> Tensor:
        return self.shift + self.total / self.count

    def covariance(self) -> Tensor:
        mean = self.total / self.count
        return self.product / self.count - torch.outer(mean, mean)


@contextmanager
def observing(modules: Iterable[nn.Module], mask: list[Tensor | None]) -> Iterator[dict[nn.Module, Moments]]:
    """Collect moments of the first input of each module; `mask[0]` says which tokens are real (None: all)."""
    moments: dict[nn.Module, Moments] = {}

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        real = mask[0]
        x = args[0].detach().flatten(0, -2) if real is None else args[0].detach()[real]
        moments.setdefault(module, Moments(x.shape[-1])).add(x)

    handles = [module.register_forward_pre_hook(look) for module in modules]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def collect(
    model: Model, modules: Iterable[nn.Module], examples: Examples, batch_size: int
) -> dict[nn.Module, Moments]:
    mask: list[Tensor | None] = [None]
    with observing(modules, mask) as moments:
        for batch in inputs_of(model, examples, batch_size):
            mask[0] = batch["attention_mask"].bool() if "attention_mask" in batch else None
            model.run(batch)
    return moments

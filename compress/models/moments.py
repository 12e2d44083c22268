"""First and second moments of what flows into a layer."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.hooks import hooked


class Moments:
    """Running sums of x and x x^T over all tokens of all batches, in float64.

    Products are taken in float32; with `shifted`, of x less the mean of the first batch: channels whose mean
    is large beside their spread would lose it.
    """

    def __init__(self, width: int, shifted: bool = True) -> None:
        self.count = 0
        self.shifted = shifted
        self.shift = torch.zeros(width)
        self.total = torch.zeros(width, dtype=torch.float64)
        self.product = torch.zeros(width, width, dtype=torch.float64)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """`x`: (tokens, width)."""
        if self.shifted:
            if self.count == 0:
                self.shift = x.mean(0).cpu()
            x = x - self.shift.to(x.device)
        self.count += len(x)
        self.total += x.sum(0, dtype=torch.float64).cpu()
        self.product += (x.T @ x).cpu()

    def mean(self) -> Tensor:
        return self.shift + self.total / self.count

    def covariance(self) -> Tensor:
        mean = self.total / self.count
        return self.product / self.count - torch.outer(mean, mean)

    def second(self) -> Tensor:
        """E[x x^T], not centred."""
        if not self.shifted:
            return self.product / self.count
        mean = self.mean()
        return self.covariance() + torch.outer(mean, mean)


@contextmanager
def observing(moments: Mapping[nn.Linear, Moments], mask: list[Tensor | None]) -> Iterator[None]:
    """Add the first input of each layer to its moments; `mask[0]` says which tokens are real (None: all)."""

    def add(linear: nn.Linear, args: tuple[Any, ...]) -> None:
        x, real = args[0].detach(), mask[0]
        moments[linear].add(x.flatten(0, -2) if real is None else x[real])

    with hooked(linear.register_forward_pre_hook(add) for linear in moments):
        yield


def unseen(linears: Iterable[nn.Linear]) -> dict[nn.Linear, Moments]:
    """Moments of each layer's inputs before any is seen; shifted where a bias can take the mean over."""
    return {linear: Moments(linear.in_features, linear.bias is not None) for linear in linears}

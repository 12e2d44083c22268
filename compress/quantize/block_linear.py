"""Linear layers in blocks whose scales learn: their codes stay as they were rounded."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from compress.quantize.blocks import Blocks


class BlockLinear(nn.Module):
    """A linear layer with the weights of `blocks`, which fill its rows to the end.

    `shares` (rows, blocks) multiply the scales and are all that learns, and all of its state: as each starts
    at 1, one learning rate fits layers of every size.
    """

    steps: Tensor  # codes less zero points (rows, blocks, size)
    scales: Tensor  # (rows, blocks)
    bias: Tensor | None

    def __init__(self, blocks: Blocks, bias: Tensor | None) -> None:
        super().__init__()
        codes = blocks.codes.view(*blocks.scales.shape, blocks.size)
        steps = codes.short() - blocks.zeros[..., None]  # of 8 bits -255 to 255, of 4 bits -15 to 15
        self.register_buffer("steps", steps.to(torch.int8) if blocks.bits < 8 else steps, persistent=False)
        self.register_buffer("scales", blocks.scales, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        self.shares = nn.Parameter(torch.ones_like(blocks.scales))

    def learned(self) -> Tensor:
        """Scales (rows, blocks)."""
        return (self.scales * self.shares).detach()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y: Tensor = _Product.apply(x, self.steps, self.scales * self.shares)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias


class _Product(Function):
    """x (..., columns) times the weight (rows, columns). The steps wait for the way back, a byte or two a
    weight, where autograd would keep them and the weight in floats."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(x, steps, scales)
        return x @ _weight(steps, scales, x.dtype).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        (of_y,), (x, steps, scales) = gradients, ctx.saved_tensors
        of_weight = (of_y.flatten(0, -2).T @ x.flatten(0, -2)).float()
        of_scales = (of_weight.view_as(steps) * steps).sum(-1)
        return of_y @ _weight(steps, scales, x.dtype), None, of_scales


def _weight(steps: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return (steps * scales[..., None]).flatten(1).to(dtype)


class Gain(nn.Module):
    """Factors (channels,) of what `linears` read: `fixed` ones times `shares`, which learn."""

    fixed: Tensor

    def __init__(self, linears: Iterable[nn.Module], fixed: Tensor) -> None:
        super().__init__()
        self.register_buffer("fixed", fixed, persistent=False)
        self.shares = nn.Parameter(torch.ones_like(fixed))
        for linear in linears:
            linear.register_forward_pre_hook(lambda _, args: (args[0] * (self.fixed * self.shares),))

    def learned(self) -> Tensor:
        """Factors (channels,)."""
        return (self.fixed * self.shares).detach()

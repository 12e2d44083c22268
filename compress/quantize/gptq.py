"""GPTQ: round a weight, and let those of the row that are not rounded yet make up for the error.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR
2023 (https://arxiv.org/abs/2210.17323). Inputs are taken by their size, the largest first, as its authors'
code does with `act_order`; scales and zero points, those of onnxruntime's MatMulNBits, are found before.
"""

import torch
from torch import Tensor

from compress.config.quantize import Clip
from compress.quantize.blocks import Blocks, block_codes, block_grid, padded

_LAZY = 128  # columns between two updates of all that follow


def gptq(
    weight: Tensor, second_moment: Tensor, bits: int, size: int, clip: Clip = Clip.hessian, damp: float = 0.01
) -> Blocks:
    """Codes of `weight` (rows, columns) that keep its outputs, for inputs with E[x x^T] = `second_moment`.

    On SmolLM2 it lost to rounding to nearest until the clip was weighted by the second moment's diagonal.
    `damp` times the mean of that diagonal is added to it. Time: rows * columns^2 + columns^3.
    """
    rows, columns = weight.shape
    left = padded(weight.detach().float(), size).clone()
    width = left.shape[1]
    upper, importance, order = _factor(second_moment, width, damp)
    if clip is not Clip.hessian:
        importance = torch.ones_like(importance)
    scales, zeros = (torch.empty(rows, width // size) for _ in range(2))
    for here in range(width // size):
        block = slice(here * size, (here + 1) * size)
        scales[:, here], zeros[:, here] = block_grid(
            left[:, block], bits, clip is not Clip.none, importance[None, block]
        )
    codes = torch.empty_like(left)
    left = left[:, order]
    for begin in range(0, width, _LAZY):
        end = min(begin + _LAZY, width)
        errors = torch.zeros(rows, end - begin)
        for i in range(begin, end):
            here = int(order[i]) // size
            scale, zero = scales[:, here], zeros[:, here]
            code = block_codes(left[:, i, None], scale, zero, bits)[:, 0]
            error = (left[:, i] - (code - zero) * scale) / upper[i, i]
            left[:, i:end] -= torch.outer(error, upper[i, i:end])
            errors[:, i - begin] = error
            codes[:, order[i]] = code
        left[:, end:] -= errors @ upper[begin:end, end:]
    return Blocks(
        codes=codes.to(torch.uint8),
        scales=scales,
        zeros=zeros.to(torch.uint8),
        bits=bits,
        size=size,
        columns=columns,
    )


def _factor(second_moment: Tensor, width: int, damp: float) -> tuple[Tensor, Tensor, Tensor]:
    """Upper triangle U with U^T U = (damped moment)^-1, its inputs in the order of the third result; the
    damped diagonal in its own order. Identity beyond the moment's width."""
    columns = len(second_moment)
    h = torch.eye(width, dtype=torch.float64)
    h[:columns, :columns] = second_moment
    diagonal = second_moment.diagonal().double()
    dead = diagonal <= 0  # an input that is always zero: any weight is as good
    h.diagonal()[:columns] += torch.where(dead, 1.0, damp * diagonal.mean())
    importance = h.diagonal().float()
    order = h.diagonal().argsort(descending=True, stable=True)
    # One after the other under one name: of a 7B model each is 3 GB.
    h = h[order]
    h = h[:, order]
    h = torch.linalg.cholesky(h)
    h = torch.cholesky_inverse(h)
    return torch.linalg.cholesky(h, upper=True).float(), importance, order

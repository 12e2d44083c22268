"""Weights in 4- or 8-bit blocks: each run of `size` weights of a row has its own scale and zero point.

The layout is that of onnxruntime's MatMulNBits: weight = (code - zero) * scale, integer zero points.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

SIZES = (16, 32, 64, 128, 256)  # weights of a block, as MatMulNBits allows
# A narrower range than from the smallest to the largest weight has finer steps; the best is searched.
_SHARES = torch.linspace(0.7, 1.0, 31)
_TINY = 1e-10
_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A matrix (rows, columns) in integers; columns are filled up with zeros to whole blocks."""

    codes: Tensor  # uint8 (rows, blocks * size)
    scales: Tensor  # float32 (rows, blocks)
    zeros: Tensor  # uint8 (rows, blocks)
    bits: int
    size: int
    columns: int

    def weight(self) -> Tensor:
        """float32 (rows, columns)"""
        steps = self.codes.view(len(self.codes), -1, self.size) - self.zeros[..., None].float()
        return (steps * self.scales[..., None]).flatten(1)[:, : self.columns]


def block_bytes(rows: int, columns: int, bits: int, size: int) -> int:
    """What a matrix takes in the file: codes, 4 bytes a scale, packed zero points."""
    blocks = -(-columns // size)
    return rows * (blocks * size * bits // 8 + 4 * blocks + -(-blocks * bits // 8))


def block_grid(
    weight: Tensor, bits: int, clip: bool = False, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and zero point (float32, integer values) of each block, weight (..., size) -> twice (...).

    With `clip` the range with the least sum of `importance` (..., size; 1 by default) * error^2.
    """
    low, high = weight.amin(-1).clamp(max=0), weight.amax(-1).clamp(min=0)
    best = torch.full_like(low, float("inf"))
    scale, zero = torch.ones_like(low), torch.zeros_like(low)
    for share in _SHARES.flip(0).tolist() if clip else [1.0]:
        step = ((high - low) * share / (2**bits - 1)).clamp(min=_TINY)
        origin = torch.round(-low * share / step).clamp(0, 2**bits - 1)
        squares = (rounded(weight, step, origin, bits) - weight).square()
        error = (squares if importance is None else squares * importance).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        scale, zero = torch.where(better, step, scale), torch.where(better, origin, zero)
    return scale, zero


def block_codes(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Nearest codes, as floats; weight (..., size), scale and zero (...)."""
    return torch.round(weight / scale[..., None] + zero[..., None]).clamp(0, 2**bits - 1)


def rounded(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    return (block_codes(weight, scale, zero, bits) - zero[..., None]) * scale[..., None]


def in_blocks(
    weight: Tensor, bits: int, size: int, clip: bool = False, importance: Tensor | None = None
) -> Blocks:
    """Round a matrix (rows, columns) to nearest; `importance` (columns,) weighs the clip's errors.

    A few rows at a time: the search holds several floats for each weight.
    """
    if importance is not None:
        importance = padded(importance.float()[None], size).view(1, -1, size)
    return stacked(
        [_in_blocks(rows, bits, size, clip, importance) for rows in torch.split(weight.detach(), _ROWS)]
    )


def _in_blocks(weight: Tensor, bits: int, size: int, clip: bool, importance: Tensor | None) -> Blocks:
    rows, columns = weight.shape
    blocks = padded(weight.float(), size).view(rows, -1, size)
    scale, zero = block_grid(blocks, bits, clip, importance)
    codes = block_codes(blocks, scale, zero, bits).flatten(1).to(torch.uint8)
    return Blocks(
        codes=codes, scales=scale, zeros=zero.to(torch.uint8), bits=bits, size=size, columns=columns
    )


def padded(matrix: Tensor, size: int) -> Tensor:
    """With zero columns up to a multiple of `size`."""
    return nn.functional.pad(matrix, (0, -matrix.shape[1] % size))


def stacked(parts: list[Blocks]) -> Blocks:
    """Matrices that read the same input as one; of the same columns, bits and size."""
    return replace(
        parts[0],
        codes=torch.cat([part.codes for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        zeros=torch.cat([part.zeros for part in parts]),
    )


def rows_of(blocks: Blocks, start: int, stop: int) -> Blocks:
    rows = slice(start, stop)
    return replace(blocks, codes=blocks.codes[rows], scales=blocks.scales[rows], zeros=blocks.zeros[rows])


def pack(blocks: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For MatMulNBits: codes uint8 (rows, blocks, size * bits / 8), scales float32 (rows, blocks), zero
    points uint8 (rows, ceil(blocks * bits / 8)). Of two 4-bit numbers in a byte the first is the low half.
    """
    rows = len(blocks.codes)
    codes = _joined(blocks.codes.numpy(), blocks.bits).reshape(rows, blocks.scales.shape[1], -1)
    return codes, blocks.scales.numpy(), _joined(blocks.zeros.numpy(), blocks.bits)


def _joined(numbers: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return numbers
    even = np.pad(numbers, ((0, 0), (0, numbers.shape[1] % 2)))
    return np.asarray(even[:, ::2] | even[:, 1::2] << 4, np.uint8)

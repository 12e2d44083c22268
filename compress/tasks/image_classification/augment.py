"""Augmentation of small images, a batch at a time."""

import torch
from torch import Tensor, nn

ERASED = 8  # side of the square


def augment(pixels: Tensor, generator: torch.Generator, shift: int, flip: bool, erase: float) -> Tensor:
    """Shift by up to `shift` pixels, mirror, erase: each of (batch, channels, height, width) its own way.

    Erasing (Zhong et al. 2020, Random Erasing) a square of the share `erase` of the images puts zeros, the
    mean of normalised images.
    """
    pixels = shifted(pixels, torch.randint(0, 2 * shift + 1, (len(pixels), 2), generator=generator), shift)
    if flip:
        mirrored = torch.rand(len(pixels), generator=generator) < 0.5
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    height, width = pixels.shape[2:]
    centre = torch.rand(len(pixels), 2, generator=generator) * torch.tensor([height, width])
    some = torch.rand(len(pixels), generator=generator) < erase
    return pixels.masked_fill(some[:, None, None, None] & squares(centre, height, width)[:, None], 0.0)


def shifted(pixels: Tensor, offsets: Tensor, shift: int) -> Tensor:
    """Windows of the images within `shift` zeros: `offsets` (batch, 2) of rows, columns, 0 to 2 * shift."""
    batch, _, height, width = pixels.shape
    padded = nn.functional.pad(pixels, (shift,) * 4)
    rows = offsets[:, :1] + torch.arange(height)
    columns = offsets[:, 1:] + torch.arange(width)
    of = torch.arange(batch)[:, None, None]
    return padded.permute(0, 2, 3, 1)[of, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def squares(centre: Tensor, height: int, width: int) -> Tensor:
    """(batch, height, width) bool: within ERASED / 2 of `centre` (batch, 2) along both axes."""
    near = [
        (torch.arange(size)[None] - centre[:, axis : axis + 1]).abs() < ERASED / 2
        for axis, size in enumerate((height, width))
    ]
    return near[0][:, :, None] & near[1][:, None, :]

"""How much a model's answers depend on each channel that a linear layer reads.

Fisher information of a gate on the channel at each token: the mean square of d loss / d gate = h dL/dh (Theis
et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018,
https://arxiv.org/abs/1801.05787). What a layer alone shows (`wanda`, `obs`) does not tell which of its errors
the layers behind it forgive.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.hooks import hooked


def information(readers: Sequence[nn.Linear], losses: Iterable[Tensor]) -> dict[nn.Linear, Tensor]:
    """Layer -> (its inputs,), float64, a mean over tokens; `losses` come one after another, each a sum over
    its examples."""
    read: list[tuple[nn.Linear, Tensor]] = []
    information = {reader: torch.zeros(reader.in_features, dtype=torch.float64) for reader in readers}
    tokens = 0

    def note(reader: Any, args: tuple[Any, ...]) -> None:
        read.append((reader, args[0]))

    with hooked(reader.register_forward_pre_hook(note) for reader in readers), torch.enable_grad():
        for loss in losses:
            slopes = torch.autograd.grad(loss, [x for _, x in read])
            for (reader, x), slope in zip(read, slopes, strict=True):
                gate = x.detach().double() * slope.double()
                information[reader] += gate.square().flatten(0, -2).sum(0).cpu()
            tokens += sum(x.shape[:-1].numel() for reader, x in read if reader is readers[0])
            read.clear()
    return {reader: total / tokens for reader, total in information.items()}

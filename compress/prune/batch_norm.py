"""Means and variances of batch normalisation, estimated anew after channels are gone."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def reestimate(module: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> int:
    """Set every layer's statistics to those of `batches`; how many layers there are.

    Cutting channels changes what the layers after them see, and a net judged with the old statistics
    does far worse than it can.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    if not layers:
        return 0
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over the batches
        layer.train()
    try:
        for batch in batches:
            module(**batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    return len(layers)

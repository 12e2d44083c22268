"""How much a language model's answers depend on each channel that a linear layer reads.

Fisher information of a gate on the channel at each token: the mean square of d log p / d gate = h dL/dh, with
tokens drawn from the model's own distribution, so that no labels are needed (Theis et al., "Faster gaze
prediction with dense networks and Fisher pruning", 2018, https://arxiv.org/abs/1801.05787). What a layer
alone shows (`wanda`, `obs`) does not tell which of its errors the layers behind it forgive.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.config.recover import Precision
from compress.models.causal_lm import CausalLM
from compress.training.precision import wants_bfloat16


def information(model: CausalLM, windows: Tensor, readers: Sequence[str]) -> list[dict[str, Tensor]]:
    """Of every decoder layer: path of a linear layer in it -> (its inputs,), float64, a mean over tokens.

    `windows`: (windows, tokens). One window's activations are held.
    """
    layers = model.stack.blocks
    read: dict[tuple[int, str], Tensor] = {}
    found: list[dict[str, Tensor]] = [{} for _ in layers]
    handles = []
    for index, layer in enumerate(layers):
        for name in readers:

            def note(module: nn.Module, args: tuple[Any, ...], key: tuple[int, str] = (index, name)) -> None:
                read[key] = args[0]

            linear: Any = layer.get_submodule(name)
            handles.append(linear.register_forward_pre_hook(note))
            found[index][name] = torch.zeros(linear.in_features, dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    try:
        for window in windows:
            with torch.enable_grad():
                slopes = torch.autograd.grad(_surprise(model, window, random), list(read.values()))
            for (index, name), slope in zip(read, slopes, strict=True):
                each = read[index, name].detach().double() * slope.double()
                found[index][name] += each.square().flatten(0, -2).sum(0)
            read.clear()
    finally:
        for handle in handles:
            handle.remove()
    return [{name: each / windows.numel() for name, each in layer.items()} for layer in found]


def _surprise(model: CausalLM, window: Tensor, random: torch.Generator) -> Tensor:
    """-log p, summed over the window (tokens,), of tokens drawn from what the model itself expects."""
    with torch.autocast("cpu", torch.bfloat16, enabled=wants_bfloat16(Precision.auto)):
        logits = model.module(input_ids=window[None], use_cache=False).logits[0].float()
    drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=random)[:, 0]
    return nn.functional.cross_entropy(logits, drawn, reduction="sum")

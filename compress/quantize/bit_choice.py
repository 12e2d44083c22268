"""Which layers of a language model get 8 bits and which 4.

Sensitivity of layers that read one tensor: KL from the float model to the model with these layers alone in
4 bits, rounded to nearest, over calibration windows. Only the layers from there on are computed again.
Small divergences nearly add up, so 8 bits go where they save the most for their bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from compress.config.quantize import Clip, MixedBlocks
from compress.errors import ConfigError
from compress.models.walk import Walk
from compress.quantize.blocks import block_bytes, in_blocks
from compress.quantize.fidelity import head_divergence
from compress.quantize.language_layers import HEAD, changed_weights, embedding_of, is_tied
from compress.schema.quantization import BitChoice, SensitiveLayers
from compress.tasks.language_modeling.model import CausalLM


def choose(
    sensitive: Sequence[SensitiveLayers], rest_bytes: int, max_size_mb: float | None, max_kl: float | None
) -> BitChoice:
    """8 bits by divergence saved a byte, as far as the size allows and no further than `max_kl` needs.

    `rest_bytes`: of the weights that stay in float.
    Raises ConfigError where not even 4 bits everywhere are small enough.
    """
    size = rest_bytes + sum(group.low_bytes for group in sensitive)
    limit = float("inf") if max_size_mb is None else max_size_mb * 1e6
    if size > limit:
        raise ConfigError(
            "quantize.max_size_mb is below the smallest size",
            found=f"{max_size_mb:g} MB",
            allowed=f"at least {math.ceil(size / 1e4) / 100:g} MB, with 4 bits in every layer",
            next="a larger quantize.block_size is smaller; so is a model pruned before",
        )
    high: set[tuple[str, ...]] = set()
    kl = sum(group.kl for group in sensitive)
    for group in sorted(sensitive, key=lambda group: -group.kl / _price(group)):
        if max_kl is not None and kl <= max_kl:
            break
        if size + _price(group) <= limit:
            size, kl = size + _price(group), kl - group.kl
            high.add(group.names)
    layers = tuple(replace(group, bits=8 if group.names in high else 4) for group in sensitive)
    return BitChoice(size_bytes=size, kl_of_the_sum=max(0.0, kl), layers=layers)


def bits_of(choice: BitChoice) -> dict[str, int]:
    """Layer -> bits."""
    return {name: group.bits for group in choice.layers for name in group.names}


def _price(group: SensitiveLayers) -> int:
    """Bytes that 8 bits take more than 4."""
    return group.high_bytes - group.low_bytes


@torch.no_grad()
def sensitivities(
    model: CausalLM, windows: Tensor, names: Sequence[str], config: MixedBlocks
) -> list[SensitiveLayers]:
    """Of the linear layers `names`, by what they read, in the order in which they compute."""
    walk = Walk(model, windows)
    final = walk.behind(0)
    head = model.linears()[HEAD]
    measured = []
    for index in range(len(walk)):
        for shared in walk.second_moments(index):
            linears = {n: one for n, one in zip(shared.names, shared.linears, strict=True) if n in names}
            if linears:
                importance = shared.moment.diagonal() if config.clip is Clip.hessian else None
                low = partial(_low, config=config, importance=importance)
                with changed_weights(linears.values(), low):
                    kl = head_divergence(head, head.weight, final, walk.behind(index))
                measured.append(_sensitive(linears, kl, config))
        walk.advance(index)
    if HEAD in names:
        measured.append(_head(model, final, windows, config))
    return measured


def _head(model: CausalLM, final: Tensor, windows: Tensor, config: MixedBlocks) -> SensitiveLayers:
    """Of the head, and of the embedding where it is the same matrix."""
    head = model.linears()[HEAD]
    before = head.weight.detach()
    rounded = _low(before, config)
    embedding = embedding_of(model)
    if is_tied(model):
        embedding.data = rounded
        final_low = Walk(model, windows).behind(0)
        embedding.data = before
    else:
        final_low = final
    kl = head_divergence(head, rounded, final, final_low)
    return _sensitive({HEAD: head}, kl, config, 1 if is_tied(model) else 2)


def _low(weight: Tensor, config: MixedBlocks, importance: Tensor | None = None) -> Tensor:
    """Rounded to 4 bits."""
    return in_blocks(weight, 4, config.block_size, config.clip is not Clip.none, importance).weight()


def _sensitive(
    linears: Mapping[str, nn.Linear], kl: float, config: MixedBlocks, copies: int = 1
) -> SensitiveLayers:
    low, high = (
        copies
        * sum(block_bytes(e.out_features, e.in_features, bits, config.block_size) for e in linears.values())
        for bits in (4, 8)
    )
    return SensitiveLayers(names=tuple(linears), bits=4, kl=kl, low_bytes=low, high_bytes=high)

"""Shallower language models: layers leave one by one, that first whose absence changes answers least."""

import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from compress.config.prune import LanguagePrune
from compress.errors import ConfigError
from compress.models.causal_lm import CausalLM
from compress.prune.blocks import Blocks

log = logging.getLogger(__name__)
SHORTLIST = 6  # candidates of each round whose divergence is measured
TOKENS = 8192  # of the calibration text, for it


def layers_left(model: CausalLM, config: LanguagePrune) -> int:
    """Raises ConfigError where too few layers are free to go."""
    before = int(model.config.num_hidden_layers)
    left = max(1, round(before * config.keep.layers))
    free = before - config.protect_first - config.protect_last
    if before - left > max(free, 0):
        raise ConfigError(
            "prune.keep.layers drops more layers than may go",
            found=f"{config.keep.layers}, {before - left} of {before}",
            allowed=f"at most {max(free, 0)}: the first {config.protect_first} and the last "
            f"{config.protect_last} stay (prune.protect_first, prune.protect_last)",
        )
    return left


@torch.no_grad()
def last_hidden(model: CausalLM, windows: Tensor) -> Tensor:
    """What leaves the last layer, before the final norm: (windows, tokens, hidden)."""
    blocks = Blocks(model, windows)
    hidden = blocks.embed(windows)
    for block in blocks:
        for i in range(len(hidden)):
            hidden[i] = blocks.run(block, hidden[i])
    return hidden


@torch.no_grad()
def drop_layers(model: CausalLM, config: LanguagePrune, windows: Tensor, dense: Tensor) -> list[int]:
    """Remove layers greedily; returns their numbers in the model as given, in the order they went.

    `dense`: what leaves the dense model's last layer on `windows`, whose answers are the measure: the mean
    Kullback-Leibler divergence of the shorter model's from them. Block influence, 1 - the mean cosine of
    what enters and what leaves a layer (ShortGPT, Men et al. 2024), only says which layers are tried.
    """
    target = layers_left(model, config)
    numbers = list(range(int(model.config.num_hidden_layers)))
    dropped: list[int] = []
    blocks = Blocks(model, windows)
    while len(blocks) > target:
        free = range(config.protect_first, len(blocks) - config.protect_last)
        influence = block_influence(blocks, windows)
        tried = sorted(sorted(free, key=influence.__getitem__)[:SHORTLIST])
        found = divergences(blocks, windows, dense, tried)
        best = min(tried, key=found.__getitem__)
        log.info("dropped layer %d: KL to dense %.4f nats", numbers[best], found[best])
        drop_layer(model, best)
        dropped.append(numbers.pop(best))
    return dropped


def block_influence(blocks: Blocks, windows: Tensor) -> list[float]:
    total = [0.0] * len(blocks)
    for window in windows:
        hidden = blocks.embed(window[None])[0]
        for i, block in enumerate(blocks):
            after = blocks.run(block, hidden)
            total[i] += float(1 - nn.functional.cosine_similarity(hidden, after).mean())
            hidden = after
    return [each / len(windows) for each in total]


def divergences(
    blocks: Blocks, windows: Tensor, dense: Tensor, candidates: Sequence[int]
) -> dict[int, float]:
    """Candidate -> mean KL(dense || without that layer) in nats a token."""
    total = dict.fromkeys(candidates, 0.0)
    every = list(blocks)
    for window, wanted in zip(windows, dense, strict=True):
        target = blocks.logits(wanted).log_softmax(-1)
        hidden = blocks.embed(window[None])[0]
        for i, block in enumerate(every[: max(candidates) + 1]):
            if i in total:
                without = hidden
                for later in every[i + 1 :]:
                    without = blocks.run(later, without)
                answers = blocks.logits(without).log_softmax(-1)
                kl = nn.functional.kl_div(answers, target, log_target=True, reduction="none").sum(-1)
                total[i] += float(kl.mean()) / len(windows)
            hidden = blocks.run(block, hidden)
    return total


def drop_layer(model: CausalLM, index: int) -> None:
    """Remove one layer; the others are numbered anew, which the cache of keys and values goes by."""
    config, module = model.config, cast(Any, model.module)
    layers = module.model.layers
    del layers[index]
    for number, layer in enumerate(layers):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = number
    config.num_hidden_layers = len(layers)
    for name in ("layer_types", "no_rope_layers"):  # one entry a layer
        each: Any = getattr(config, name, None)
        if each:
            setattr(config, name, [value for i, value in enumerate(each) if i != index])

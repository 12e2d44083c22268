"""Shallower language models: layers leave one by one, that first whose absence changes answers least."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.config.prune import LanguagePrune
from compress.errors import ConfigError
from compress.models.causal_lm import CausalLM
from compress.models.walk import Walk

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
    walk = Walk(model, windows)
    for index in range(len(walk)):
        for window in torch.split(walk.states, 1):
            window.copy_(walk.run(index, window))
    return walk.states


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
    walk = Walk(model, windows)
    while len(walk) > target:
        free = range(config.protect_first, len(walk) - config.protect_last)
        influence = block_influence(walk)
        tried = sorted(sorted(free, key=influence.__getitem__)[:SHORTLIST])
        found = divergences(walk, dense, tried)
        best = min(tried, key=found.__getitem__)
        log.info("dropped layer %d: KL to dense %.4f nats", numbers[best], found[best])
        model.stack.drop_layer(best)
        dropped.append(numbers.pop(best))
    return dropped


def block_influence(walk: Walk) -> list[float]:
    """Of every layer, a mean over the tokens of a walk that has not set out."""
    total = [0.0] * len(walk)
    for states in torch.split(walk.states, 1):
        for i in range(len(walk)):
            after = walk.run(i, states)
            total[i] += float(1 - nn.functional.cosine_similarity(states[0], after[0]).mean())
            states = after
    return [influence / len(walk.states) for influence in total]


def divergences(walk: Walk, dense: Tensor, candidates: Sequence[int]) -> dict[int, float]:
    """Candidate -> mean KL(dense || without that layer) in nats a token; the walk has not set out."""
    total = dict.fromkeys(candidates, 0.0)
    for states, wanted in zip(torch.split(walk.states, 1), dense, strict=True):
        target = walk.logits(wanted).log_softmax(-1)
        for i in range(max(candidates) + 1):
            if i in total:
                without = states
                for later in range(i + 1, len(walk)):
                    without = walk.run(later, without)
                answers = walk.logits(without[0]).log_softmax(-1)
                kl = nn.functional.kl_div(answers, target, log_target=True, reduction="none").sum(-1)
                total[i] += float(kl.mean()) / len(walk.states)
            states = walk.run(i, states)
    return total

"""Fewer layers: they leave one by one, that first whose absence changes the outputs least."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.models.layers import Stack
from compress.models.walk import Layered, Walk
from compress.tasks import Model

log = logging.getLogger(__name__)
SHORTLIST = 6  # candidates of each round whose divergence is measured
TOKENS = 8192  # of the calibration text, for it

# Layers -> how far the model without each of them is from the dense one.
Distances = Callable[[Sequence[int]], Mapping[int, float]]


def drop_layers(stack: Stack, target: int, protected: tuple[int, int], distances: Distances) -> list[int]:
    """Remove layers greedily until `target` are left; returns their numbers in the model as given, in the
    order they went. The first and the last `protected` stay."""
    numbers = list(range(len(stack.blocks)))
    dropped: list[int] = []
    while len(numbers) > target:
        far = distances(range(protected[0], len(numbers) - protected[1]))
        nearest = min(far, key=far.__getitem__)
        log.info("dropped layer %d: distance to dense %.4f", numbers[nearest], far[nearest])
        stack.drop_layer(nearest)
        dropped.append(numbers.pop(nearest))
    return dropped


@torch.no_grad()
def output_distances(
    model: Model,
    batches: Callable[[], Iterable[Mapping[str, Tensor]]],
    distance: Callable[[Tensor, Tensor], Tensor],
) -> Distances:
    """By the mean `distance` of each output from the dense model's, which is `model` as it is now."""
    dense = [model.run(batch) for batch in batches()]

    @torch.no_grad()
    def distances(candidates: Sequence[int]) -> dict[int, float]:
        far = {}
        for index in candidates:
            with model.stack.without_layer(index):
                pairs = zip(map(model.run, batches()), dense, strict=True)
                far[index] = float(torch.cat([distance(output, wanted) for output, wanted in pairs]).mean())
        return far

    return distances


@torch.no_grad()
def answer_distances(model: Layered, windows: Tensor) -> Distances:
    """By the mean Kullback-Leibler divergence, in nats a token, from the dense language model's answers on
    `windows`; `model` is that as it is now.

    Block influence, 1 - the mean cosine of what enters and what leaves a layer (ShortGPT, Men et al. 2024),
    only says which layers are tried.
    """
    windows = windows[: max(1, TOKENS // windows.shape[1])]
    dense, walk = last_hidden(Walk(model, windows)), Walk(model, windows)

    @torch.no_grad()
    def distances(candidates: Sequence[int]) -> dict[int, float]:
        influence = block_influence(walk)
        tried = sorted(sorted(candidates, key=influence.__getitem__)[:SHORTLIST])
        return divergences(walk, dense, tried)

    return distances


def last_hidden(walk: Walk) -> Tensor:
    """What leaves the last layer, before the final norm: (windows, tokens, hidden)."""
    for index in range(len(walk)):
        for window in torch.split(walk.states, 1):
            window.copy_(walk.run(index, window))
    return walk.states


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

"""Structured pruning of convolutional classifiers: torch-pruning finds what is coupled and cuts it."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor

from compress.config.prune import ChannelPrune, ChannelScope
from compress.data.images import load_images
from compress.errors import ConfigError
from compress.prune.batch_norm import reestimate
from compress.prune.channel_importance import importance, prepare
from compress.prune.channel_sensitivity import measure
from compress.prune.pruner import Pruner, check_runs, check_traced, fresh_defaults, torch_pruning_errors
from compress.prune.reload import check_reopened
from compress.prune.sparse import train_sparse
from compress.schema.pruning import PruningSensitivity
from compress.stages.result import write_result
from compress.tasks.image_classification.calibration import LabelledImages
from compress.tasks.image_classification.model import ImageClassifier

log = logging.getLogger(__name__)
BISECTIONS = 12
MISSED = (
    0.1  # share of the products above prune.macs from which on the goal is not reached: widths are rounded
)
_BATCH = 128
History = list[tuple[str, bool, list[int]]]


def prune(config: ChannelPrune, checkpoint: Path, splits: Path, out: Path) -> None:
    """Cut channels, estimate batch normalisation anew, write the checkpoint; with `config.sensitivity`
    also measure cuts into single layers.

    Raises ModelError for a net that torch-pruning cannot trace, ConfigError where a layer would be left
    without channels, and GateError where the checkpoint opened again computes something else.
    """
    model, data = ImageClassifier.open(checkpoint), load_images(splits)
    some = LabelledImages(model, data.calibration.images, data.calibration.labels).first(config.images)
    torch.manual_seed(config.seed)
    before, macs = model.widths(), model.macs()
    if config.sparse_epochs:
        train_sparse(model, config, data, out)
    if config.sensitivity:
        write_result(out, facts={"pruning_sensitivity": sensitivity(model, config, some)})
    seen = data.train.images[: config.batch_norm_images]
    history = cut(model, config, some, lambda: reestimate(model.module, model.batches(seen, _BATCH)))
    model.history = [*model.history, *history]
    after, left = model.widths(), model.macs()
    step = f"pruned ({config.importance.value}, {config.scope.value}): {left / macs:.0%} of the products stay"
    model.save(out, model.facts.after(step))
    check_reopened(model, out, model.inputs(some.first(32).images))
    summary = {"before": before, "after": after, "macs": {"before": macs, "after": left}}
    write_result(out, facts={"pruning": summary})


def cut(
    model: ImageClassifier, config: ChannelPrune, data: LabelledImages, reestimated: Callable[[], object]
) -> History:
    """Prune `model` in place, in `config.steps` rounds; what was cut, by name of layer.

    `reestimated` gives batch normalisation new statistics after every round: by the old ones, the next round
    would judge channels by activations that the net no longer has. Raises ConfigError where far more products
    stay than `config.macs`, which names the layers that kept all channels.
    """
    whole, history = model.macs(), History()
    before = {name: layer.weight.shape for name, layer in model.layers().items()}
    wanted = config.keep if config.macs is None else None
    for number in range(1, config.steps + 1):
        with torch_pruning_errors():
            activations = prepare(config.importance, model, data)
        done = number / config.steps
        if wanted is None:
            assert config.macs is not None
            goal = whole * (1 - done * (1 - config.macs))
            share = share_for_macs(model, config, activations, goal)
        else:  # of what the rounds before left, so that all of them leave what was asked for
            share = (1 - done * (1 - wanted)) / (1 - (done - 1 / config.steps) * (1 - wanted))
            share = min(1.0, share + 1e-6)  # widths are rounded down
        history += cut_once(model, config, activations, share)
        model.module.zero_grad()
        if config.batch_norm_images:
            reestimated()
    if config.macs is not None and (left := model.macs() / whole) > config.macs + MISSED:
        kept = [name for name, layer in model.layers().items() if layer.weight.shape == before[name]]
        raise ConfigError(
            "the products cannot be cut to prune.macs",
            found=f"{left:.0%} stay; nothing was cut from {', '.join(kept[:6]) or 'no layer as a whole'}",
            allowed="channels that normalisation in groups, or prune.round_to, lets go",
            next=f"prune.round_to=1 (now {config.round_to}), prune.scope=local, or a larger prune.macs",
        )
    return history


def cut_once(
    model: ImageClassifier, config: ChannelPrune, activations: Mapping[str, Tensor], share: float
) -> History:
    """One round: this share of the channels stays."""
    with torch_pruning_errors():
        pruner = pruner_of(model, config, activations, share)
        check_traced(model, pruner)
        pruner.step()
        check_runs(model)
    history = pruner.pruning_history()
    if not history and share < 1 - 1e-3:
        whole = ", ".join(list(model.layers())[:6])
        raise ConfigError(
            "pruning found nothing to cut",
            found=f"prune.importance={config.importance.value} prune.round_to={config.round_to} in {whole}",
            next="another importance (bn_scale needs batch normalisation), or a smaller prune.round_to",
        )
    return [(name, bool(of_output), [int(i) for i in indices]) for name, of_output, indices in history]


def pruner_of(
    model: ImageClassifier,
    config: ChannelPrune,
    activations: Mapping[str, Tensor],
    share: float,
    kind: type[tp.BasePruner] = Pruner,
) -> tp.BasePruner:
    """What leaves this share of the channels."""
    net = model.module.net
    return kind(
        net,
        model.example(),
        importance=importance(config.importance, net, activations),
        global_pruning=config.scope is not ChannelScope["local"],
        isomorphic=config.scope is ChannelScope.isomorphic,
        pruning_ratio=1 - share,
        ignored_layers=model.output_layers(),
        round_to=config.round_to,
        **fresh_defaults(),
    )


def sensitivity(model: ImageClassifier, config: ChannelPrune, data: LabelledImages) -> PruningSensitivity:
    """What the model loses by cuts into each group of layers alone, to exact shares of its channels."""
    alone = replace(config, scope=ChannelScope["local"], round_to=1)
    with torch.random.fork_rng(), torch_pruning_errors():
        activations = prepare(config.importance, model, data)
        measured = measure(
            model, lambda share: pruner_of(model, alone, activations, share, tp.BasePruner), data
        )
    model.module.zero_grad()
    return measured


def share_for_macs(
    model: ImageClassifier, config: ChannelPrune, activations: Mapping[str, Tensor], goal: float
) -> float:
    """Share of the channels with which the products come nearest to `goal`, by bisection on copies."""
    low, high = 0.0, 1.0
    tried: dict[float, int] = {1.0: model.macs()}
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        copied = _copy(model)
        try:
            cut_once(copied, config, activations, middle)
            tried[middle] = copied.macs()
        except ConfigError:  # too few
            low = middle
            continue
        low, high = (middle, high) if tried[middle] < goal else (low, middle)
    return min(tried, key=lambda share: (abs(tried[share] - goal), share))


def _copy(model: ImageClassifier) -> ImageClassifier:
    copied: Any = copy.copy(model)
    copied.module = copy.deepcopy(model.module)
    for ours, theirs in zip(model.module.parameters(), copied.module.parameters(), strict=True):
        theirs.grad = ours.grad  # which deepcopy leaves behind
    opened: ImageClassifier = copied
    return opened

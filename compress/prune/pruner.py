"""torch-pruning as it is called here: with a word on what it leaves undone in silence."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from compress.errors import ConfigError, ModelError
from compress.models.hooks import hooked
from compress.tasks.image_classification.model import ImageClassifier


class Pruner(tp.pruner.BasePruner):  # type: ignore[misc]
    """torch-pruning leaves a layer whole that would lose all its channels.

    Here that is an error, unless rounding or a ranking over several layers does it: then `round_to` stay.
    """

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        left = current_channels - n_pruned
        if left == 0 and not self.global_pruning:
            raise ConfigError(
                "a layer would be left without channels",
                found=f"less than one of {current_channels} would stay",
                next="keep more: prune.keep=0.5",
            )
        return current_channels - (left // round_to * round_to or min(round_to, current_channels))


def check_traced(model: ImageClassifier, pruner: tp.pruner.BasePruner) -> None:
    """Raise ModelError where a layer that computes is not in the graph of what is coupled: it would stay."""
    computing: set[nn.Module] = set()
    layers = model.layers()
    hooks = (layer.register_forward_hook(lambda layer, *_: computing.add(layer)) for layer in layers.values())
    with hooked(hooks), torch.no_grad():
        model.module(model.example())
    lost = [name for name, layer in layers.items() if layer in computing - pruner.DG.module2node.keys()]
    if lost:
        raise ModelError(
            "torch-pruning cannot trace this net: no gradient comes to some layers from the logits",
            found=f"{len(lost)} of {len(layers)} layers, e.g. {lost[0]}",
            next="look for detach(), numpy() or no_grad in its forward; prune=none works without",
        )


def check_runs(model: ImageClassifier) -> None:
    """Raise ModelError naming the layer at which the net breaks, now that channels are gone."""
    entered: list[str] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: entered.append(name)

    with hooked(layer.register_forward_pre_hook(enter(name)) for name, layer in model.layers().items()):
        try:
            with torch.no_grad():
                model.module(model.example())
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ModelError(
                f"the net breaks at or behind {''.join(entered[-1:])} when channels are cut",
                found=" ".join(str(error).split())[:300] or type(error).__name__,
                allowed="a forward that fixes no number of channels, nor takes halves of them",
                next="prune=none quantize=int8_static works on any net that can be exported",
            ) from error


def fresh_defaults() -> dict[str, Any]:
    """Arguments in place of its defaults: dicts that all pruners of a process share and write to."""
    return {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}


@contextmanager
def torch_pruning_errors() -> Iterator[None]:
    """Turn what torch-pruning or autograd raise into a ModelError."""
    try:
        with warnings.catch_warnings():
            # Factors of channels that no layer of torch's holds, as in ConvNeXt: it cuts them rightly.
            warnings.filterwarnings("ignore", "Unwrapped parameters", UserWarning)
            yield
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        raise ModelError(
            "torch-pruning cannot trace or cut this net",
            found=" ".join(str(error).split())[:300] or type(error).__name__,
            next="prune=none quantize=int8_static works on any net that can be exported",
        ) from error

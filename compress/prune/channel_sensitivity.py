"""What a net loses by cuts into one group of coupled layers alone, nothing else changed.

The curve of Li et al. 2017 (Pruning Filters for Efficient ConvNets, section 3.2): it shows which layers one
share for all treats too hard. Nothing is estimated or trained anew after a cut, so it ranks the layers and
does not foretell what a finished model loses.
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torch_pruning as tp
from torch import nn

from compress.schema.pruning import ChannelGroup, PrunedAlone, PruningSensitivity
from compress.tasks.image_classification.calibration import LabelledImages
from compress.tasks.image_classification.model import ImageClassifier, replay

KEPT = (0.75, 0.5, 0.25)  # shares of the channels of a group
_BATCH = 128


def measure(
    model: ImageClassifier, pruner: Callable[[float], tp.BasePruner], data: LabelledImages
) -> PruningSensitivity:
    """Cut each group of layers to each of `KEPT` on a copy of `model`, and judge the copy on `data`.

    `pruner` gives for a share what would cut every group of `model` to it; it is asked which channels those
    are, and never cuts. A share that leaves a group whole, or nothing of it, is passed over.
    """
    layers, cuts_of = model.layers(), dict[tuple[str, ...], list[PrunedAlone]]()
    names = {layer: name for name, layer in layers.items()}
    for keep in KEPT:
        chooser = pruner(keep)
        for group in chooser.step(interactive=True):
            root, gone = names[group[0].dep.target.module], [int(i) for i in group[0].idxs]
            module = without_channels(model, root, gone)
            accuracy, cross_entropy = judge(module, data)
            left = len(layers[root].weight) - len(gone)
            cut = PrunedAlone(keep=keep, channels=left, accuracy=accuracy, cross_entropy=cross_entropy)
            cuts_of.setdefault(_coupled(chooser.DG, group, names), []).append(cut)
    groups = [
        ChannelGroup(layer=first, coupled=tuple(rest), channels=len(layers[first].weight), cuts=tuple(cuts))
        for (first, *rest), cuts in cuts_of.items()
    ]
    accuracy, cross_entropy = judge(model.module, data)
    order = list(layers)
    return PruningSensitivity(
        images=len(data.labels),
        accuracy=accuracy,
        cross_entropy=cross_entropy,
        groups=tuple(sorted(groups, key=lambda group: order.index(group.layer))),
    )


def without_channels(model: ImageClassifier, layer: str, channels: Sequence[int]) -> nn.Module:
    """A copy of the module without these output channels of the layer and all that is coupled to them."""
    module = copy.deepcopy(model.module)
    replay(module.net, [(layer, True, list(channels))], model.example())
    return module


@torch.no_grad()
def judge(module: nn.Module, data: LabelledImages) -> tuple[float, float]:
    """Accuracy and mean cross-entropy (nats) of `module`."""
    right, loss = 0, 0.0
    for inputs, labels in data.labelled(_BATCH):
        logits = module(**inputs)
        right += int((logits.argmax(1) == labels).sum())
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return right / len(data.labels), loss / len(data.labels)


def _coupled(
    graph: tp.DependencyGraph, group: tp.Group, names: dict[nn.Conv2d | nn.Linear, str]
) -> tuple[str, ...]:
    """Layers that lose outputs together, in the order of the net."""
    losing = {dep.target.module for dep, _ in group if graph.is_out_channel_pruning_fn(dep.handler)}
    return tuple(name for layer, name in names.items() if layer in losing)

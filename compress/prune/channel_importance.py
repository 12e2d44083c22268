"""How much each channel of a convolutional net matters, in torch-pruning's `Importance` protocol."""

from collections.abc import Mapping

import torch
import torch_pruning as tp
from torch import Tensor, nn

from compress.config.prune import ChannelImportance
from compress.models.hooks import hooked
from compress.tasks.calibration import accumulate
from compress.tasks.image_classification.calibration import LabelledImages
from compress.tasks.image_classification.model import ImageClassifier

HESSIAN_IMAGES = 64  # one backward pass each
_BATCH = 64


class MeanActivation(tp.importance.Importance):  # type: ignore[misc]
    """Mean magnitude of what a channel gives, summed over the coupled layers, each relative to its mean.

    torch-pruning's ActivationImportance keeps the last batch only.
    """

    def __init__(self, means: Mapping[nn.Module, Tensor]) -> None:
        self.means = means

    def __call__(self, group: tp.Group) -> Tensor | None:
        outputs = (
            tp.prune_conv_out_channels,
            tp.prune_depthwise_conv_out_channels,
            tp.prune_linear_out_channels,
        )
        total = None
        for item in group:
            means = self.means.get(item.dep.target.module)
            if item.dep.handler in outputs and means is not None:
                score = (means / means.mean().clamp(min=1e-12))[item.idxs]
                total = score if total is None else total + score
        return total


def prepare(kind: ChannelImportance, model: ImageClassifier, data: LabelledImages) -> dict[str, Tensor]:
    """What the importance needs: gradients, left in the weights, or mean activations by name of layer."""
    model.module.zero_grad()
    if kind is ChannelImportance.taylor:
        accumulate(model.module, data.losses())
    elif kind is ChannelImportance.hessian:
        _mean_squared_gradients(model, data)
    elif kind is ChannelImportance.activation:
        return mean_activations(model, data)
    return {}


def _mean_squared_gradients(model: ImageClassifier, data: LabelledImages) -> None:
    """Into `grad`: torch-pruning's accumulate_grad keeps the last image only."""
    parameters = list(model.module.parameters())
    sums = [torch.zeros_like(p) for p in parameters]
    for inputs, labels in data.first(HESSIAN_IMAGES).labelled(1):
        model.module.zero_grad()
        nn.functional.cross_entropy(model.module(**inputs), labels).backward()  # type: ignore[no-untyped-call]
        for total, parameter in zip(sums, parameters, strict=True):
            if parameter.grad is not None:
                total += parameter.grad.square()
    for total, parameter in zip(sums, parameters, strict=True):
        parameter.grad = total


def mean_activations(model: ImageClassifier, data: LabelledImages) -> dict[str, Tensor]:
    """Name of layer -> mean magnitude of each output channel over all images and places."""
    layers = model.layers()
    sums: dict[nn.Module, Tensor] = {}

    def add(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        channels = output.abs().transpose(0, 1).flatten(1).sum(1)
        sums[layer] = sums.get(layer, torch.zeros_like(channels)) + channels

    with hooked(layer.register_forward_hook(add) for layer in layers.values()), torch.no_grad():
        for inputs, _ in data.labelled(_BATCH):
            model.module(**inputs)
    return {name: sums[layer] / len(data.labels) for name, layer in layers.items() if layer in sums}


_BY_WEIGHTS = {
    ChannelImportance.magnitude: lambda: tp.importance.GroupMagnitudeImportance(p=2),
    ChannelImportance.lamp: lambda: tp.importance.LAMPImportance(p=2),
    ChannelImportance.fpgm: lambda: tp.importance.FPGMImportance(p=2),
    ChannelImportance.bn_scale: tp.importance.BNScaleImportance,
    ChannelImportance.taylor: tp.importance.GroupTaylorImportance,
    ChannelImportance.hessian: tp.importance.GroupHessianImportance,
    ChannelImportance.random: tp.importance.RandomImportance,
}


def importance(
    kind: ChannelImportance, net: nn.Module, activations: Mapping[str, Tensor]
) -> tp.importance.Importance:
    """The importance of this kind for the layers of `net`, whose gradients `prepare` left in the weights."""
    if kind is ChannelImportance.activation:
        named = dict(net.named_modules())
        return MeanActivation({named[name]: means for name, means in activations.items()})
    return _BY_WEIGHTS[kind]()

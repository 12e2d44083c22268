"""Small convolutional classifiers for small images; every width is a number that pruning may change."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016); 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inputs, outputs, 3, stride)
        self.second = _conv(outputs, outputs, 3)
        changes = stride != 1 or inputs != outputs
        self.shortcut = _conv(inputs, outputs, 1, stride) if changes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        inner = self.second(torch.relu(self.first(images)))
        return torch.relu(inner + self.shortcut(images))


class Net(nn.Module):
    """(batch, channels, height, width) -> logits (batch, classes)."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.body(pixel_values), 1)
        return self.head(pooled.flatten(1))  # type: ignore[no-any-return]


def resnet(
    channels: int = 1, classes: int = 10, widths: Sequence[int] = (32, 64, 128), blocks: int = 3
) -> Net:
    """ResNet-(6 * blocks + 2) for small images: three stages of `blocks` residual blocks."""
    layers: list[nn.Module] = [_conv(channels, widths[0], 3), nn.ReLU()]
    before = widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(Residual(before, width, 2 if stage and not block else 1))
            before = width
    return Net(nn.Sequential(*layers), before, classes)


def depthwise(
    channels: int = 1,
    classes: int = 10,
    widths: Sequence[int] = (64, 128, 128, 256, 256, 512),
    strides: Sequence[int] = (1, 2, 1, 2, 1, 2),
) -> Net:
    """Depthwise-separable convolutions (MobileNet, Howard et al. 2017) for small images."""
    layers: list[nn.Module] = [_conv(channels, widths[0], 3), nn.ReLU()]
    before = widths[0]
    for width, stride in zip(widths, strides, strict=True):
        layers += [_conv(before, before, 3, stride, groups=before), nn.ReLU()]
        layers += [_conv(before, width, 1), nn.ReLU()]
        before = width
    return Net(nn.Sequential(*layers), before, classes)


def vit(
    channels: int = 1,
    classes: int = 10,
    side: int = 28,
    patch: int = 4,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    ffn: int = 512,
) -> nn.Module:
    """A small ViT of transformers (Dosovitskiy et al. 2021), which stock transformers loads again."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        image_size=side,
        patch_size=patch,
        num_channels=channels,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        num_labels=classes,
        # Keeps a signal's size through a matrix of this width; the usual 0.02 learns slower in a small net.
        initializer_range=width**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    net: nn.Module = ViTForImageClassification(config)
    return net

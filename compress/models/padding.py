"""Feed-forward layers of different widths in a checkpoint of one width, which stock transformers loads.

Its config knows one width for all layers, so that narrower ones are padded with channels of zeros: they give
nothing, and get no gradient. What is loaded here, and what is exported, is without them; how wide each layer
is, config.json says, of which stock transformers keeps what it does not know.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.models.layers import Layer, Stack

WIDTHS = "ffn_widths"  # in config.json
_Change = Callable[[Tensor, int, int], Tensor]  # of a tensor along a dimension, with a number of equal parts


def padded(module: nn.Module, stack: Stack) -> dict[str, Tensor]:
    """The weights of `module`, which holds `stack`, every feed-forward layer as wide as the widest."""
    widest = max(layer.ffn_width for layer in stack.layers())

    def grow(tensor: Tensor, dim: int, parts: int) -> Tensor:
        pieces = tensor.chunk(parts, dim)
        missing = widest - pieces[0].shape[dim]
        shape = [missing if axis == dim else size for axis, size in enumerate(tensor.shape)]
        return torch.cat([part for piece in pieces for part in (piece, tensor.new_zeros(shape))], dim)

    weights: dict[str, Tensor] = dict(module.state_dict())
    paths = {linear: path for path, linear in module.named_modules()}
    for layer in stack.layers():
        for linear, kind, value in _changed(layer, grow):
            weights[f"{paths[linear]}.{kind}"] = value
    return weights


def cut_padding(stack: Stack, widths: Sequence[int]) -> None:
    """Make each feed-forward layer as wide as `widths`, out of a config.json, say, in place.

    Raises ModelError where they do not fit the layers, or what would go is not zero.
    """
    layers = stack.layers()
    widest = max(layer.ffn_width for layer in layers)
    if (
        not isinstance(widths, Sequence)
        or len(widths) != len(layers)
        or not all(isinstance(width, int) and 0 < width <= widest for width in widths)
    ):
        raise ModelError(
            f"{WIDTHS} in config.json are not those of the layers",
            found=widths,
            allowed=f"{len(layers)} whole numbers, from 1 to {widest}",
        )
    for layer, width in zip(layers, widths, strict=True):

        def shrink(tensor: Tensor, dim: int, parts: int, layer: Layer = layer, width: int = width) -> Tensor:
            pieces = tensor.chunk(parts, dim)
            if any(piece.narrow(dim, width, piece.shape[dim] - width).any() for piece in pieces):
                raise ModelError(
                    f"the channels of {layer.name} behind its width of {width} are not zero",
                    allowed="zeros, which pad it to the width in config.json",
                    next="fetch config.json again, of the revision of the weights",
                )
            return torch.cat([piece.narrow(dim, 0, width) for piece in pieces], dim)

        for linear, kind, value in _changed(layer, shrink):
            trains = getattr(linear, kind).requires_grad
            setattr(linear, kind, nn.Parameter(value.clone(), requires_grad=trains))
            linear.out_features, linear.in_features = linear.weight.shape
        note_width(layer)


def note_width(layer: Layer) -> None:
    """Where the layer itself remembers its width; what computes goes by the weights."""
    for part in layer.block.modules():
        for name in ("intermediate_size", "ffn_dim"):
            if layer.ffn_out in part.children() and hasattr(part, name):
                setattr(part, name, layer.ffn_width)


def _changed(layer: Layer, change: _Change) -> list[tuple[nn.Linear, str, Tensor]]:
    """Every feed-forward matrix and bias with channels: whose it is, its name there, and it changed along
    them."""
    changed = [(layer.ffn_out, "weight", change(layer.ffn_out.weight.detach(), 1, 1))]
    for linear, parts in layer.channel_writers():
        changed.append((linear, "weight", change(linear.weight.detach(), 0, parts)))
        if linear.bias is not None:
            changed.append((linear, "bias", change(linear.bias.detach(), 0, parts)))
    return changed

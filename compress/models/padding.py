"""Feed-forward layers of different widths in a checkpoint of one width, which stock transformers loads.

Its config knows one width for all layers, so that narrower ones are padded with channels of zeros: they give
nothing, and get no gradient. What is loaded here, and what is exported, is without them; how wide each layer
is, config.json says, of which stock transformers keeps what it does not know.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError

WIDTHS = "ffn_widths"  # in config.json
_Change = Callable[[Tensor, int, int], Tensor]  # of a tensor along a dimension, with a number of equal parts


def padded(module: Any) -> dict[str, Tensor]:
    """The weights of a language model, every feed-forward layer as wide as the widest."""
    widest = max(layer.mlp.down_proj.in_features for layer in module.model.layers)

    def grow(tensor: Tensor, dim: int, parts: int) -> Tensor:
        pieces = tensor.chunk(parts, dim)
        missing = widest - pieces[0].shape[dim]
        shape = [missing if each == dim else size for each, size in enumerate(tensor.shape)]
        return torch.cat([part for piece in pieces for part in (piece, tensor.new_zeros(shape))], dim)

    found: dict[str, Tensor] = dict(module.state_dict())
    for index, layer in enumerate(module.model.layers):
        for name, value in _changed(layer.mlp, grow).items():
            found[f"model.layers.{index}.mlp.{name}"] = value
    return found


def cut_padding(module: Any, widths: Sequence[int]) -> None:
    """Make each feed-forward layer as wide as `widths`, out of a config.json, say, in place.

    Raises ModelError where they do not fit the layers, or what would go is not zero.
    """
    layers = module.model.layers
    widest = max(layer.mlp.down_proj.in_features for layer in layers)
    if (
        not isinstance(widths, Sequence)
        or len(widths) != len(layers)
        or not all(isinstance(each, int) and 0 < each <= widest for each in widths)
    ):
        raise ModelError(
            f"{WIDTHS} in config.json are not those of the layers",
            found=widths,
            allowed=f"{len(layers)} whole numbers, from 1 to {widest}",
        )
    for index, (layer, width) in enumerate(zip(layers, widths, strict=True)):

        def shrink(tensor: Tensor, dim: int, parts: int, index: int = index, width: int = width) -> Tensor:
            pieces = tensor.chunk(parts, dim)
            if any(piece.narrow(dim, width, piece.shape[dim] - width).any() for piece in pieces):
                raise ModelError(
                    f"the channels of layer {index} behind its width of {width} are not zero",
                    allowed="zeros, which pad it to the width in config.json",
                    next="fetch config.json again, of the revision of the weights",
                )
            return torch.cat([piece.narrow(dim, 0, width) for piece in pieces], dim)

        for name, value in _changed(layer.mlp, shrink).items():
            path, _, kind = name.rpartition(".")
            linear = layer.mlp.get_submodule(path)
            setattr(
                linear, kind, nn.Parameter(value.clone(), requires_grad=getattr(linear, kind).requires_grad)
            )
            linear.out_features, linear.in_features = linear.weight.shape
        note_width(layer.mlp, width)


def note_width(mlp: Any, width: int) -> None:
    """Where the layer itself remembers it; what computes goes by the weights."""
    for name in ("intermediate_size", "ffn_dim"):
        if hasattr(mlp, name):
            setattr(mlp, name, width)


def _changed(mlp: nn.Module, change: _Change) -> dict[str, Tensor]:
    """Path within `mlp` -> its tensor, changed along the channels; Phi-3 keeps gate and up in one."""
    found = {}
    for path, linear in mlp.named_children():
        if not isinstance(linear, nn.Linear):
            continue
        parts = 2 if path == "gate_up_proj" else 1
        reads = path == "down_proj"
        found[f"{path}.weight"] = change(linear.weight.detach(), 1 if reads else 0, parts)
        if linear.bias is not None and not reads:
            found[f"{path}.bias"] = change(linear.bias.detach(), 0, parts)
    return found

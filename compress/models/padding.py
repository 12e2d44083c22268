"""Layers of different widths in a checkpoint of one width, which stock transformers loads.

Its config knows one number of heads and one feed-forward width for all layers, so that narrower ones are
padded at their end: with heads and channels of zeros, which give nothing and get no gradient. What is loaded
here, and what is exported, is without them; how wide each layer is, config.json says, of which stock
transformers keeps what it does not know.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.models.layers import Layer, Stack

NOTES = {"ffn": "ffn_widths", "heads": "head_counts"}  # kind of width -> its name in config.json
_Change = Callable[[Tensor, int, int, int], Tensor]  # along a dimension, each of so many parts to a width


def save_padded(model: Any, stack: Stack, folder: Path) -> None:
    """Write `model`, of transformers, which holds `stack`; its config tells the widths from now on."""
    setattr(stack.config, stack.architecture.ffn_width, max(stack.widths()["ffn"]))
    for kind, (_, full) in _sizes(stack).items():
        vars(stack.config).pop(NOTES[kind], None)  # those of a model it was cut from no longer hold
        if set(widths := stack.widths()[kind]) != {full}:
            setattr(stack.config, NOTES[kind], list(widths))
    model.save_pretrained(folder, state_dict=padded(model, stack))


def padded(module: nn.Module, stack: Stack) -> dict[str, Tensor]:
    """The weights of `module`, which holds `stack`, every layer as wide as its config says."""
    weights: dict[str, Tensor] = dict(module.state_dict())
    paths = {linear: path for path, linear in module.named_modules()}
    for kind, (_, full) in _sizes(stack).items():
        for layer, width in zip(stack.layers(), stack.widths()[kind], strict=True):
            if width == full:  # not copied
                continue
            for linear, name, value in _changed(stack, layer, kind, full, grown):
                weights[f"{paths[linear]}.{name}"] = value
    return weights


def cut_padding(stack: Stack, described: Mapping[str, Any]) -> None:
    """Make each layer as wide as `described`, out of a config.json, says, in place.

    Raises ModelError where that does not fit the layers, or what would go is not zero.
    """
    for kind, (step, full) in _sizes(stack).items():
        if (widths := described.get(NOTES[kind])) is None:
            continue
        layers, allowed = stack.layers(), range(step, full + 1, step)
        if (
            not isinstance(widths, Sequence)
            or len(widths) != len(layers)
            or not all(isinstance(width, int) and width in allowed for width in widths)
        ):
            raise ModelError(
                f"{NOTES[kind]} in config.json are not those of the layers",
                found=widths,
                allowed=f"{len(layers)} whole numbers, from {step} to {full} in steps of {step}",
            )
        for layer, width in zip(layers, widths, strict=True):
            try:
                changed = list(_changed(stack, layer, kind, width, _shrunk))
            except ValueError:
                raise ModelError(
                    f"the {kind} of {layer.name} behind its {width} are not zero",
                    allowed="zeros, which pad it to the width in config.json",
                    next="fetch config.json again, of the revision of the weights",
                ) from None
            for linear, name, value in changed:
                trains = getattr(linear, name).requires_grad
                setattr(linear, name, nn.Parameter(value.clone(), requires_grad=trains))
                linear.out_features, linear.in_features = linear.weight.shape
            note_width(layer)


def note_width(layer: Layer) -> None:
    """Where the layer itself remembers its width; what computes goes by the weights."""
    for part in layer.block.modules():
        for name in ("intermediate_size", "ffn_dim"):
            if layer.ffn_out in part.children() and hasattr(part, name):
                setattr(part, name, layer.ffn_width)


def _sizes(stack: Stack) -> dict[str, tuple[int, int]]:
    """Kind of width that may differ by layer -> how many go together, and how many the config gives each.

    The config's heads go with its hidden size, so that a head has the size it was trained with.
    """
    sizes = {"ffn": (1, max(stack.widths()["ffn"]))}
    if not stack.architecture.causal and not stack.architecture.whole_heads:
        sizes["heads"] = (stack.sharing, int(stack.config.num_attention_heads))
    return sizes


def _changed(
    stack: Stack, layer: Layer, kind: str, width: int, change: _Change
) -> Iterator[tuple[nn.Linear, str, Tensor]]:
    """Every matrix and bias with channels of `kind`: whose it is, its name there, and it changed to `width`
    of them."""
    if kind == "ffn":
        reader, channels = layer.ffn_out, width
        writers = [(linear, parts, channels) for linear, parts in layer.channel_writers()]
    else:
        reader, channels = layer.attention_output, width * stack.head_size
        shared = channels // stack.sharing
        writers = [(layer.query, 1, channels), (layer.key, 1, shared), (layer.value, 1, shared)]
    yield reader, "weight", change(reader.weight.detach(), 1, 1, channels)
    for linear, parts, rows in writers:
        yield linear, "weight", change(linear.weight.detach(), 0, parts, rows)
        if linear.bias is not None:
            yield linear, "bias", change(linear.bias.detach(), 0, parts, rows)


def grown(tensor: Tensor, dim: int, parts: int, width: int) -> Tensor:
    """Each of the equal `parts` along `dim` filled up with zeros to `width`."""
    pieces = tensor.chunk(parts, dim)
    shape = [width - size if axis == dim else size for axis, size in enumerate(pieces[0].shape)]
    return torch.cat([part for piece in pieces for part in (piece, tensor.new_zeros(shape))], dim)


def _shrunk(tensor: Tensor, dim: int, parts: int, width: int) -> Tensor:
    """Raises ValueError where more than zeros would go."""
    pieces = tensor.chunk(parts, dim)
    if any(piece.narrow(dim, width, piece.shape[dim] - width).any() for piece in pieces):
        raise ValueError("not zero")
    return torch.cat([piece.narrow(dim, 0, width) for piece in pieces], dim)

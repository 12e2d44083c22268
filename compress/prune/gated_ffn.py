"""Narrower language models: channels of gated feed-forward layers, and whole groups of attention heads.

Layer by layer: what reads the channels that go (down_proj, o_proj) is fitted to what it gave, on what it
read in the dense model. Fitting it to the dense output on what the layers cut before it leave (the asymmetric
form of SparseGPT, Frantar & Alistarh 2023) lost more here: errors in the inputs make weights shrink.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.config.prune import LanguageImportance, LanguagePrune, Scope
from compress.errors import ConfigError, ModelError
from compress.models.causal_lm import CausalLM
from compress.models.layers import Layer
from compress.models.padding import note_width
from compress.models.walk import Walk
from compress.prune.fisher import information
from compress.prune.least_squares import refit
from compress.prune.select_columns import keep_groups
from compress.prune.selection import cheapest_widths
from compress.prune.shares import rounded_width

_FFN = "mlp.down_proj"


@dataclass(frozen=True)
class Cut:
    """What goes from every layer, seen from the linear layer that reads it."""

    reader: str  # its path within a block
    size: int  # neighbouring columns of it that go together
    count: int  # groups of them that stay, where all layers are alike
    write: Callable[[Layer, Tensor], None]  # cuts what writes these columns, to those kept


@torch.no_grad()
def narrow(model: CausalLM, config: LanguagePrune, windows: Tensor) -> None:
    """Cut channels and key-value groups of every layer to the shares that `config.keep` names; in the global
    scope the channels of all layers together.

    `windows`: (windows, tokens) of calibration text. The dense hidden states (windows, tokens, hidden) are
    held, and moments of one layer at a time.
    Raises ConfigError for a share that leaves nothing, ModelError for heads that cannot be cut.
    """
    width, heads = targets(model, config)
    found = cuts(model, width, heads)
    if not found:
        return
    readers = [cut.reader for cut in found]
    known = information(model, windows, readers) if config.importance is LanguageImportance.fisher else None
    counts = {cut.reader: [cut.count] * len(model.stack.blocks) for cut in found}
    if known and _FFN in counts and config.scope is Scope["global"]:
        counts[_FFN] = cheapest_widths([each[_FFN] for each in known], config.keep.ffn, config.round_to)
    walk = Walk(model, windows)
    for index, layer in enumerate(model.stack.layers()):
        moments = observe(walk, index, readers)
        for cut in found:
            mine = known[index][cut.reader] if known else None
            _apply(cut, counts[cut.reader][index], layer, moments[cut.reader], mine, config)
    note_heads(model, heads)


def targets(model: CausalLM, config: LanguagePrune) -> tuple[int, int]:
    """Feed-forward channels and key-value heads that stay of each layer.

    Raises ConfigError where none do, ModelError where layers of different widths would be cut.
    """
    widths = model.widths()["ffn"]
    if len(set(widths)) > 1 and config.keep.ffn < 1.0:
        raise ModelError(
            "the feed-forward layers have widths of their own already",
            found=f"{min(widths)} to {max(widths)}",
            allowed="layers of one width, as in the dense model",
            next="prune the dense model once, to the share wanted in the end",
        )
    before = {"ffn": widths[0], "kv_heads": model.kv_heads}
    for kind, size in before.items():
        share = getattr(config.keep, kind)
        if share * size < 0.5:
            raise ConfigError(
                f"prune.keep.{kind} leaves nothing of {size}",
                found=share,
                allowed=f"at least {0.5 / size:.3g}, which leaves one",
            )
    return (
        rounded_width(before["ffn"], config.keep.ffn, config.round_to),
        rounded_width(before["kv_heads"], config.keep.kv_heads, 1),
    )


def cuts(model: CausalLM, width: int, heads: int) -> list[Cut]:
    """Attention before the feed-forward layer, as data flows."""
    found = []
    if heads < model.kv_heads:
        if not model.architecture.prunable_heads:
            raise ModelError(
                f"heads of a {model.config.model_type} model cannot be cut",
                found="query, key and value in one matrix",
                allowed="prune.keep.kv_heads=1.0",
            )
        shared = int(model.config.num_attention_heads) // model.kv_heads
        size = shared * model.head_dim

        def write_heads(layer: Layer, columns: Tensor) -> None:
            groups = columns[::size] // size
            rows = (groups[:, None] * model.head_dim + torch.arange(model.head_dim)).flatten()
            keep_rows(layer.query, columns)
            keep_rows(layer.key, rows)
            keep_rows(layer.value, rows)

        found.append(Cut("self_attn.o_proj", size, heads, write_heads))
    if width < model.widths()["ffn"][0]:
        found.append(Cut(_FFN, 1, width, _write_channels))
    return found


def _write_channels(layer: Layer, columns: Tensor) -> None:
    for linear, parts in layer.channel_writers():
        width = linear.out_features // parts
        keep_rows(linear, torch.cat([columns + part * width for part in range(parts)]))
    note_width(layer)


def observe(walk: Walk, index: int, readers: Sequence[str]) -> dict[str, Tensor]:
    """Reader -> mean over all tokens of h h^T (width, width), float64, h being what it reads; the walk then
    stands behind layer `index`."""
    block = walk.blocks[index]
    found: dict[str, Tensor] = {}
    handles = []
    for name in readers:
        linear: Any = block.get_submodule(name)
        found[name] = torch.zeros(linear.in_features, linear.in_features, dtype=torch.float64)

        def note(module: nn.Module, args: tuple[Any, ...], gram: Tensor = found[name]) -> None:
            h = args[0].flatten(0, -2)
            gram += h.T @ h

        handles.append(linear.register_forward_pre_hook(note))
    try:
        walk.advance(index)
    finally:
        for handle in handles:
            handle.remove()
    return {name: gram / (walk.states.shape[0] * walk.states.shape[1]) for name, gram in found.items()}


def _apply(
    cut: Cut,
    count: int,
    layer: Layer,
    gram: Tensor,
    information: Tensor | None,
    config: LanguagePrune,
) -> None:
    """Leave `count` groups."""
    reader: Any = layer.block.get_submodule(cut.reader)
    if count * cut.size == reader.in_features:
        return
    weight = reader.weight.detach()
    kept = keep_groups(config.importance, weight.double(), gram, cut.size, count, config.damping, information)
    repaired = refit(weight, gram, kept, config.damping) if config.repair else weight[:, kept].clone()
    reader.weight = nn.Parameter(repaired)
    reader.in_features = len(kept)
    cut.write(layer, kept)


def keep_rows(linear: nn.Linear, kept: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight[kept].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[kept].clone())
    linear.out_features = len(kept)


def note_heads(model: CausalLM, heads: int) -> None:
    """Into the config; the size of a head stays what it was, though it no longer divides the hidden size."""
    config = model.config
    shared, size = int(config.num_attention_heads) // model.kv_heads, model.head_dim
    if heads < model.kv_heads:
        config.head_dim = size
        config.num_key_value_heads, config.num_attention_heads = heads, heads * shared

"""Narrower language models: channels of gated feed-forward layers, and whole groups of attention heads.

Layer by layer: what reads the channels that go (down_proj, o_proj) is fitted to the dense model's output
of that layer, on the hidden states that the layers cut before it leave. So errors are made up for where
they arise and do not add up (the asymmetric form of the sequential pruning of SparseGPT, Frantar &
Alistarh 2023).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.config import LanguagePrune
from compress.errors import ConfigError, ModelError
from compress.families.causal_lm import CausalLM
from compress.prune.blocks import Blocks
from compress.prune.removal import keep_groups
from compress.prune.repair import fit
from compress.prune.selection import rounded_width


@dataclass(frozen=True)
class Cut:
    """What goes from every layer, seen from the linear layer that reads it."""

    reader: str  # its path within a block
    size: int  # neighbouring columns of it that go together
    count: int  # groups of them that stay
    write: Callable[[Any, Tensor], None]  # cuts what writes these columns: of a block, to those kept


@torch.no_grad()
def narrow(model: CausalLM, config: LanguagePrune, windows: Tensor) -> None:
    """Cut channels and key-value groups of every layer to the shares that `config.keep` names.

    `windows`: (windows, tokens) of calibration text. The hidden states of two streams are held, the
    dense and the cut one, (windows, tokens, hidden) each, and moments of one layer at a time.
    Raises ConfigError for a share that leaves nothing, ModelError for heads that cannot be cut.
    """
    width, heads = targets(model, config)
    found = cuts(model, width, heads)
    if not found:
        return
    blocks = Blocks(model, windows)
    dense = blocks.embed(windows)
    narrowed = dense.clone()
    for block in blocks:
        original = copy.deepcopy(block)
        for cut in found:
            gram, cross = observe(blocks, original, block, cut.reader, dense, narrowed)
            _apply(cut, block, gram, cross, config)
        for i in range(len(windows)):
            dense[i] = blocks.run(original, dense[i], like=block)
            narrowed[i] = blocks.run(block, narrowed[i])
    note_widths(model, width, heads)


def targets(model: CausalLM, config: LanguagePrune) -> tuple[int, int]:
    """Feed-forward channels and key-value heads that stay of each layer; raises ConfigError where none do."""
    before = {"ffn": model.widths()["ffn"][0], "kv_heads": model.kv_heads}
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

        def write_heads(block: Any, columns: Tensor) -> None:
            groups = columns[::size] // size
            rows = (groups[:, None] * model.head_dim + torch.arange(model.head_dim)).flatten()
            attention = block.self_attn
            for linear, kept in (
                (attention.q_proj, columns),
                (attention.k_proj, rows),
                (attention.v_proj, rows),
            ):
                keep_rows(linear, kept)

        found.append(Cut("self_attn.o_proj", size, heads, write_heads))
    if width < model.widths()["ffn"][0]:
        found.append(Cut("mlp.down_proj", 1, width, _write_channels))
    return found


def _write_channels(block: Any, columns: Tensor) -> None:
    mlp = block.mlp
    if hasattr(mlp, "gate_up_proj"):  # Phi-3: the gates' rows, then the channels'
        fused = mlp.gate_up_proj
        keep_rows(fused, torch.cat([columns, columns + fused.out_features // 2]))
    else:
        keep_rows(mlp.gate_proj, columns)
        keep_rows(mlp.up_proj, columns)
    for name in ("intermediate_size", "ffn_dim"):
        if hasattr(mlp, name):
            setattr(mlp, name, len(columns))


def observe(
    blocks: Blocks, original: nn.Module, block: nn.Module, reader: str, dense: Tensor, narrowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Means over all tokens of h h^T (width, width) and y h^T (out, width), float64.

    h is what the reader of `block` reads in the `narrowed` stream, y what that of `original` gives in the
    `dense` stream, less its bias, which stays.
    """
    seen: dict[str, Tensor] = {}
    target, source = original.get_submodule(reader), block.get_submodule(reader)
    assert isinstance(target, nn.Linear)
    assert isinstance(source, nn.Linear)

    def note_target(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen["y"] = output.flatten(0, -2) if target.bias is None else output.flatten(0, -2) - target.bias

    def note_source(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen["h"] = args[0].flatten(0, -2)

    handles = target.register_forward_hook(note_target), source.register_forward_pre_hook(note_source)
    gram = torch.zeros(source.in_features, source.in_features, dtype=torch.float64)
    cross = torch.zeros(source.out_features, source.in_features, dtype=torch.float64)
    try:
        for before, after in zip(dense, narrowed, strict=True):
            blocks.run(original, before, like=block)
            blocks.run(block, after)
            gram += seen["h"].T @ seen["h"]
            cross += seen["y"].T @ seen["h"]
    finally:
        for handle in handles:
            handle.remove()
    tokens = dense.shape[0] * dense.shape[1]
    return gram / tokens, cross / tokens


def _apply(cut: Cut, block: nn.Module, gram: Tensor, cross: Tensor, config: LanguagePrune) -> None:
    reader: Any = block.get_submodule(cut.reader)
    weight = reader.weight.detach()
    everything = torch.arange(weight.shape[1])
    # What is judged is what would be there if nothing were cut: fitted to the dense output as well.
    whole = (
        fit(weight.double(), gram, cross, everything, config.damping) if config.repair else weight.double()
    )
    kept = keep_groups(config.importance, whole, gram, cut.size, cut.count, config.damping)
    repaired = fit(weight, gram, cross, kept, config.damping) if config.repair else weight[:, kept].clone()
    reader.weight = nn.Parameter(repaired)
    reader.in_features = len(kept)
    cut.write(block, kept)


def keep_rows(linear: nn.Linear, kept: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight[kept].clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[kept].clone())
    linear.out_features = len(kept)


def note_widths(model: CausalLM, width: int, heads: int) -> None:
    """Into the config; the size of a head stays what it was, though it no longer divides the hidden size."""
    config = model.config
    shared, size = int(config.num_attention_heads) // model.kv_heads, model.head_dim
    config.intermediate_size = width
    if heads < model.kv_heads:
        config.head_dim = size
        config.num_key_value_heads, config.num_attention_heads = heads, heads * shared

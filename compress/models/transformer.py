"""The layers of a model of transformers: left out, dropped, resized, and its config told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn


@dataclass(frozen=True)
class Architecture:
    """Where one model type keeps its layers, and what its config calls their sizes."""

    layers: str
    attention: str  # the module that splits heads, within a layer, as all that follow
    query: str
    key: str
    value: str
    attention_output: str
    ffn_in: str
    ffn_out: str
    ffn_width: str = "intermediate_size"  # within the config, as the next
    num_layers: str = "num_hidden_layers"
    num_heads_attribute: str = "num_attention_heads"  # of the attention module, as the next
    inner_size_attribute: str = "all_head_size"
    prunable_heads: bool = True
    fused_attention: bool = True  # whether transformers has its scaled_dot_product_attention


@dataclass(frozen=True)
class Layer:
    """The prunable parts of one transformer layer."""

    name: str
    attention: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    ffn_in: nn.Linear
    ffn_out: nn.Linear


class Stack:
    """The layers of `backbone`, a model of transformers without its head."""

    def __init__(self, backbone: nn.Module, architecture: Architecture) -> None:
        self.backbone, self.architecture = backbone, architecture
        self.config: Any = backbone.config

    @property
    def _blocks(self) -> Any:
        return _get(self.backbone, self.architecture.layers)

    def layers(self) -> list[Layer]:
        a = self.architecture
        found = []
        for index, layer in enumerate(self._blocks):
            parts: list[Any] = [
                _get(layer, path)
                for path in (a.attention, a.query, a.key, a.value, a.attention_output, a.ffn_in, a.ffn_out)
            ]
            found.append(Layer(f"layer {index}", *parts))
        return found

    @property
    def head_size(self) -> int:
        return int(self.config.hidden_size) // int(self.config.num_attention_heads)

    @contextmanager
    def without_layer(self, index: int) -> Iterator[None]:
        """The module with one transformer layer left out, for as long as the context lasts."""
        blocks = self._blocks
        block = blocks[index]
        del blocks[index]
        try:
            yield
        finally:
            blocks.insert(index, block)

    def drop_layer(self, index: int) -> None:
        """Remove one transformer layer, in the module and in the config."""
        config, blocks = self.config, self._blocks
        del blocks[index]
        setattr(config, self.architecture.num_layers, len(blocks))
        config.pruned_heads = {
            layer - (layer > index): heads
            for layer, heads in (config.pruned_heads or {}).items()
            if layer != index
        }

    def note_pruned_heads(self, index: int, removed: Sequence[int]) -> None:
        """Tell the attention module and the config that these heads (of those left) are gone."""
        layer, a = self.layers()[index], self.architecture
        setattr(layer.attention, a.num_heads_attribute, layer.query.out_features // self.head_size)
        setattr(layer.attention, a.inner_size_attribute, layer.query.out_features)
        before = set((self.config.pruned_heads or {}).get(index, []))
        total = int(self.config.num_attention_heads)
        left = [head for head in range(total) if head not in before]
        gone = sorted(before | {left[head] for head in removed})
        self.config.pruned_heads = {**(self.config.pruned_heads or {}), index: gone}

    def note_ffn_widths(self) -> tuple[int, ...] | None:
        """Write a uniform width into the config; return the widths where they are not uniform."""
        widths = self.widths()["ffn"]
        setattr(self.config, self.architecture.ffn_width, max(widths))
        return None if len(set(widths)) == 1 else widths

    def widths(self) -> dict[str, tuple[int, ...]]:
        """Kind -> width of each layer."""
        layers = self.layers()
        return {
            "ffn": tuple(layer.ffn_in.out_features for layer in layers),
            "heads": tuple(layer.query.out_features // self.head_size for layer in layers),
        }

    def layer_names(self, kept: Sequence[int] | None) -> dict[str, tuple[str, ...]]:
        """Kind -> name of each layer; `kept`: their numbers in the dense model, where some were dropped."""
        widths = self.widths()
        numbers = kept or range(len(widths["ffn"]))
        return {kind: tuple(f"layer {number}" for number in numbers) for kind in widths}

    def fill_ragged(self, model: nn.Module, ffn_widths: Sequence[int], weights: Path) -> None:
        """Load `weights` into `model`, which holds this stack, after giving each layer its own width.

        For checkpoints of ours that stock transformers cannot load: its config knows one width for all.
        """
        for block, layer, width in zip(self._blocks, self.layers(), ffn_widths, strict=True):
            _set(block, self.architecture.ffn_in, nn.Linear(layer.ffn_in.in_features, width))
            _set(block, self.architecture.ffn_out, nn.Linear(width, layer.ffn_out.out_features))
        model.load_state_dict(load_file(weights))


def _get(module: nn.Module, path: str) -> Any:
    return reduce(getattr, path.split("."), module)


def _set(module: nn.Module, path: str, value: nn.Module) -> None:
    *parents, name = path.split(".")
    setattr(reduce(getattr, parents, module), name, value)

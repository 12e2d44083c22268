"""The layers of a transformer and the parts of each, found by the table of architectures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

from torch import nn

from compress.models.architectures import Architecture

_OF_LAYERS = ("layer_types", "no_rope_layers")  # within the config: one entry a layer


@dataclass(frozen=True)
class Layer:
    """The parts of one transformer layer; where a matrix is shared, it is several of them."""

    name: str
    block: nn.Module
    attention: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    ffn_in: nn.Linear
    ffn_out: nn.Linear
    gate: nn.Linear | None

    @property
    def ffn_width(self) -> int:
        return self.ffn_out.in_features

    def linears(self) -> list[nn.Linear]:
        """Every matrix once."""
        parts = (getattr(self, field.name) for field in fields(self))
        return list(dict.fromkeys(part for part in parts if isinstance(part, nn.Linear)))

    def channel_writers(self) -> list[tuple[nn.Linear, int]]:
        """Every matrix that gives feed-forward channels, and how many times: Phi-3's gives gates, then the
        channels."""
        if self.gate is None or self.gate is self.ffn_in:
            return [(self.ffn_in, 1 if self.gate is None else 2)]
        return [(self.gate, 1), (self.ffn_in, 1)]


class Stack:
    """The layers of `backbone`, a model of transformers without its head."""

    def __init__(self, backbone: nn.Module, architecture: Architecture) -> None:
        self.backbone, self.architecture = backbone, architecture
        self.config: Any = backbone.config

    @property
    def blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.backbone.get_submodule(self.architecture.layers))

    def layers(self) -> list[Layer]:
        names = [field.name for field in fields(Layer) if field.name not in ("name", "block")]
        paths = {name: getattr(self.architecture, name) for name in names}
        layers = []
        for index, block in enumerate(self.blocks):
            parts: dict[str, Any] = {name: path and block.get_submodule(path) for name, path in paths.items()}
            layers.append(Layer(name=f"layer {index}", block=block, **parts))
        return layers

    @property
    def final_norm(self) -> nn.Module:
        """What follows the last layer."""
        path = self.architecture.final_norm
        return nn.Identity() if path is None else self.backbone.get_submodule(path)

    @property
    def head_size(self) -> int:
        config = self.config
        return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

    @property
    def kv_heads(self) -> int:
        """Of a layer that was not cut; as many as heads, where they do not share keys and values."""
        return int(getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads)

    @property
    def sharing(self) -> int:
        """Heads that share the same keys and values."""
        return int(self.config.num_attention_heads) // self.kv_heads

    @contextmanager
    def without_layer(self, index: int) -> Iterator[None]:
        """The module with one transformer layer left out, for as long as the context lasts."""
        blocks, lists = self.blocks, self._lists_of_layers()
        block = blocks[index]
        del blocks[index]
        self._shorten_lists(index)
        try:
            yield
        finally:
            blocks.insert(index, block)
            for name, values in lists.items():
                setattr(self.config, name, values)

    def _lists_of_layers(self) -> dict[str, list[Any]]:
        """What the config says of each layer; models go by it when they run, too."""
        return {name: values for name in _OF_LAYERS if (values := getattr(self.config, name, None))}

    def _shorten_lists(self, index: int) -> None:
        for name, values in self._lists_of_layers().items():
            setattr(self.config, name, [value for i, value in enumerate(values) if i != index])

    def drop_layer(self, index: int) -> None:
        """Remove one transformer layer, in the module and in the config; the others are numbered anew, which
        the cache of keys and values goes by."""
        config, blocks = self.config, self.blocks
        del blocks[index]
        for number, block in enumerate(blocks):
            for part in block.modules():
                if hasattr(part, "layer_idx"):
                    part.layer_idx = number  # type: ignore[assignment]
        setattr(config, self.architecture.num_layers, len(blocks))
        self._shorten_lists(index)

    def widths(self) -> dict[str, tuple[int, ...]]:
        """Kind -> width of each layer."""
        layers = self.layers()
        return {
            "ffn": tuple(layer.ffn_width for layer in layers),
            "heads": tuple(layer.attention_output.in_features // self.head_size for layer in layers),
        }

    def layer_names(self, kept: Sequence[int] | None) -> dict[str, tuple[str, ...]]:
        """Kind -> name of each layer; `kept`: their numbers in the dense model, where some were dropped."""
        widths = self.widths()
        numbers = kept or range(len(widths["ffn"]))
        return {kind: tuple(f"layer {number}" for number in numbers) for kind in widths}

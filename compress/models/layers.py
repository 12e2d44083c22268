"""Where every kind of transformer keeps its layers and their parts, and what its config calls their sizes.

The one table for pruning and quantization: whoever cuts, rounds or watches a layer asks here for its parts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Paths of one model type's parts; a matrix that several parts share is named for each of them."""

    layers: str  # within the backbone, as the next
    final_norm: str | None = None  # of what leaves the last layer; None: each layer normalises what it gives
    attention: str  # the module that splits heads, within a layer, as all that follow
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str | None  # what gives query, key and value their input; None: the layer before
    gate: str | None = None  # rows that multiply those of ffn_in
    ffn_in: str
    ffn_out: str
    ffn_norm: str | None  # what gives ffn_in its input; None: what attention adds to
    ffn_width: str = "intermediate_size"  # within the config, as the next
    num_layers: str = "num_hidden_layers"
    whole_heads: str = ""  # why heads cannot be cut one layer at a time
    first_stays: str = ""  # why the first layer cannot go
    fused_attention: bool = True  # whether transformers has its scaled_dot_product_attention
    causal: bool = False  # a language model, whose heads share keys and values


_BERT = Architecture(
    layers="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm=None,
    ffn_in="intermediate.dense",
    ffn_out="output.dense",
    ffn_norm="attention.output.LayerNorm",
)
_DISTILBERT = Architecture(
    layers="transformer.layer",
    attention="attention",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm=None,
    ffn_in="ffn.lin1",
    ffn_out="ffn.lin2",
    ffn_norm="sa_layer_norm",
    ffn_width="hidden_dim",
    num_layers="n_layers",
)
_MPNET = replace(
    _BERT,
    attention="attention.attn",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    ffn_norm="attention.LayerNorm",
    whole_heads="one table of relative positions, a column a head, serves all layers",
    fused_attention=False,
)
_VIT = Architecture(
    layers="layers",
    final_norm="layernorm",
    attention="attention",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    attention_output="attention.o_proj",
    attention_norm="layernorm_before",
    ffn_in="mlp.fc1",
    ffn_out="mlp.fc2",
    ffn_norm="layernorm_after",
)
_LLAMA = Architecture(
    layers="layers",
    final_norm="norm",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    attention_norm="input_layernorm",
    gate="mlp.gate_proj",
    ffn_in="mlp.up_proj",
    ffn_out="mlp.down_proj",
    ffn_norm="post_attention_layernorm",
    causal=True,
)
_POST_NORM = replace(_LLAMA, attention_norm=None, ffn_norm=None)  # of what attention and ffn_out give
_PHI3 = replace(
    _LLAMA,
    query="self_attn.qkv_proj",
    key="self_attn.qkv_proj",
    value="self_attn.qkv_proj",
    gate="mlp.gate_up_proj",
    ffn_in="mlp.gate_up_proj",
    whole_heads="query, key and value in one matrix",
)
_OLMO = replace(_POST_NORM, whole_heads="one norm over the queries of all heads, and one over the keys")
_EUROBERT = replace(_LLAMA, causal=False)
_MODERNBERT = Architecture(
    layers="layers",
    final_norm="final_norm",
    attention="attn",
    query="attn.Wqkv",
    key="attn.Wqkv",
    value="attn.Wqkv",
    attention_output="attn.Wo",
    attention_norm="attn_norm",
    gate="mlp.Wi",
    ffn_in="mlp.Wi",
    ffn_out="mlp.Wo",
    ffn_norm="mlp_norm",
    whole_heads=_PHI3.whole_heads,
    first_stays="it alone has no norm in front of attention",
)
_OF_LAYERS = ("layer_types", "no_rope_layers")  # within the config: one entry a layer
TEXT_ENCODERS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), _BERT),
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
    "modernbert": _MODERNBERT,
    "eurobert": _EUROBERT,
    "nomic_bert": replace(_EUROBERT, attention_norm=None, final_norm=None),
}
IMAGE_TRANSFORMERS = dict.fromkeys(("vit", "deit"), _VIT)
LANGUAGE_MODELS = {
    **dict.fromkeys(("llama", "mistral", "ministral3", "qwen2", "qwen3", "smollm3"), _LLAMA),
    **dict.fromkeys(("ernie4_5", "granite", "hunyuan_v1_dense", "seed_oss"), _LLAMA),
    "arcee": replace(_LLAMA, gate=None),
    "exaone4": _POST_NORM,
    **dict.fromkeys(("olmo2", "olmo3"), _OLMO),
    "gemma3_text": replace(_LLAMA, ffn_norm="pre_feedforward_layernorm"),
    "phi3": _PHI3,
}


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

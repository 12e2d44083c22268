"""Where every kind of transformer keeps its layers and their parts, and what its config calls their sizes.

The one table for pruning, quantization and export: whoever cuts, rounds or watches a layer asks here for its
parts. It is read without torch.
"""

from dataclasses import dataclass, replace


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
    builder: str = ""  # the class of onnxruntime_genai.models.builders that exports it, where one does
    runtime_type: str = (
        ""  # as onnxruntime-genai calls it, where not by the name of the class in transformers
    )


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
TEXT_ENCODERS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), _BERT),
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
    "modernbert": _MODERNBERT,
    "eurobert": _EUROBERT,
    "nomic_bert": replace(_EUROBERT, attention_norm=None, final_norm=None),
    # language models that were trained on to embed; heads are cut as an encoder's, by groups that share keys
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _EUROBERT),
    "gemma3_text": replace(_EUROBERT, ffn_norm="pre_feedforward_layernorm"),
}
IMAGE_TRANSFORMERS = dict.fromkeys(("vit", "deit"), _VIT)
LANGUAGE_MODELS = {
    "llama": replace(_LLAMA, builder="LlamaModel"),
    "mistral": replace(_LLAMA, builder="MistralModel"),
    "ministral3": _LLAMA,
    "qwen2": replace(_LLAMA, builder="QwenModel"),
    "qwen3": replace(_LLAMA, builder="Qwen3Model"),
    "smollm3": replace(_LLAMA, builder="SmolLM3Model"),
    "ernie4_5": replace(_LLAMA, builder="ErnieModel"),
    "granite": replace(_LLAMA, builder="GraniteModel"),
    "hunyuan_v1_dense": replace(_LLAMA, builder="HunyuanDenseV1Model"),
    "seed_oss": replace(_LLAMA, builder="LlamaModel", runtime_type="llama"),
    "arcee": replace(_LLAMA, gate=None),
    "exaone4": _POST_NORM,
    **dict.fromkeys(("olmo2", "olmo3"), _OLMO),
    "gemma3_text": replace(
        _LLAMA, ffn_norm="pre_feedforward_layernorm", builder="Gemma3Model", runtime_type="gemma3_text"
    ),
    "phi3": replace(_PHI3, builder="Phi3MiniModel"),
}

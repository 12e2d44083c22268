"""Tiny GGUF files as llama.cpp's converter writes them, one feature each, beside the original of each.

`MODELS` and `TOKENIZERS` are read, `REFUSED` are not. Of random weights, so that what is read otherwise gives
other logits.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.tokenization_utils_base import generate_merges

from compress.tasks.reading import TEXTS

MARKS = ["<|end|>", "<|start|>", "<unk>"]
WORDS = "the a river mountain city train winter music bread stone old new quiet green long bright runs falls"
ARCHITECTURES = {"gemma3_text": "gemma3"}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "initializer_range": 0.25,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": 1,
}
HEADED = ("llama", "qwen3", "gemma3_text")  # whose config has a size of heads
Keys = Callable[[gguf.GGUFWriter], object]


# -- tokenizers, in the form that their models are published in

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINED = [
    *TEXTS.values(),
    WORDS,
    "call(self.value) item.name(self.other) DON'T we'll 1234567 in 2024,\n\n  12 \n\n\n x",
]


def _after(pattern: str) -> Any:
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def of_bytes(before: Any, normalizer: Any = None, whole_words: bool = False) -> Tokenizer:
    """Trained merges of bytes; with `whole_words` one more token, that no merges lead to."""
    made = Tokenizer(models.BPE(ignore_merges=whole_words))
    made.pre_tokenizer, made.decoder = before, decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TRAINED * 3, trainer)
    if whole_words:
        described = json.loads(made.to_str())
        described["model"]["vocab"]["Ġmats"] = len(described["model"]["vocab"])
        made = Tokenizer.from_str(json.dumps(described))
    return made


def of_pieces(prefix: bool = True, own: tuple[str, ...] = ()) -> tuple[Tokenizer, list[float], list[int]]:
    """As SentencePiece's are published since: with scores and types of the tokens."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(
        [" " + text for text in TRAINED] * 3, trainers.BpeTrainer(vocab_size=300, show_progress=False)
    )
    learned = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    known = {token for token, _ in learned if len(token) == 1 and (token.isascii() or token in "▁éП")}
    merged = [token for token, _ in learned if len(token) > 1 and known >= {*token} and token not in own]
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*MARKS, *spelled, *own, *merged, *sorted(known)]
    types = [3, 3, 2, *[6] * 256, *[4] * len(own)]
    types += [1] * (len(tokens) - len(types))
    scores = [0.0] * (3 + 256) + [-1000.0] * len(own)
    scores += [-float(i) for i in range(len(tokens) - len(scores))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = generate_merges(
        {t: n for t, n in vocabulary.items() if types[n] == 1}, dict(zip(tokens, scores, strict=True))
    )
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    begin = [normalizers.Prepend("▁")] if prefix else []
    made.normalizer = normalizers.Sequence([*begin, normalizers.Replace(" ", "▁")])
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    made.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in MARKS])
    made.add_tokens([AddedToken(each, special=False, normalized=False) for each in own])
    return made, scores, types


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=MARKS[0], bos_token=MARKS[1], unk_token=MARKS[2]
    ).save_pretrained(folder)


# -- files


def write(
    path: Path,
    model: Any,
    tokenizer: Tokenizer,
    more: Keys = lambda writer: None,
    *,
    pre: str | None = "gpt-2",
    pieces: tuple[list[float], list[int]] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    architecture: str | None = None,
    blocks: gguf.GGMLQuantizationType | None = None,
    endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> None:
    """`more` may add keys; `tensors` are added, or left out where None; `blocks` to quantize matrices to."""
    config = model.config
    kind = architecture or ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, kind, endianess=endianess)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    rope = config.rope_parameters
    writer.add_rope_freq_base(float(rope.get("full_attention", rope)["rope_theta"]))
    if config.model_type in HEADED:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, tokenizer, pre, pieces)
    more(writer)
    if "tokenizer.ggml.add_bos_token" not in writer.kv_data[0]:
        writer.add_add_bos_token(False)
    named = tensors_of(model, ARCHITECTURES.get(config.model_type, config.model_type))
    for name, data in {**named, **(tensors or {})}.items():
        if data is not None and blocks is not None and data.ndim == 2:
            writer.add_tensor(name, gguf.quantize(data, blocks), raw_dtype=blocks)
        elif data is not None:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokenizer(
    writer: gguf.GGUFWriter,
    tokenizer: Tokenizer,
    pre: str | None,
    pieces: tuple[list[float], list[int]] | None,
) -> None:
    described = json.loads(tokenizer.to_str())
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([word for word, _ in words])
    if pieces:
        writer.add_token_scores(pieces[0])
        writer.add_token_types(pieces[1])
    else:
        writer.add_token_types([3 if word in MARKS else 1 for word, _ in words])
        writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_unk_token_id(2)


def tensors_of(model: Any, architecture: str) -> dict[str, np.ndarray]:
    """As llama.cpp's converter has them: a Llama's rows of query and key in pairs, Gemma's norms plus one."""
    config = model.config
    [kind] = [kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = tensor.numpy()
        if architecture in ("llama", "smollm3"):
            for part, heads in (
                ("q_proj", config.num_attention_heads),
                ("k_proj", config.num_key_value_heads),
            ):
                if part in name:
                    half = data.shape[0] // heads // 2
                    data = data.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(data.shape)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            data = data + np.float32(1)
        found[names.get_name(name, try_suffixes=(".weight", ".bias"))] = np.ascontiguousarray(data)
    return found


def original(folder: Path, kind: str = "llama", tokenizer: Tokenizer | None = None, **changes: Any) -> Any:
    """A random model of transformers with its tokenizer, saved to `folder`."""
    tokenizer = tokenizer or of_bytes(_gpt2())
    torch.manual_seed(0)
    sizes = {
        **SIZES,
        "vocab_size": tokenizer.get_vocab_size(),
        **({"head_dim": 16} if kind in HEADED else {}),
    }
    config = transformers.AutoConfig.for_model(kind, **{**sizes, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                parameter += torch.randn_like(parameter) * 0.3
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return model


def _model(
    kind: str = "llama",
    more: Keys = lambda writer: None,
    tensors: Callable[[Any], Mapping[str, Any]] = lambda model: {},
    **changes: Any,
) -> Callable[[Path], Path]:
    """Writes `original` and model.gguf."""

    def make(folder: Path) -> Path:
        tokenizer = of_bytes(_gpt2())
        model = original(folder / "original", kind, tokenizer, **changes)
        write(folder / "model.gguf", model, tokenizer, more, tensors=tensors(model))
        return folder / "model.gguf"

    return make


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **values}


def _llama3(old: int, factor: float, low: float = 1.0, high: float = 4.0) -> dict[str, Any]:
    """Parameters of transformers."""
    ends = {"low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": old}
    return _rope("llama3", factor=factor, **ends)


def llama3_factors(model: Any) -> dict[str, np.ndarray]:
    """rope_freqs.weight as the converter computes it."""
    rope, size = model.config.rope_parameters, model.config.head_dim
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    old, factor = rope["original_max_position_embeddings"], rope["factor"]
    factors = []
    for i in range(size // 2):
        length = 2 * math.pi * rope["rope_theta"] ** (2 * i / size)
        if length < old / high:
            factors.append(1.0)
        elif length > old / low:
            factors.append(factor)
        else:
            share = (old / length - low) / (high - low)
            factors.append(1 / ((1 - share) / factor + share))
    return {"rope_freqs.weight": np.array(factors, np.float32)}


def _linear(factor: float, kind: gguf.RopeScalingType = gguf.RopeScalingType.LINEAR) -> Keys:
    def keys(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(factor)

    return keys


def _yarn(factor: float, old: int, more: Keys = lambda writer: None) -> Keys:
    def keys(writer: gguf.GGUFWriter) -> None:
        _linear(factor, gguf.RopeScalingType.YARN)(writer)
        writer.add_rope_scaling_orig_ctx_len(old)
        more(writer)

    return keys


LONG = {
    "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0],
    "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    "original_max_position_embeddings": 64,
}


def _long_keys(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_orig_ctx_len(64)
    writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(4) / math.log(64)))
    writer.add_rope_dimension_count(16)


def _long_tensors(model: Any) -> dict[str, np.ndarray]:
    names = {"rope_factors_long.weight": "long_factor", "rope_factors_short.weight": "short_factor"}
    return {tensor: np.array(LONG[name], np.float32) for tensor, name in names.items()}


def _odd_factors(model: Any) -> dict[str, np.ndarray]:
    return {"rope_freqs.weight": np.array(LONG["long_factor"], np.float32)}


ODD = {"short_factor": LONG["long_factor"], "long_factor": LONG["long_factor"], "attention_factor": 1.0}
MODELS: dict[str, Callable[[Path], Path]] = {
    "llama": _model(),
    "llama with a head of its own": _model(tie_word_embeddings=False),
    "llama with biases": _model(attention_bias=True, mlp_bias=True),
    "llama 3.1, small": _model(rope_parameters=_llama3(64, 8.0), tensors=llama3_factors),
    "llama 3.2": _model(
        rope_parameters={**_llama3(8192, 32.0), "rope_theta": 500000.0},
        tensors=llama3_factors,
        head_dim=64,
        max_position_embeddings=131072,
    ),
    "llama 3 with ends of its own": _model(
        rope_parameters=_llama3(100, 5.0, 2.0, 9.0), tensors=llama3_factors
    ),
    "factors of no known kind": _model(
        rope_parameters=_rope("longrope", original_max_position_embeddings=256, **ODD), tensors=_odd_factors
    ),
    "linear": _model(more=_linear(4.0), rope_parameters=_rope("linear", factor=4.0)),
    "linear of older files": _model(
        more=lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0),
        rope_parameters=_rope("linear", factor=4.0),
    ),
    "no scaling": _model(more=_linear(4.0, gguf.RopeScalingType.NONE)),
    "yarn": _model(
        "qwen2",
        _yarn(4.0, 64),
        rope_parameters=_rope("yarn", factor=4.0, original_max_position_embeddings=64),
    ),
    "yarn with all its keys": _model(
        "llama",
        _yarn(
            4.0,
            64,
            lambda writer: (
                writer.add_rope_scaling_yarn_beta_fast(16.0),
                writer.add_rope_scaling_yarn_beta_slow(2.0),
                writer.add_rope_scaling_yarn_attn_factor(0.8),
            ),
        ),
        rope_parameters=_rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=64,
            beta_fast=16.0,
            beta_slow=2.0,
            attention_factor=0.8 * (0.1 * math.log(4.0) + 1),
        ),
    ),
    "qwen2": _model("qwen2"),
    "qwen3": _model("qwen3"),
    "smollm3": _model("smollm3", num_hidden_layers=4, rope_parameters=_rope("default")),
    "gemma3": _model(
        "gemma3_text",
        lambda writer: (writer.add_sliding_window(8), _linear(8.0)(writer)),
        num_hidden_layers=6,
        sliding_window=8,
        query_pre_attn_scalar=16,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
            "sliding_attention": _rope("default"),
        },
    ),
    "gemma3 with every third layer": _model(
        "gemma3_text",
        lambda writer: (writer.add_sliding_window(8), writer.add_sliding_window_pattern(3)),
        num_hidden_layers=3,
        sliding_window=8,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters={"full_attention": _rope("default"), "sliding_attention": _rope("default")},
    ),
    "phi3": _model("phi3", lambda writer: writer.add_sliding_window(8), sliding_window=8),
    "phi3 with longrope": _model(
        "phi3",
        _long_keys,
        _long_tensors,
        original_max_position_embeddings=64,
        rope_parameters=_rope("longrope", partial_rotary_factor=1.0, **LONG),
    ),
    "phi3 with a part rotated": _model(
        "phi3",
        lambda writer: writer.add_rope_dimension_count(12),
        rope_parameters=_rope("default", partial_rotary_factor=0.75),
    ),
}


def quantized(kind: gguf.GGMLQuantizationType) -> Callable[[Path], Path]:
    """Matrices in blocks of this kind; the original has the weights that they stand for."""

    def make(folder: Path) -> Path:
        tokenizer = of_bytes(_gpt2())
        model = original(folder / "original", tokenizer=tokenizer)
        write(folder / "model.gguf", model, tokenizer, blocks=kind)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    blocks = gguf.quantize(parameter.numpy(), kind)
                    parameter.copy_(torch.from_numpy(gguf.dequantize(blocks, kind).copy()))
        model.save_pretrained(folder / "original")
        return folder / "model.gguf"

    return make


MODELS |= {
    f"blocks of {kind}": quantized(gguf.GGMLQuantizationType[kind])
    for kind in ("Q8_0", "Q4_0", "Q5_1", "F16", "BF16")
}


def talking(folder: Path) -> Path:
    """With marks of beginning and end, a template of chats, and a token that ends a turn."""

    def keys(writer: gguf.GGUFWriter) -> None:
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)
        writer.add_eot_token_id(2)
        template = (
            "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        )
        writer.add_chat_template(template)

    return _model(more=keys)(folder)


def _bytes(pre: str, before: Callable[[], Any], **how: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tokenizer = of_bytes(before(), **how)
        model = original(folder / "original", tokenizer=tokenizer, num_hidden_layers=1)
        write(folder / "model.gguf", model, tokenizer, pre=pre)
        return folder / "model.gguf"

    return make


def _pieces(prefix: bool = True, own: tuple[str, ...] = ()) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tokenizer, scores, types = of_pieces(prefix, own)
        model = original(folder / "original", tokenizer=tokenizer, num_hidden_layers=1)

        def keys(writer: gguf.GGUFWriter) -> None:
            if not prefix:
                writer.add_add_space_prefix(False)

        write(folder / "model.gguf", model, tokenizer, keys, pre="default", pieces=(scores, types))
        return folder / "model.gguf"

    return make


def _digits() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


TOKENIZERS: dict[str, Callable[[Path], Path]] = {
    "gpt-2": _bytes("gpt-2", _gpt2),
    "smollm": _bytes("smollm", _digits),
    "llama-bpe": _bytes("llama-bpe", lambda: _after(LLAMA3), whole_words=True),
    "smaug-bpe": _bytes("smaug-bpe", lambda: _after(LLAMA3)),
    "qwen2": _bytes("qwen2", lambda: _after(QWEN2), normalizer=normalizers.NFC()),
    "tekken": _bytes("tekken", lambda: _after(TEKKEN), whole_words=True),
    "pieces": _pieces(),
    "pieces without a space in front": _pieces(prefix=False),
    "pieces with tokens of users": _pieces(prefix=False, own=("  ", "   ", "\n\n", "<table>")),
}


# -- what is refused


def _refused(more: Keys = lambda writer: None, **how: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tokenizer = of_bytes(_gpt2())
        model = original(folder / "original", tokenizer=tokenizer)
        write(folder / "model.gguf", model, tokenizer, more, **how)
        return folder / "model.gguf"

    return make


def _first_half(folder: Path) -> Path:
    tokenizer = of_bytes(_gpt2())
    model = original(folder / "original", tokenizer=tokenizer)

    def keys(writer: gguf.GGUFWriter) -> None:
        writer.add_uint16("split.no", 0)
        writer.add_uint16("split.count", 2)

    gone = {name: None for name in tensors_of(model, "llama") if ".1." in name}
    write(folder / "model-00001-of-00002.gguf", model, tokenizer, keys, tensors=gone)
    return folder / "model-00001-of-00002.gguf"


def _zero(name: str) -> dict[str, gguf.gguf_writer.GGUFValue]:
    return {name: gguf.gguf_writer.GGUFValue(0, gguf.GGUFValueType.UINT32)}


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "one part of several": (_first_half, r"one part of(.|\n)*1 of 2(.|\n)*--merge"),
    "experts": (_refused(lambda writer: writer.add_expert_count(8)), r"mixture of experts\n  found: +8"),
    "an unknown cut of text": (_refused(pre="viking"), r"tokenizer.ggml.pre=viking"),
    "no cut of text": (_refused(pre=None), r"tokenizer.ggml.pre=none"),
    "an unknown architecture": (_refused(architecture="falcon"), r"unknown architecture"),
    "a tensor too few": (
        _refused(tensors={"blk.1.ffn_up.weight": None}),
        r"missing(.|\n)*blk.1.ffn_up.weight",
    ),
    "a tensor too many": (
        _refused(tensors={"blk.1.ffn_gate_inp.weight": np.ones((2, 64), np.float32)}),
        r"no place for(.|\n)*ffn_gate_inp",
    ),
    "a tensor of another size": (
        _refused(tensors={"output_norm.weight": np.ones(32, np.float32)}),
        r"sizes(.|\n)*output_norm.weight \[32\], not \[64\]",
    ),
    "a key without a place": (
        _refused(lambda writer: writer.add_logit_scale(0.5)),
        r"cannot apply: llama.logit_scale",
    ),
    "a window that a Llama has not": (
        _refused(lambda writer: writer.add_sliding_window(16)),
        r"cannot apply: llama.attention.sliding_window",
    ),
    "an unknown scaling": (
        _refused(lambda writer: writer.add_string("llama.rope.scaling.type", "ntk")),
        r"rope.scaling.type=ntk",
    ),
    "layers unlike each other": (
        _refused(lambda writer: writer.add_array("llama.attention.sliding_window_pattern", [True, False])),
        r"cannot apply: llama.attention.sliding_window_pattern",
    ),
    "a mark behind the tokens": (
        _refused(lambda writer: writer.add_pad_token_id(99999)),
        r"a token that it has not\n(.|\n)*padding_token_id=99999(.|\n)*0 to ",
    ),
    **{
        f"numbers of {kind}": (
            _refused(tensors={"output_norm.weight": np.ones(64, kind)}),
            rf"no weight's\n  found: +output_norm.weight of {name}",
        )
        for kind, name in (("float64", "F64"), ("int32", "I32"), ("int8", "I8"))
    },
    **{
        f"no heads by {name}": (
            _refused(lambda writer, name=name: writer.kv_data[0].update(_zero(f"llama.attention.{name}"))),
            rf"cannot apply: llama.attention.{name}\n  found: +0",
        )
        for name in ("head_count", "head_count_kv")
    },
    "numbers of other machines": (_refused(endianess=gguf.GGUFEndian.BIG), r"big-endian"),
    "no merges": (
        _refused(lambda writer: writer.kv_data[0].pop("tokenizer.ggml.merges")),
        r"no tokenizer.ggml.merges",
    ),
    "a key of the tokenizer": (
        _refused(lambda writer: writer.add_bool("tokenizer.ggml.escape_whitespaces", False)),
        r"cannot apply: tokenizer.ggml.escape_whitespaces",
    ),
}

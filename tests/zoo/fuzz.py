"""Checkpoints of which one value is changed, at random by a seed: keys of config.json from transformers' own
classes, and those of the other files that a reader goes by.

A value is one that the key may have in somebody's file: the opposite of a switch, another number or name, a
list with other elements; seldom nothing at all, or a key of another model type's class.
"""

import functools
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from compress.models.architectures import IMAGE_TRANSFORMERS, LANGUAGE_MODELS, TEXT_ENCODERS
from tests.zoo import encoders, images

REMOVED = "(removed)"
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Change:
    """One value of a file of a folder; `keys` lead to it, by name or by number."""

    subject: str
    file: str
    keys: tuple[str | int, ...]
    value: Any

    def __str__(self) -> str:
        return f"{self.subject}: {self.file} {'.'.join(map(str, self.keys))} = {json.dumps(self.value)}"


# -- what values a key may have

_ACTIVATIONS = (
    "gelu",
    "relu",
    "silu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "quick_gelu",
    "relu2",
    "tanh",
    "mish",
)
_DTYPES = ("float16", "bfloat16", "float32", "float64", "auto")
_FACTORS = (1.0, 2.0, 4.0, 1.5)
_ROTATIONS: tuple[dict[str, Any], ...] = (
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 0.7},
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {
        "rope_type": "longrope",
        "short_factor": [1.0] * 8,
        "long_factor": [1.0 + i for i in range(8)],
        "original_max_position_embeddings": 64,
        "factor": 4.0,
    },
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    {"rope_type": "ntk", "factor": 2.0},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
)
_LAYERS = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")
NAMED: dict[str, Sequence[Any]] = {
    **dict.fromkeys(("hidden_act", "hidden_activation", "activation", "pooler_act"), _ACTIVATIONS),
    **dict.fromkeys(("dtype", "torch_dtype"), _DTYPES),
    **dict.fromkeys(
        ("attn_implementation", "_attn_implementation"),
        ("eager", "sdpa", "flash_attention_2", "flex_attention"),
    ),
    **dict.fromkeys(("sliding_window", "local_attention", "attention_chunk_size"), (None, 3, 8, 65, 400, 0)),
    **dict.fromkeys(("max_window_layers", "no_rope_layer_interval"), (0, 1, 2, 3)),
    **dict.fromkeys(("sliding_window_pattern", "_sliding_window_pattern"), (1, 2, 3, "LG", "LLG", None)),
    **dict.fromkeys(("final_logit_softcapping", "attn_logit_softcapping"), (2.0, 30.0, None)),
    **dict.fromkeys(("eos_token_id", "bos_token_id", "pad_token_id"), (0, 1, 5, [0, 5], None, -1, 100000)),
    "rope_scaling": (None, *_ROTATIONS, *({"type": r["rope_type"], **r} for r in _ROTATIONS)),
    "rope_parameters": (None, {}, *({"rope_theta": 900.0, **r} for r in _ROTATIONS), *_ROTATIONS),
    **dict.fromkeys(
        ("rope_theta", "rope_local_base_freq", "global_rope_theta", "local_rope_theta"), (100.0, 1e6, 5000)
    ),
    "partial_rotary_factor": (0.25, 0.5, 0.75, 1.0, 2.0),
    "rope_type": [r["rope_type"] for r in _ROTATIONS],
    "layer_types": (
        None,
        ["full_attention"] * 2,
        *([kind, other] * n for kind in _LAYERS[:2] for other in _LAYERS for n in (1, 2)),
    ),
    "no_rope_layers": (None, [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1], []),
    "position_embedding_type": ("absolute", "relative_key", "relative_key_query", "rotary", "alibi"),
    "problem_type": ("regression", "single_label_classification", "multi_label_classification"),
    "classifier_pooling": ("cls", "mean", "late"),
    "model_type": (*LANGUAGE_MODELS, *TEXT_ENCODERS, *IMAGE_TRANSFORMERS, "gpt2", "gemma2", "albert", "t5"),
    "architectures": (
        [],
        None,
        ["LlamaForSequenceClassification"],
        ["BertForMaskedLM"],
        ["Qwen2ForCausalLM"],
        ["ViTForImageClassification"],
    ),
    "id2label": ({"0": "a"}, {"0": "a", "1": "b", "2": "c"}, {"0": "a", "1": "b", "2": "c", "3": "d"}, None),
    "label2id": ({"a": 0, "b": 1, "c": 2}, {"LABEL_0": 2, "LABEL_1": 1, "LABEL_2": 0}, {}),
    "num_labels": (2, 3, 4),
    "quantization_config": ({"quant_method": "gptq", "bits": 4}, {"quant_method": "bitsandbytes"}, {}),
    "pruned_heads": ({}, {"0": [0]}),
    "clip_qkv": (0.5, 8.0, None),
    "use_bidirectional_attention": (True, "all", None),
    "is_causal": (True, False),
    "moe_layers": ([0],),
    "layers_to_transform": ([0],),
    "num_experts": (0, 1, 2),
    "attention_multiplier": (1.0, 0.1),
    "transformers_version": ("4.30.0", "4.57.6", "9.0.0"),
}
LEGACY = {  # read by transformers 5, and in no class of its
    "language_modeling": (
        *("rope_scaling", "rope_theta", "partial_rotary_factor", "torch_dtype", "num_labels", "is_causal"),
        *("quantization_config", "model_type", "architectures", "attn_implementation", "pruned_heads"),
        *("rope_local_base_freq", "sliding_window_pattern", "clip_qkv", "num_experts", "eos_token_id"),
    ),
    "sentence_embedding": (
        *("rope_scaling", "rope_theta", "partial_rotary_factor", "torch_dtype", "is_causal", "pruned_heads"),
        *("quantization_config", "model_type", "architectures", "attn_implementation", "is_decoder"),
        *("global_rope_theta", "local_rope_theta", "position_embedding_type", "num_labels"),
    ),
    "image_classification": (
        *("torch_dtype", "num_labels", "quantization_config", "model_type", "architectures", "id2label"),
        *("attn_implementation", "pruned_heads"),
    ),
}


# Keys that decide what a language model computes of the same weights.
COMPUTED = {
    *(
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "partial_rotary_factor",
        "original_max_position_embeddings",
    ),
    *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "sliding_window_pattern"),
    *("no_rope_layers", "no_rope_layer_interval", "rms_norm_eps", "hidden_act", "hidden_activation"),
    *("query_pre_attn_scalar", "final_logit_softcapping", "attn_logit_softcapping", "attention_multiplier"),
    *("embedding_multiplier", "residual_multiplier", "logits_scaling", "max_position_embeddings"),
}


def another(key: str, value: Any, rng: random.Random) -> Any:
    """Another value of `key` than `value`."""
    if key in NAMED:
        return rng.choice([each for each in NAMED[key] if each != value])
    if rng.random() < 0.06:
        return None if value is not None else rng.choice((True, 1, 0.5, "none"))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([n for n in (value * 2, value // 2, value + 1, value - 1, 0, -1, 1) if n != value])
    if isinstance(value, float):
        return rng.choice([x for x in (value * 2, value / 2, 0.0, 1.0, value + 0.1, -value) if x != value])
    if isinstance(value, str):
        return rng.choice((value.upper() + "x", ""))
    if isinstance(value, list):
        if not value:
            return [1]
        place = rng.randrange(len(value))
        return rng.choice(
            (
                [*value, value[-1]],
                value[:-1],
                [*value[:place], another("", value[place], rng), *value[place + 1 :]],
            )
        )
    if isinstance(value, dict):
        if not value:
            return {"other": 1}
        inside = rng.choice(sorted(value))
        return {**value, inside: another(inside, value[inside], rng)}
    return rng.choice((True, 1, 2, 0.5))  # of None


# -- folders that are changed


@dataclass(frozen=True)
class Subject:
    task: str
    make: Make


def _language(kind: str, **changes: Any) -> Make:
    def make(folder: Path) -> None:
        from tests.conftest import sentence, write_language

        rng = random.Random(1)
        texts = [" ".join(sentence(rng) for _ in range(4)) for _ in range(40)]
        write_language(folder, kind, texts, **changes)

    return make


def _encoder(kind: str, **changes: Any) -> Make:
    def make(folder: Path) -> None:
        encoders.of(kind)(folder)
        encoders.change(folder / "config.json", **changes)

    return make


def _rotated(place: int, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10000.0, **_ROTATIONS[place], **more}}


_LLAMA3, _LONG, _LINEAR, _YARN = 6, 7, 1, 5
_WINDOWS = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}


_KINDS_OF_IMAGES = {"vit": "squashed", "deit": "deit", "beit": "beit", "dinov2": "shorter side, cropped"}
_KINDS_OF_IMAGES |= {"convnext": "share of the crop", "resnet": "share of the crop, by default"}
# Of features that a plain model of the type has not: each has the type in front of its comma.
_LANGUAGE: dict[str, Make] = {
    "llama, llama3": _language("llama", **_rotated(_LLAMA3)),
    "llama, yarn": _language("llama", **_rotated(_YARN, original_max_position_embeddings=64)),
    "mistral, window": _language("mistral", sliding_window=5),
    **{f"{kind}, windows": _language(kind, **_WINDOWS) for kind in ("qwen2", "qwen3")},
    "gemma3_text, capped": _language(
        "gemma3_text",
        num_hidden_layers=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        sliding_window=5,
        final_logit_softcapping=2.0,
        attn_logit_softcapping=3.0,
    ),
    "phi3, longrope": _language(
        "phi3", sliding_window=9, original_max_position_embeddings=64, **_rotated(_LONG)
    ),
    "llama, biased": _language("llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
}
_ENCODERS: dict[str, Make] = {
    "eurobert, linear": _encoder("eurobert", **_rotated(_LINEAR)),
    "bert, decoder": _encoder("bert", is_decoder=True),
}
SUBJECTS: dict[str, Subject] = {
    **{kind: Subject("language_modeling", _language(kind)) for kind in LANGUAGE_MODELS},
    **{name: Subject("language_modeling", make) for name, make in _LANGUAGE.items()},
    **{
        kind + ", embedding" * (kind in LANGUAGE_MODELS): Subject("sentence_embedding", encoders.of(kind))
        for kind in TEXT_ENCODERS
    },
    **{name: Subject("sentence_embedding", make) for name, make in _ENCODERS.items()},
    **{
        kind: Subject("image_classification", functools.partial(images.publish, name))
        for kind, name in _KINDS_OF_IMAGES.items()
    },
}


# Those of every class, of which few do anything, and sizes that the weights have.
_SELDOM = set(json.loads(transformers.PreTrainedConfig().to_json_string(use_diff=False)))
_SELDOM |= {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_channels",
    "dim",
    "hidden_dim",
    "hidden_sizes",
}


@functools.cache
def _class_of(kind: str) -> dict[str, Any]:
    """Keys and defaults of the class of a subject's model type."""
    described = json.loads(
        transformers.AutoConfig.for_model(kind.partition(",")[0]).to_json_string(use_diff=False)
    )
    return {key: value for key, value in described.items() if key not in ("model_type", "_name_or_path")}


def of_config(subject: str, folder: Path, rng: random.Random) -> Change:
    """A key of the class of the model type or of another one, or one that was read before."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    kind = rng.random()
    if kind < 0.2:
        key = rng.choice(LEGACY[SUBJECTS[subject].task])
    elif kind < 0.35:
        kinds = [name for name, each in SUBJECTS.items() if each.task == SUBJECTS[subject].task]
        key = rng.choice(
            sorted({key for name in kinds for key in _class_of(name)} - _class_of(subject).keys())
        )
        foreign = [_class_of(name)[key] for name in kinds if key in _class_of(name)]
        return Change(subject, "config.json", (key,), another(key, foreign[0], rng))
    else:
        known = _class_of(subject)
        seldom, often = [key for key in sorted(known) if key in _SELDOM], sorted(known.keys() - _SELDOM)
        key = rng.choice(seldom if rng.random() < 0.15 else often)
    if key in config and rng.random() < 0.1:
        return Change(subject, "config.json", (key,), REMOVED)
    value = config.get(key, _class_of(subject).get(key))
    if isinstance(value, Mapping) and value and rng.random() < 0.5 and "label" not in key:
        keys, value = _nested((key,), value, rng)
        return Change(subject, "config.json", keys, value)
    return Change(subject, "config.json", (key,), another(key, value, rng))


def _nested(
    keys: tuple[str | int, ...], value: Mapping[str, Any], rng: random.Random
) -> tuple[tuple[str | int, ...], Any]:
    """A key within, or one of a rotation that is not there, and its other value."""
    inside = rng.choice(sorted(value))
    if isinstance(value[inside], Mapping):
        return _nested((*keys, inside), value[inside], rng)
    if "rope_type" in value and rng.random() < 0.4:
        given = {key: each for rotation in _ROTATIONS for key, each in rotation.items()}
        inside = rng.choice(sorted({*given, "attention_factor", "mscale_all_dim", "llama_4_scaling_beta"}))
        return (*keys, inside), another(inside, given.get(inside, 0.5), rng)
    return (*keys, inside), another(inside, value[inside], rng)


# -- files beside config.json


_TOKEN = (
    "[PAD]",
    "the",
    "<|im_start|>",
    "<new>",
    "",
    None,
    {"content": "<s>", "lstrip": True, "special": True},
)
_CLASSES = (
    "PreTrainedTokenizerFast",
    "BertTokenizer",
    "RobertaTokenizer",
    "LlamaTokenizer",
    "Qwen2Tokenizer",
)
_CLASSES += ("GPT2Tokenizer", "TokenizersBackend", "NoSuchTokenizer", "XLMRobertaTokenizer", "T5Tokenizer")
_NORMALIZERS = (
    {"type": "Lowercase"},
    {"type": "NFKC"},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Prepend", "prepend": "a"},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
    None,
)
_SPLITS = (
    {"type": "Whitespace"},
    {"type": "WhitespaceSplit"},
    {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    {"type": "Digits", "individual_digits": True},
    {"type": "Punctuation", "behavior": "Isolated"},
    None,
)
_BOUNDS: dict[str, Any] = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
_FILLED: dict[str, Any] = {"strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": None}
_FILLED |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
_MARKS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "pad", "cls", "sep", "mask"))
_SWITCHES = ("add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case", "strip_accents", "legacy")
_SWITCHES += (
    "tokenize_chinese_chars",
    "split_special_tokens",
    "clean_up_tokenization_spaces",
    "trim_offsets",
)
_SWITCHES += ("do_basic_tokenize", "spaces_between_special_tokens", "use_fast", "from_slow")
_SIDES = dict.fromkeys(("padding_side", "truncation_side"), ("left", "right", "middle", None))
_TEXTUAL: dict[str, dict[str, Sequence[Any]]] = {
    "tokenizer_config.json": {
        **dict.fromkeys(_MARKS, _TOKEN),
        **dict.fromkeys(_SWITCHES, (True, False, None)),
        **_SIDES,
        "tokenizer_class": _CLASSES,
        "model_max_length": (5, 9, 64, 10**30, None, 0, "64"),
        "additional_special_tokens": (["<new>", "the"], [], None),
        "extra_special_tokens": (["<new>"], {"image_token": "<image>"}, {}),
        "added_tokens_decoder": ({"0": {"content": "[PAD]", "rstrip": True, "special": True}}, {}),
        "model_input_names": (["input_ids"], ["input_ids", "token_type_ids", "attention_mask"]),
        "chat_template": ("{{ messages }}", "{% broken", [{"name": "default", "template": "x"}]),
        "truncation": (True, _BOUNDS),
        "pad_to_multiple_of": (8,),
        "never_split": (["the"],),
    },
    "tokenizer.json": {
        "normalizer": _NORMALIZERS,
        "pre_tokenizer": _SPLITS,
        "post_processor": (None, {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}),
        "decoder": (
            None,
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        ),
        "truncation": (_BOUNDS, {**_BOUNDS, "direction": "Right"}),
        "padding": (_FILLED, {**_FILLED, "strategy": "BatchLongest"}),
        "version": ("2.0",),
    },
    "special_tokens_map.json": {
        **dict.fromkeys(_MARKS, _TOKEN),
        "additional_special_tokens": (["<new>", "the"], []),
    },
    "added_tokens.json": {"<new>": (300, 5), "the": (2,)},
}
_FILES: dict[str, dict[str, dict[str, Sequence[Any]]]] = {
    "language_modeling": {
        **_TEXTUAL,
        "generation_config.json": {
            "eos_token_id": (0, 5, [0, 5], [], None, -1),
            "bos_token_id": (0, None),
            "max_length": (5, None),
            "do_sample": (True,),
            "repetition_penalty": (1.5,),
            "suppress_tokens": ([5],),
            "forced_eos_token_id": (5,),
        },
    },
    "sentence_embedding": {
        **_TEXTUAL,
        "modules.json": {
            "0": ("type", "path", "kwargs"),
            "1": ("type", "path", "kwargs", "removed"),
            "2": ("type", "path", "kwargs", "removed"),
        },
        "1_Pooling/config.json": {
            **dict.fromkeys(
                (
                    *("pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_tokens"),
                    *("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"),
                    *("pooling_mode_lasttoken", "include_prompt"),
                ),
                (True, False),
            ),
            "pooling_mode": ("cls", "max", "mean", "lasttoken", ["cls", "mean"], "none", []),
            "word_embedding_dimension": (8, 16, 32),
            "embedding_dimension": (8, 16),
            "unknown": (1,),
        },
        "2_Normalize/config.json": {"module_input_name": ("token_embeddings",), "other": (1,)},
        "sentence_bert_config.json": {
            "max_seq_length": (5, 40, 64, 66, 500, None, 0),
            "do_lower_case": (True, False, None),
            "tokenizer_args": ({"padding_side": "left"}, {}),
            "model_args": ({"torch_dtype": "float16"}, {}),
            "config_args": ({"hidden_act": "relu"}, {}),
            "model_kwargs": ({"dtype": "float16"}, {}),
            "config_kwargs": ({"hidden_act": "relu"}, {}),
            "processor_kwargs": ({"padding_side": "left"}, {}),
            "cache_dir": ("x",),
            "unpad_inputs": (True, False),
            "transformer_task": ("fill-mask", "feature-extraction"),
            "unknown": (1,),
        },
        "config_sentence_transformers.json": {
            "prompts": ({"query": "the : ", "document": "a "}, {}, None, {"other": "the "}),
            "default_prompt_name": ("query", "other", None, ""),
            "similarity_fn_name": ("dot", "cosine", "euclidean", "manhattan", "maxsim", None),
            "truncate_dim": (5, 16, 100, 0, None),
            "model_type": ("SentenceTransformer", "SparseEncoder", "CrossEncoder"),
            "__version__": ({"sentence_transformers": "9.0.0"},),
        },
    },
    "image_classification": {
        "preprocessor_config.json": {
            **dict.fromkeys(
                (
                    *(
                        "do_resize",
                        "do_rescale",
                        "do_normalize",
                        "do_center_crop",
                        "do_convert_rgb",
                        "do_pad",
                    ),
                    *("rescale_offset", "include_top", "do_flip_channel_order", "do_reduce_labels"),
                    *(
                        "default_to_square",
                        "return_tensors",
                        "antialias",
                        "do_thumbnail",
                        "do_align_long_axis",
                    ),
                ),
                (True, False, None),
            ),
            "size": (
                *(40, 32, {"height": 40, "width": 32}, {"height": 32, "width": 32}, {"shortest_edge": 32}),
                *(
                    {"shortest_edge": 40},
                    {"longest_edge": 32},
                    {"shortest_edge": 30, "longest_edge": 32},
                    [32, 32],
                ),
                None,
            ),
            "crop_size": (
                32,
                {"height": 32, "width": 32},
                {"height": 28, "width": 32},
                {"shortest_edge": 32},
                None,
            ),
            "resample": (0, 1, 2, 3, 4, 5, None, 9),
            "image_mean": ([0.1, 0.2, 0.3], 0.5, [0.5], None, [0.1, 0.2]),
            "image_std": ([0.1, 0.2, 0.3], 0.5, [0.5], None, [0.0, 1.0, 1.0]),
            "rescale_factor": (1.0, 1 / 127.5, 0, None),
            "crop_pct": (0.5, 0.9, 1.0, None),
            "data_format": ("channels_last", "channels_first"),
            "input_data_format": ("channels_last", "channels_first"),
            "pad_size": ({"height": 40, "width": 40},),
            "size_divisor": (16,),
            "image_processor_type": (
                *(
                    "ViTImageProcessor",
                    "ViTImageProcessorFast",
                    "BitImageProcessor",
                    "ConvNextImageProcessor",
                ),
                *("CLIPImageProcessor", "DeiTImageProcessor", "BeitImageProcessor", "SiglipImageProcessor"),
                *("EfficientNetImageProcessor", "LevitImageProcessor", "PoolFormerImageProcessor", "None"),
            ),
            "feature_extractor_type": ("ViTFeatureExtractor", "ConvNextFeatureExtractor"),
            "unknown": (1,),
        },
    },
}
TENSORS = (
    "removed",
    "added",
    "renamed",
    "float16",
    "bfloat16",
    "float64",
    "int64",
    "flat",
    "NaN",
    "no format",
)


def of_files(subject: str, folder: Path, rng: random.Random) -> Change:
    """A key of a file beside config.json, or a tensor."""
    files = _FILES[SUBJECTS[subject].task]
    file = rng.choice([*files, "model.safetensors"])
    if file == "model.safetensors":
        return Change(subject, file, (rng.choice(sorted(load_file(folder / file))),), rng.choice(TENSORS))
    if file == "modules.json":
        place = rng.choice(sorted(files[file]))
        return Change(subject, file, (int(place),), rng.choice(files[file][place]))
    content = json.loads((folder / file).read_text("utf-8")) if (folder / file).is_file() else {}
    if file == "tokenizer.json" and rng.random() < 0.6:
        within = {key: each for key, each in content.items() if isinstance(each, dict | list) and each}
        within["model"] = {k: v for k, v in content["model"].items() if k not in ("vocab", "merges")}
        keys, value = _leaf((), within, rng)
        return Change(subject, file, keys, another(str(keys[-1]), value, rng))
    if content and rng.random() < 0.1:
        return Change(subject, file, (rng.choice(sorted(content)),), REMOVED)
    key = rng.choice(sorted(files[file]))
    values = [each for each in files[file][key] if each != content.get(key, "nothing")]
    return Change(subject, file, (key,), rng.choice(values))


def _leaf(keys: tuple[str | int, ...], value: Any, rng: random.Random) -> tuple[tuple[str | int, ...], Any]:
    if isinstance(value, dict | list) and value:
        inside = rng.choice(sorted(value)) if isinstance(value, dict) else rng.randrange(len(value))
        return _leaf((*keys, inside), value[inside], rng)
    return keys, value


def _change_tensor(path: Path, name: str, how: Any) -> None:
    weights = load_file(path)
    tensor = weights.pop(name)
    if how == "added":
        weights[f"{name}.more"] = tensor.clone()
    if how == "renamed":
        name = f"{name}_"
    elif how in ("float16", "bfloat16", "float64", "int64"):
        tensor = tensor.to(getattr(torch, how))
    elif how == "flat":
        tensor = tensor.flatten()[:-1].clone()
    elif how == "NaN":
        tensor = torch.full_like(tensor, float("nan"))
    if how != "removed":
        weights[name] = tensor
    save_file(weights, path, None if how == "no format" else {"format": "pt"})


def _change_module(listed: list[dict[str, Any]], place: int, what: str) -> None:
    if what == "removed":
        del listed[place]
    elif what == "kwargs":
        listed[place]["kwargs"] = ["task"]
    elif what == "path":
        listed[place]["path"] = f"{place}_Elsewhere"
    else:
        kinds = ("Transformer", "Pooling", "Normalize", "Dense", "CNN")
        listed[place]["type"] = f"sentence_transformers.models.{kinds[(place + 1) % len(kinds)]}"


def apply(change: Change, folder: Path) -> None:
    """Change a file of `folder` in place."""
    path = folder / change.file
    if change.file == "model.safetensors":
        return _change_tensor(path, str(change.keys[0]), change.value)
    path.parent.mkdir(exist_ok=True)
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    *way, last = change.keys
    place = content
    for key in way:
        place = place[key]
    if change.file == "modules.json":
        _change_module(content, int(last), change.value)
    elif change.value == REMOVED:
        del place[last]
    else:
        place[last] = change.value
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def changed(change: Change, original: Path, folder: Path) -> Path:
    """A copy of `original` with the change."""
    shutil.copytree(original, folder)
    apply(change, folder)
    return folder

"""Keys of a GGUF file to config.json.

A key of the architecture that is asked for is applied. Of the others, those that change nothing are listed;
any other is an error, for what it says of the model would be lost.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.errors import ModelError

# Architecture of llama.cpp -> model type of transformers
TYPES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
    "smollm3": "smollm3",
}
ROTATION = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # no parameters
_IDLE = ("vocab_size", "expert_count", "expert_used_count", "rope.scaling.finetuned", "tensor_data_layout")
# Of the tokens that have one of these texts, all end what is generated: llama-vocab.cpp, `special_eog_ids`.
_ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>"),
    *("<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"),
    *("<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>"),
    *("<｜end▁of▁sentence｜>", "[e~["),
)
# Where no key names them: what ends a piece of code that is filled in.
_ENDS_OF_CODE = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# Texts that end nothing beside others, one of each
_NO_ENDS = {
    "<|end|>": ({"<|call|>", "<|calls|>"}, {"<|return|>", "<|flush|>"}),
    "</s>": ({"<|tool_response>"},),
}
Shapes = Mapping[str, tuple[int, ...]]
Factors = Mapping[str, np.ndarray]


def described(metadata: Mapping[str, Any], shapes: Shapes, factors: Factors) -> dict[str, Any]:
    """Values for transformers' config class, `model_type` among them.

    `shapes` of the tensors, `factors` those of `ROTATION`. Raises ModelError for what it cannot express.
    """
    architecture = metadata["general.architecture"]
    keys = _Keys(architecture, metadata)
    hidden, heads = keys.take("embedding_length"), keys.take("attention.head_count")
    shared = keys.take("attention.head_count_kv", heads)
    for name, count in (("head_count", heads), ("head_count_kv", shared)):
        if count < 1:
            keys.refuse(f"attention.{name}", count, "1 or more")
    head_dim = keys.take("attention.key_length", hidden // heads)
    keys.must_be("attention.value_length", head_dim)
    values = {
        "model_type": TYPES[architecture],
        "hidden_size": hidden,
        "num_hidden_layers": keys.take("block_count"),
        "intermediate_size": keys.take("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": head_dim,
        "max_position_embeddings": keys.take("context_length"),
        "rms_norm_eps": keys.take("attention.layer_norm_rms_epsilon"),
        "vocab_size": shapes.get("token_embd.weight", (0,))[0],
        "tie_word_embeddings": "output.weight" not in shapes,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": _ends(metadata),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }
    biased = {
        name: any(each.endswith(f"{part}.bias") for each in shapes)
        for name, part in (("attention_bias", "attn_q"), ("mlp_bias", "ffn_up"))
    }
    if architecture == "gemma3":
        values |= _gemma3(keys, values, factors)
    elif architecture == "phi3":
        values |= _phi3(keys, values, factors)
    else:
        keys.must_be("rope.dimension_count", head_dim)
        values["rope_parameters"] = rope_parameters(
            keys, values["max_position_embeddings"], head_dim, factors
        )
        if architecture in ("llama", "smollm3", "qwen3"):
            values |= biased
    keys.check_all_taken(values["max_position_embeddings"])
    return values


def _ends(metadata: Mapping[str, Any]) -> list[int] | int | None:
    """Of a text, of a turn, of a message to a tool: those that keys name, then those known by their text."""
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    named = (metadata.get(f"tokenizer.ggml.{end}_token_id") for end in ("eos", "eot", "eom", *_ENDS_OF_CODE))
    found = dict.fromkeys([*(number for number in named if number is not None), *ends_by_text(metadata)])
    present = {tokens[number] for number in found}
    gone = {text for text, others in _NO_ENDS.items() if all(each & present for each in others)}
    ends = [number for number in found if tokens[number] not in gone]
    return ends if len(ends) > 1 else next(iter(ends), None)


def ends_by_text(metadata: Mapping[str, Any]) -> list[int]:
    """Tokens that llama.cpp takes for control tokens that end a text, whatever their type."""
    numbers = {token: number for number, token in enumerate(metadata.get("tokenizer.ggml.tokens", ()))}
    texts = list(_ENDS)
    for end, some in _ENDS_OF_CODE.items():
        if f"tokenizer.ggml.{end}_token_id" not in metadata:
            texts += some
    return [numbers[text] for text in texts if text in numbers]


def _gemma3(keys: "_Keys", values: Mapping[str, Any], factors: Factors) -> dict[str, Any]:
    """Each sixth layer sees all and has the scaled rotation; the others have a window and their own one."""
    keys.must_be("rope.dimension_count", values["head_dim"])
    layers, largest = values["num_hidden_layers"], 62  # of 27B, whose scale goes by the width
    scalar = values["hidden_size"] // values["num_attention_heads"]
    kinds = keys.take("attention.sliding_window_pattern", 6, whole=True)
    windows = (
        kinds if isinstance(kinds, list) else [not kinds or bool((i + 1) % kinds) for i in range(layers)]
    )
    local = {"rope_type": "default", "rope_theta": keys.take("rope.freq_base_swa", 10000.0)}
    context = values["max_position_embeddings"]
    return {
        "rope_parameters": {
            "full_attention": rope_parameters(keys, context, values["head_dim"], factors),
            "sliding_attention": local,
        },
        "sliding_window": keys.take("attention.sliding_window"),
        "layer_types": ["sliding_attention" if each else "full_attention" for each in windows],
        "query_pre_attn_scalar": scalar if layers == largest else values["head_dim"],
        "final_logit_softcapping": keys.take("final_logit_softcapping", 0) or None,
    }


def _phi3(keys: "_Keys", values: Mapping[str, Any], factors: Factors) -> dict[str, Any]:
    rotated = keys.take("rope.dimension_count", values["head_dim"])
    rotation = rope_parameters(keys, values["max_position_embeddings"], rotated, factors)
    rotation["partial_rotary_factor"] = rotated / values["head_dim"]
    original = rotation.get("original_max_position_embeddings", values["max_position_embeddings"])
    return {
        "rope_parameters": rotation,
        "original_max_position_embeddings": original,
        "sliding_window": keys.take("attention.sliding_window", 0) or None,
    }


def rope_parameters(keys: "_Keys", context: int, rotated: int, factors: Factors) -> dict[str, Any]:
    """transformers' `rope_parameters` for one set of positions up to `context`, over `rotated` channels."""
    theta = keys.take("rope.freq_base", 10000.0)
    kind = keys.take("rope.scaling.type", "linear")
    factor = keys.take("rope.scaling.factor", 0) or keys.take("rope.scale_linear", 0) or 1.0
    original = keys.take("rope.scaling.original_context_length", context)
    attention = keys.take("rope.scaling.attn_factor", 1.0)
    plain = {"rope_type": "default", "rope_theta": theta}
    if "rope_factors_long.weight" in factors or kind == "longrope":
        lists = {f"{name}_factor": f"rope_factors_{name}.weight" for name in ("short", "long")}
        if missing := [name for name in lists.values() if name not in factors]:
            raise ModelError("a GGUF file's longrope lacks its factors", found=f"no {missing[0]}")
        return plain | {
            "rope_type": "longrope",
            **{name: [float(each) for each in factors[tensor]] for name, tensor in lists.items()},
            "original_max_position_embeddings": original,
            "attention_factor": attention,
        }
    if kind == "yarn":
        keys.must_be("rope.scaling.yarn_ext_factor", 1.0)
        keys.must_be("rope.scaling.yarn_log_multiplier", 0.0)
        attention *= keys.take("rope.scaling.yarn_attn_factor", 1.0)
        found = plain | {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": keys.take("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": keys.take("rope.scaling.yarn_beta_slow", 1.0),
        }
        if attention != 1:
            found["attention_factor"] = attention * (0.1 * math.log(factor) + 1)
    elif kind in ("linear", "none"):
        scaled = kind == "linear" and factor != 1
        found = plain | ({"rope_type": "linear", "factor": factor} if scaled else {})
    else:
        raise ModelError(
            "a GGUF file scales the rotation in an unknown way",
            found=f"rope.scaling.type={kind}",
            allowed="none, linear, yarn, longrope",
        )
    if kind != "yarn" and attention != 1:
        raise ModelError(
            f"a GGUF file scales attention beside {kind} rotation", found=f"attn_factor={attention}"
        )
    if "rope_freqs.weight" not in factors or np.allclose(factors["rope_freqs.weight"], 1):
        return found
    if found["rope_type"] != "default":
        raise ModelError(
            "a GGUF file scales the rotation twice", found=f"rope_freqs and {kind}", allowed="once"
        )
    return plain | of_factors(np.asarray(factors["rope_freqs.weight"], np.float64), theta, rotated, context)


def of_factors(factors: np.ndarray, theta: float, rotated: int, context: int) -> dict[str, Any]:
    """Rotation whose waves are longer by `factors` (rotated / 2): that of Llama 3.1 where it can give them,
    else these factors themselves, by longrope with the same ones for short and long texts.

    Llama 3.1 interpolates between 1 / factor and 1, linearly in 1 / length, so two points between give both
    ends, and published files show which of them to try first.
    """
    lengths = 2 * np.pi * theta ** (np.arange(0, rotated, 2) / rotated)
    factor = float(factors.max())
    between = (factors > 1 + 1e-5) & (factors < factor * (1 - 1e-5))
    tries = [(1.0, 4.0, 8192.0)]
    shares = (1 / factors[between] - 1 / factor) / (1 - 1 / factor)  # of what is not scaled
    if between.sum() > 1:
        slope, start = np.polyfit(1 / lengths[between], shares, 1)
        if start < 0:
            tries.append((1.0, 1 - 1 / start, -slope / start))
    elif between.sum() == 1:
        tries.append((1.0, 4.0, float(lengths[between][0] * (1 + 3 * shares[0]))))
    for low, high, original in tries:
        found: dict[str, Any] = {
            "factor": round(factor, 6),
            "low_freq_factor": low,
            "high_freq_factor": float(f"{high:.5g}"),
            "original_max_position_embeddings": round(original),
        }
        if np.allclose(llama3_factors(lengths, **found), factors, rtol=1e-5):
            return {"rope_type": "llama3", **found}
    return {
        "rope_type": "longrope",
        "short_factor": [float(each) for each in factors],
        "long_factor": [float(each) for each in factors],
        "original_max_position_embeddings": context,
        "attention_factor": 1.0,
    }


def llama3_factors(
    lengths: np.ndarray,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: int,
) -> np.ndarray:
    """Factors of the lengths of waves, as transformers' llama3 rotation has them."""
    turns = original_max_position_embeddings / lengths
    share = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return 1 / ((1 - share) / factor + share)


class _Keys:
    """Those of the architecture; what was asked for counts as applied."""

    def __init__(self, architecture: str, metadata: Mapping[str, Any]) -> None:
        self.architecture = architecture
        start = f"{architecture}."
        self.left = {name[len(start) :]: each for name, each in metadata.items() if name.startswith(start)}

    def take(self, name: str, default: Any = None, whole: bool = False) -> Any:
        """Of a list, unless it is wanted `whole`, what all layers have; raises ModelError where they differ,
        or where the file has neither the key nor we a default."""
        value = self.left.pop(name, default)
        if isinstance(value, list) and not whole:
            if len(set(value)) != 1:
                raise ModelError(f"layers of this GGUF file are not alike: {name}", found=str(value)[:80])
            value = value[0]
        if value is None:
            raise ModelError(f"a GGUF file of {self.architecture} lacks {self.architecture}.{name}")
        if isinstance(value, float):  # a float32: its shortest decimal is what was written
            value = float(str(np.float32(value)))
        return value

    def must_be(self, name: str, expected: Any) -> None:
        if (found := self.take(name, expected)) != expected:
            self.refuse(name, found, f"{expected}")

    def check_all_taken(self, context: int) -> None:
        """Raise ModelError for a key that nothing took and that may change what the model computes."""
        for name, value in self.left.items():
            window = name == "attention.sliding_window" and (not value or value >= context)
            if name not in _IDLE and not window:
                self.refuse(name, value, "keys that can be applied to this architecture")

    def refuse(self, name: str, value: Any, allowed: str) -> None:
        raise ModelError(
            f"a GGUF file says what we cannot apply: {self.architecture}.{name}",
            found=str(value)[:80],
            allowed=allowed,
            next="take the safetensors of the model",
        )

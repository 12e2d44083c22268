"""Published configurations of language models, every value that decides how one computes: only vocabulary and
widths are smaller, and layers as many as bring every kind of them."""

from pathlib import Path

import torch
import transformers

_SMALL = {"hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.1}
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3["original_max_position_embeddings"] = 8192


def _plain(theta: float) -> dict[str, object]:
    return {"rope_type": "default", "rope_theta": theta}


def _sizes(
    layers: int, heads: int, shared: int, size: int, context: int, **rest: object
) -> dict[str, object]:
    return {
        **_SMALL,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": size,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        **rest,
    }


PUBLISHED = {
    "Llama 3.2 1B": (
        "llama",
        _sizes(
            2, 32, 8, 64, 131072, rms_norm_eps=1e-5, tie_word_embeddings=True,
            rope_parameters={**_LLAMA3, "factor": 32.0},
        ),
    ),
    "Llama 3.1 8B": (
        "llama",
        _sizes(2, 32, 8, 128, 131072, rms_norm_eps=1e-5, rope_parameters={**_LLAMA3, "factor": 8.0}),
    ),
    "Llama 2 7B": ("llama", _sizes(2, 32, 32, 128, 4096, rms_norm_eps=1e-5, rope_parameters=_plain(1e4))),
    "Yi 6B": ("llama", _sizes(2, 32, 4, 128, 4096, rms_norm_eps=1e-6, rope_parameters=_plain(5e6))),
    "Mistral 7B 0.1": (
        "mistral",
        _sizes(2, 32, 8, 128, 32768, rms_norm_eps=1e-5, sliding_window=4096, rope_parameters=_plain(1e4)),
    ),
    "Qwen3 0.6B": (
        "qwen3",
        _sizes(
            2, 16, 8, 128, 40960, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=_plain(1e6),
            use_sliding_window=False, max_window_layers=28,
        ),
    ),
    "SmolLM2 135M": (
        "llama",
        _sizes(
            3, 9, 3, 64, 8192, hidden_size=72, rms_norm_eps=1e-5, tie_word_embeddings=True,
            rope_parameters=_plain(1e5),
        ),
    ),
    "SmolLM3 3B": (
        "smollm3",
        _sizes(
            4, 16, 4, 128, 65536, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=_plain(5e6),
            no_rope_layer_interval=4,
        ),
    ),
}  # fmt: skip


def write_model(folder: Path, name: str, vocabulary: int) -> None:
    """Random weights for a folder with a tokenizer; config.json has the published keys alone."""
    architecture, values = PUBLISHED[name]
    marks = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(architecture, vocab_size=vocabulary, **marks, **values)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)

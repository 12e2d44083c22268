"""Published configurations of language models, every value that decides how one computes: only vocabulary
and widths are smaller, heads fewer with as many to each of keys and values, and layers as many as bring every
kind of them."""

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


def _gemma(hidden: int) -> dict[str, object]:
    """The width stays, for the embedding is multiplied by its root."""
    return _sizes(
        9, 4, 1, 256, 32768, hidden_size=hidden, initializer_range=0.02, rms_norm_eps=1e-6,
        tie_word_embeddings=True, sliding_window=512, query_pre_attn_scalar=256,
        hidden_activation="gelu_pytorch_tanh", attention_bias=False,
        layer_types=[*["sliding_attention"] * 5, "full_attention", *["sliding_attention"] * 3],
        rope_parameters={"full_attention": _plain(1e6), "sliding_attention": _plain(1e4)},
    )  # fmt: skip


def _phi(heads: int, context: int, window: int, rope: dict[str, object]) -> dict[str, object]:
    """Heads are of 96 by their number."""
    return _sizes(
        2, heads, heads, 96, context, hidden_size=96 * heads, rms_norm_eps=1e-5, sliding_window=window,
        original_max_position_embeddings=4096, hidden_act="silu", rope_parameters=rope,
    )  # fmt: skip


def _longrope(short: list[float], long: list[float]) -> dict[str, object]:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 4096}
    return {**rope, "short_factor": short, "long_factor": long}


_PHI3_128K = _longrope(
    [
        *[1.1] * 3, 1.3, 1.35, 1.35, 1.4, 1.55, *[2.0] * 17, *[2.05] * 6, 2.1, 2.1, 2.15, *[2.25] * 5, 2.4,
        2.45, 2.5, 2.7, 2.7, 2.75, 2.8, 2.9, 3.05,
    ],
    [
        1.0700000524520874, 1.1200000047683716, 1.149999976158142, 1.4199999570846558, 1.5699999332427979,
        1.7999999523162842, 2.129999876022339, 2.129999876022339, 3.009999990463257, 5.910000324249268,
        6.950000286102295, 9.070000648498535, 9.930000305175781, 10.710000038146973, 11.130000114440918,
        14.609999656677246, 15.409998893737793, 19.809999465942383, 37.279998779296875, 38.279998779296875,
        38.599998474121094, 40.12000274658203, 46.20000457763672, 50.940006256103516, 53.66000747680664,
        54.9373893737793, 56.89738845825195, 57.28738784790039, 59.98738479614258, 60.86738586425781,
        60.887386322021484, 61.71739196777344, 62.91739273071289, 62.957393646240234, 63.41739273071289,
        63.8173942565918, 63.83739471435547, 63.897396087646484, 63.93739700317383, 64.06739807128906,
        64.11434936523438, 64.12435150146484, 64.15435028076172, 64.19435119628906, 64.24435424804688,
        64.57435607910156, 64.69000244140625, 64.76000213623047,
    ],
)  # fmt: skip
_PHI35 = _longrope(
    [
        1.0, 1.0199999809265137, 1.0299999713897705, 1.0299999713897705, *[1.0499999523162842] * 5,
        1.0699999332427979, 1.0999999046325684, 1.1099998950958252, 1.1599998474121094, 1.1599998474121094,
        1.1699998378753662, 1.2899998426437378, 1.339999794960022, 1.679999828338623, 1.7899998426437378,
        1.8199998140335083, 1.8499997854232788, 1.8799997568130493, 1.9099997282028198, 1.9399996995925903,
        1.9899996519088745, *[2.0199997425079346] * 6, *[2.0299997329711914] * 9, 2.0799996852874756,
        2.0899996757507324, 2.189999580383301, 2.2199995517730713, 2.5899994373321533, 2.729999542236328,
        2.749999523162842, 2.8399994373321533,
    ],
    [
        1.0800000429153442, 1.1100000143051147, 1.1399999856948853, 1.340000033378601, 1.5899999141693115,
        1.600000023841858, 1.6200000047683716, 2.620000123977661, 3.2300000190734863, 3.2300000190734863,
        4.789999961853027, 7.400000095367432, 7.700000286102295, 9.09000015258789, 12.199999809265137,
        17.670000076293945, 24.46000099182129, 28.57000160217285, 30.420001983642578, 30.840002059936523,
        32.590003967285156, 32.93000411987305, 42.320003509521484, 44.96000289916992, 50.340003967285156,
        50.45000457763672, 57.55000305175781, 57.93000411987305, 58.21000289916992, 60.1400032043457,
        62.61000442504883, 62.62000274658203, 62.71000289916992, 63.1400032043457, 63.1400032043457,
        63.77000427246094, 63.93000411987305, 63.96000289916992, 63.970001220703125, 64.02999877929688,
        64.06999969482422, 64.08000183105469, 64.12000274658203, 64.41000366210938, 64.4800033569336,
        64.51000213623047, 64.52999877929688, 64.83999633789062,
    ],
)  # fmt: skip
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
        _sizes(2, 16, 4, 128, 131072, rms_norm_eps=1e-5, rope_parameters={**_LLAMA3, "factor": 8.0}),
    ),
    "Llama 2 7B": ("llama", _sizes(2, 2, 2, 128, 4096, rms_norm_eps=1e-5, rope_parameters=_plain(1e4))),
    "Yi 6B": ("llama", _sizes(2, 16, 2, 128, 4096, rms_norm_eps=1e-5, rope_parameters=_plain(5e6))),
    "Mistral 7B 0.1": (
        "mistral",
        _sizes(2, 4, 1, 128, 32768, rms_norm_eps=1e-5, sliding_window=4096, rope_parameters=_plain(1e4)),
    ),
    "Mistral 7B 0.3": (
        "mistral",
        _sizes(2, 4, 1, 128, 32768, rms_norm_eps=1e-5, sliding_window=None, rope_parameters=_plain(1e6)),
    ),
    "Qwen2 0.5B": (
        "qwen2",
        _sizes(
            5, 14, 2, 64, 131072, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=_plain(1e6),
            use_sliding_window=False, sliding_window=131072, max_window_layers=24,
        ),
    ),
    "Qwen2.5 0.5B": (
        "qwen2",
        _sizes(
            2, 14, 2, 64, 32768, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=_plain(1e6),
            use_sliding_window=False, sliding_window=32768, max_window_layers=24,
        ),
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
    "Gemma 3 270M": ("gemma3_text", _gemma(640)),
    "Gemma 3 1B": ("gemma3_text", _gemma(1152)),
    "Phi-3 mini 4k": ("phi3", _phi(2, 4096, 2047, _plain(1e4))),
    "Phi-3 mini 128k": ("phi3", _phi(6, 131072, 262144, _PHI3_128K)),
    "Phi-3.5 mini": ("phi3", _phi(6, 131072, 262144, _PHI35)),
}  # fmt: skip


def write_model(folder: Path, name: str, vocabulary: int, **changes: object) -> None:
    """Random weights for a folder with a tokenizer; config.json has the published keys alone."""
    architecture, values = PUBLISHED[name]
    marks = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(
            architecture, vocab_size=vocabulary, **marks, **{**values, **changes}
        )
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases, all the same when new
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder)

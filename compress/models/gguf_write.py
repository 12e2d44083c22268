"""A checkpoint as a GGUF file, as llama.cpp's converter writes it: keys, tokens, tensors in rows of blocks.

The checkpoint of a pruned model is padded where its layers have widths of their own, and so is the file.
Tensors are read, rounded and written one at a time.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import ModelError, did_you_mean
from compress.models.checkpoint import header, weight_files

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # as both transformers and llama.cpp call them
_ROTATIONS = ("default", "linear", "llama3")
_PAIRED = ("llama",)  # whose rows of query and key go from halves to pairs
_BLOCK = 32  # weights that share a scale
_WIDE = ("token_embd.weight", "output.weight")  # of a file in 4 bits they have 8


def check_writable(described: Mapping[str, Any]) -> None:
    """Raise ModelError for a config.json of what is not written as GGUF here."""
    kind = str(described.get("model_type"))
    rotation = described.get("rope_parameters") or described.get("rope_scaling") or {}
    name = rotation.get("rope_type", rotation.get("type", "default"))
    windows = described.get("use_sliding_window") or any(
        each != "full_attention" for each in described.get("layer_types") or ()
    )
    for what, found, allowed in (
        ("architecture", kind, ARCHITECTURES),
        ("rotation", name, _ROTATIONS),
        ("activation", described.get("hidden_act", "silu"), ("silu",)),
        ("attention", "to a window" if windows else "to all tokens", ("to all tokens",)),
    ):
        if found not in allowed:
            raise ModelError(
                f"a model of this {what} cannot be written as GGUF",
                found=found,
                allowed=did_you_mean(found, allowed),
                next="ship.gguf=none, and llama.cpp's own converter on the artifact's checkpoint/",
            )


def write_gguf(
    path: Path, checkpoint: Path, file_format: str, name: str, tokenizer: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Write `path`; `tokenizer` are its keys of tokens. Returns the shape of each parameter in the file.

    Raises ModelError for a model that is not written as GGUF here.
    """
    import transformers
    from gguf import GGUFWriter

    config: Any = transformers.AutoConfig.from_pretrained(str(checkpoint), local_files_only=True)
    check_writable(config.to_dict())
    writer = GGUFWriter(path, config.model_type)
    _add_keys(writer, config, file_format, name)
    _add_tokenizer(writer, tokenizer)
    places = _places(checkpoint, config)
    factors = _factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for tensor, (_, shape) in places.items():
        kind, size = block_type(file_format, tensor, shape), _bytes(file_format, tensor, shape)
        writer.add_tensor_info(tensor, shape, np.dtype(np.float32), size, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for tensor, values in _tensors(checkpoint, places):
            paired = _paired(values, tensor, config)
            writer.write_tensor_data(_quantized(paired, block_type(file_format, tensor, values.shape)))
    finally:
        writer.close()
    return dict(places.values())


def rounded(values: np.ndarray, file_format: str, parameter: str, shape: tuple[int, ...]) -> np.ndarray:
    """What a reader of the file gets for a parameter whose tensor has this `shape` there; `values` may lack
    the zeros that pad it."""
    from gguf import dequantize

    wide = parameter in ("model.embed_tokens.weight", "lm_head.weight")
    kind = block_type(file_format, _WIDE[0] if wide else parameter, shape)
    whole = np.pad(values, [(0, full - has) for full, has in zip(shape, values.shape, strict=True)])
    read = dequantize(_quantized(whole, kind), kind).reshape(shape)
    return np.ascontiguousarray(read[tuple(map(slice, values.shape))], np.float32)


def block_type(file_format: str, tensor: str, shape: tuple[int, ...]) -> Any:
    """Vectors stay in float32, rows that are no whole blocks in float16."""
    from gguf import GGMLQuantizationType as Type

    if len(shape) < 2:
        return Type.F32
    if file_format == "f16" or shape[-1] % _BLOCK:
        return Type.F16
    return Type.Q8_0 if file_format == "q8_0" or tensor in _WIDE else Type.Q4_0


def _quantized(values: np.ndarray, kind: Any) -> np.ndarray:
    from gguf import quantize

    found: np.ndarray = quantize(np.ascontiguousarray(values, np.float32), kind)
    return found


def _bytes(file_format: str, tensor: str, shape: tuple[int, ...]) -> int:
    from gguf import GGMLQuantizationType as Type
    from gguf import quant_shape_to_byte_shape

    kind = block_type(file_format, tensor, shape)
    plain = {Type.F32: 4, Type.F16: 2}
    if kind in plain:
        return plain[kind] * int(np.prod(shape))
    return int(np.prod(quant_shape_to_byte_shape(shape, kind)))


def _add_keys(writer: Any, config: Any, file_format: str, name: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType, RopeScalingType

    rope = config.rope_parameters
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(name)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{file_format.upper()}"])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_vocab_size(config.vocab_size)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _add_tokenizer(writer: Any, keys: Mapping[str, Any]) -> None:
    for name, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_array(name, value)


def _factors(config: Any) -> np.ndarray | None:
    """By which Llama 3.1's waves are longer (half a head), where they are."""
    from compress.models.gguf_config import llama3_factors

    rope = dict(config.rope_parameters)
    if rope["rope_type"] != "llama3":
        return None
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    lengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, size, 2) / size)
    return llama3_factors(lengths, **{name: rope[name] for name in names}).astype(np.float32)


def _places(checkpoint: Path, config: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor of the file -> parameter and its shape, in the order that they are stored in."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    [kind] = [kind for kind, name in MODEL_ARCH_NAMES.items() if name == config.model_type]
    names = get_tensor_name_map(kind, config.num_hidden_layers)
    found = {}
    for path in weight_files(checkpoint):
        for parameter, described in header(path).items():
            if parameter == "lm_head.weight" and config.tie_word_embeddings:
                continue
            tensor = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
            if tensor is None:
                raise ModelError(
                    "a tensor of the checkpoint has no place in a GGUF file",
                    found=parameter,
                    allowed=f"the parameters of {config.model_type}",
                )
            found[tensor] = (parameter, tuple(described["shape"]))
    return found


def _tensors(
    checkpoint: Path, places: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor of the file and its values in float32, in the order of `places`."""
    from safetensors import safe_open

    wanted = {parameter: tensor for tensor, (parameter, _) in places.items()}
    for path in weight_files(checkpoint):
        with safe_open(path, framework="pt") as stored:
            for parameter in header(path):
                if parameter in wanted:
                    yield wanted[parameter], stored.get_tensor(parameter).float().numpy()


def _paired(values: np.ndarray, tensor: str, config: Any) -> np.ndarray:
    """Rows of query and key in pairs, as llama.cpp rotates them, where transformers has halves."""
    part = tensor.split(".")[-2]
    if config.model_type not in _PAIRED or part not in ("attn_q", "attn_k"):
        return values
    heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)

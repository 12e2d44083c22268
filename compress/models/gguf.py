"""GGUF files: their blocks to float32, their keys to config.json, in the layout of Hugging Face.

Read as llama.cpp reads them. Every key of the architecture is applied, known to change nothing, or refused;
every tensor of the file is a parameter's, and every parameter has one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from compress.errors import ModelError, did_you_mean
from compress.models.gguf_config import ROTATION, TYPES, described
from compress.models.gguf_tokenizer import tokenizer_of

MAGIC = b"GGUF"
# Their converter turns rows of query and key from halves, as transformers rotates them, to pairs.
_PAIRED = ("llama", "smollm3")
_NO_TOKEN = (-1, 2**32 - 1)  # numbers that stand for none
_NORMS_ABOVE_ONE = ("gemma3",)  # stored as what multiplies, where transformers adds one


def gguf_of(source: Path) -> Path | None:
    """The GGUF file that `source`, a file or a folder, is or holds; None where there is none.

    Raises ModelError where there are several.
    """
    if source.is_file():
        return source if source.suffix == ".gguf" else None
    if (source / "config.json").is_file():
        return None
    files = sorted(source.glob("*.gguf"))
    if len(files) > 1:
        raise ModelError(
            f"{len(files)} GGUF files in {source}",
            found=", ".join(path.name for path in files),
            allowed="one",
            next="name it: model.source=.../FILE.gguf; join parts of one first: llama-gguf-split --merge",
        )
    return files[0] if files else None


def convert(path: Path, out: Path, architectures: Iterable[str]) -> None:
    """Write the model in `path` to `out` in Hugging Face layout.

    Raises ModelError for a damaged file, one part of several, a model that is not one of `architectures`,
    keys or tensors that have no place in it, and a tokenizer that is none of those we know.
    """
    from gguf import dequantize

    metadata, tensors = _read(path)
    metadata = _with_known_marks(path, metadata)
    _check(path, metadata, architectures)
    rotation = {name: tensors.pop(name) for name in ROTATION if name in tensors}
    shapes = {name: tuple(int(size) for size in reversed(each.shape)) for name, each in tensors.items()}
    factors = {name: dequantize(each.data, each.tensor_type) for name, each in rotation.items()}
    config = _config(path, described(metadata, shapes, factors))
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    places = _places(path, module, metadata["general.architecture"], shapes)
    weights = {}
    for name, place in places.items():
        values = dequantize(tensors[name].data, tensors[name].tensor_type).reshape(shapes[name])
        weights[place] = torch.from_numpy(_restored(values, name, metadata["general.architecture"], config))
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    module.load_state_dict(weights, assign=True)
    module.tie_weights()
    module.save_pretrained(out)
    tokenizer_of(metadata, config.max_position_embeddings).save_pretrained(out)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys, and tensors by name; raises ModelError unless the file is whole and of known block types."""
    from gguf import GGUFEndian, GGUFReader

    with path.open("rb") as file:
        start = file.read(4)
    if start != MAGIC:
        raise ModelError(f"{path.name} is no GGUF file", found=repr(start), allowed=repr(MAGIC))
    try:
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        end = max((int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors), default=0)
    except Exception as error:  # the reader takes a damaged file at its word
        unknown = "GGMLQuantizationType" in str(error)
        raise ModelError(
            f"{path.name} has blocks of an unknown type" if unknown else f"{path.name} is damaged",
            found=f"{' '.join(str(error).split())[:200]} in {path.stat().st_size} bytes",
            next="fetch another quantization of it, such as Q8_0" if unknown else "fetch it again",
        ) from None
    if reader.endianess is GGUFEndian.BIG:  # its data comes as it is, and would be taken for other numbers
        raise ModelError(
            f"{path.name} is of big-endian numbers",
            found="the last byte of its version first",
            allowed="a little-endian GGUF file",
            next="convert it: gguf-convert-endian of the package gguf",
        )
    if not end or end > path.stat().st_size:
        raise ModelError(
            f"{path.name} is cut short",
            found=f"{path.stat().st_size} bytes",
            allowed=f"{end}",
            next="fetch it again",
        )
    if odd := [each for each in tensors.values() if each.tensor_type not in _computable()]:
        raise ModelError(
            f"{path.name} has tensors of a type that is no weight's",
            found=f"{odd[0].name} of {odd[0].tensor_type.name}, one of {len(odd)}",
            allowed=", ".join(sorted(each.name for each in _computable())),
            next="fetch another quantization of it, such as Q8_0",
        )
    return metadata, tensors


def _computable() -> set[Any]:
    """Types of blocks that the library gguf can dequantize."""
    from gguf import GGMLQuantizationType, quants

    return {GGMLQuantizationType.F32, GGMLQuantizationType.F16, *quants._type_traits}


def _with_known_marks(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Keys without the marks that the file says it has not; raises ModelError for those behind its tokens."""
    tokens, found = len(metadata.get("tokenizer.ggml.tokens", ())), dict(metadata)
    for name, number in metadata.items():
        if not (name.startswith("tokenizer.ggml.") and name.endswith("_token_id")):
            continue
        if number in _NO_TOKEN:
            del found[name]
        elif tokens and number not in range(tokens):
            raise ModelError(
                f"{path.name} names a token that it has not",
                found=f"{name}={number}",
                allowed=f"0 to {tokens - 1}",
                next="fetch it again, or take the safetensors of the model",
            )
    return found


def _check(path: Path, metadata: Mapping[str, Any], architectures: Iterable[str]) -> None:
    """Raise ModelError for one part of several, experts, and an unknown architecture."""
    if int(metadata.get("split.count", 0)) > 1:
        raise ModelError(
            f"{path.name} is one part of a model in several files",
            found=f"part {int(metadata.get('split.no', 0)) + 1} of {metadata['split.count']}",
            allowed="a file with the whole model",
            next=f"join them: llama-gguf-split --merge {path.name} WHOLE.gguf",
        )
    architecture = str(metadata.get("general.architecture", "none"))
    experts = int(np.max(metadata.get(f"{architecture}.expert_count", 0)))
    if experts > 1:  # Mixtral's files call themselves llama
        raise ModelError(
            f"{path.name} is a mixture of experts",
            found=f"{experts} of them",
            allowed="one feed-forward part in each layer",
        )
    known = [name for name, kind in TYPES.items() if kind in set(architectures)]
    if architecture not in known:
        raise ModelError(
            f"{path.name} is of an unknown architecture",
            found=architecture,
            allowed=did_you_mean(architecture, known),
            next="take the safetensors of the model",
        )


def _config(path: Path, values: dict[str, Any]) -> Any:
    try:
        return transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    except Exception as error:  # of its validators, of any kind
        raise ModelError(
            f"{path.name} describes a model that transformers does not have",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            next="take the safetensors of the model",
        ) from None


def _places(
    path: Path, module: Any, architecture: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Tensor of the file -> parameter; raises ModelError where one lacks the other, or has another shape."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    [kind] = [kind for kind, name in MODEL_ARCH_NAMES.items() if name == architecture]
    names = get_tensor_name_map(kind, module.config.num_hidden_layers)
    wanted = {
        names.get_name(name, try_suffixes=(".weight", ".bias")) or name: (name, tuple(parameter.shape))
        for name, parameter in module.state_dict().items()
        if not (name == "lm_head.weight" and module.config.tie_word_embeddings)
    }
    for what, found in {
        f"tensors are missing in {path.name}": [f"{name} is" for name in wanted if name not in shapes],
        f"{path.name} has tensors that this architecture has no place for": [
            f"{name} is" for name in shapes if name not in wanted
        ],
        f"the tensors of {path.name} do not have the sizes that its keys tell": [
            f"{name} {list(shapes[name])}, not {list(shape)}, is"
            for name, (_, shape) in wanted.items()
            if name in shapes and shapes[name] != shape
        ],
    }.items():
        if found:
            raise ModelError(
                what,
                found=f"{found[0]} one of {len(found)}",
                allowed=f"the {len(wanted)} tensors of {architecture}",
                next="fetch it again, or take the safetensors of the model",
            )
    return {name: place for name, (place, _) in wanted.items()}


def _restored(values: np.ndarray, name: str, architecture: str, config: Any) -> np.ndarray:
    """What llama.cpp's converter has made of a tensor, undone."""
    part = name.split(".")[-2]
    if architecture in _PAIRED and part in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
        pairs = values.reshape(heads, -1, 2, *values.shape[1:])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    if architecture in _NORMS_ABOVE_ONE and part.endswith("norm"):
        values = values - np.float32(1)
    return np.array(values, np.float32)

"""GGUF files: read by transformers, which turns their blocks into float32."""

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers

from compress.errors import ModelError, did_you_mean

MAGIC = b"GGUF"


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
            next="name it: model.source=.../FILE.gguf",
        )
    return files[0] if files else None


def convert(path: Path, out: Path, architectures: Iterable[str]) -> None:
    """Write the model in `path` to `out` in Hugging Face layout.

    Raises ModelError for a damaged file, an architecture that is not one of `architectures`, or blocks
    that transformers cannot read.
    """
    check_header(path, architectures)
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    bar = io.StringIO()  # transformers draws one that its own switch does not silence
    try:
        with contextlib.redirect_stderr(bar):
            module = transformers.AutoModelForCausalLM.from_pretrained(
                str(path.parent), dtype=torch.float32, **where
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **where)
    except Exception as error:  # whatever the reader stumbles over in a file that is not what it says
        raise ModelError(
            f"{path.name} cannot be read",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            allowed="a GGUF file whose architecture and tokenizer transformers reads",
            next="fetch it again, or take the safetensors of the model",
        ) from None
    _name_tokens(tokenizer, path)
    module.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _name_bytes(out)


def _name_tokens(tokenizer: Any, path: Path) -> None:
    """Beginning, end and padding as the file says: transformers takes one token for all of them."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    for name, key in {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}.items():
        tokenizer.init_kwargs.pop(f"{name}_token_id", None)
        field = fields.get(f"tokenizer.ggml.{key}_token_id")
        if field is not None:
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(int(field.contents())))
    for name in ("add_bos_token", "add_eos_token"):
        field = fields.get(f"tokenizer.ggml.{name}")
        if field is not None:
            tokenizer.init_kwargs[name] = bool(field.contents())
            setattr(tokenizer, name, bool(field.contents()))


def _name_bytes(folder: Path) -> None:
    """Describe a byte-level tokenizer as one: transformers gives it decoder and name of Llama's, which
    encodes the same and which onnxruntime-genai takes at its word."""
    path, described = folder / "tokenizer.json", folder / "tokenizer_config.json"
    tokenizer, config = (json.loads(file.read_text("utf-8")) for file in (path, described))
    if (tokenizer["pre_tokenizer"] or {}).get("type") != "ByteLevel":
        return
    tokenizer["model"]["byte_fallback"] = False
    tokenizer["normalizer"] = None
    tokenizer["decoder"] = tokenizer["pre_tokenizer"]
    config |= {"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": False}
    path.write_text(json.dumps(tokenizer, ensure_ascii=False) + "\n", "utf-8")
    described.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


def check_header(path: Path, architectures: Iterable[str]) -> None:
    """Raise ModelError unless the file is whole, of a known architecture and of known block types."""
    from gguf import GGUFReader

    with path.open("rb") as file:
        start = file.read(4)
    if start != MAGIC:
        raise ModelError(f"{path.name} is no GGUF file", found=repr(start), allowed=repr(MAGIC))
    try:
        reader = GGUFReader(path)
        field = reader.fields.get("general.architecture")
        architecture = bytes(field.parts[field.data[0]]).decode() if field is not None else "none"
        ends = [int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors]
    except Exception as error:  # the reader takes a damaged file at its word
        unknown = "GGMLQuantizationType" in str(error)
        raise ModelError(
            f"{path.name} has blocks of an unknown type" if unknown else f"{path.name} is damaged",
            found=f"{' '.join(str(error).split())[:200]} in {path.stat().st_size} bytes",
            next="fetch another quantization of it, such as Q8_0" if unknown else "fetch it again",
        ) from None
    known = {"gemma3": "gemma3_text"}
    if known.get(architecture, architecture) not in set(architectures):
        raise ModelError(
            f"{path.name} is of an unknown architecture",
            found=architecture,
            allowed=did_you_mean(architecture, architectures),
        )
    if not ends or max(ends) > path.stat().st_size:
        raise ModelError(
            f"{path.name} is cut short",
            found=f"{path.stat().st_size} bytes",
            allowed=f"{max(ends, default=0)}",
            next="fetch it again",
        )

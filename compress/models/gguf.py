"""GGUF files: read by transformers, which turns their blocks into float32."""

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

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
                str(path.parent),
                dtype=torch.float32,
                quantization_config=transformers.GgufConfig(dequantize=True),
                **where,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **where)
    except Exception as error:  # whatever the reader stumbles over in a file that is not what it says
        raise ModelError(
            f"{path.name} cannot be read",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            allowed="a GGUF file whose architecture and tokenizer transformers reads",
            next="fetch it again, or take the safetensors of the model",
        ) from None
    module.save_pretrained(out)
    _without_additions(tokenizer, module.config.vocab_size).save_pretrained(out)


def _without_additions(tokenizer: Any, tokens: int) -> Any:
    """The tokenizer with the file's own tokens alone: transformers gives one of bytes an end of text that
    neither the file nor the model may have."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [each for each in backend["added_tokens"] if each["id"] < tokens]
    named = tokenizer.special_tokens_map.items()
    known = {kind: token for kind, token in named if tokenizer.convert_tokens_to_ids(token) < tokens}
    if tokenizer.chat_template:
        known["chat_template"] = tokenizer.chat_template
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), **known
    )


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
        counts = [each for name, each in reader.fields.items() if name.endswith(".expert_count")]
        experts = sum(int(each.parts[each.data[0]][0]) for each in counts)
        ends = [int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors]
    except Exception as error:  # the reader takes a damaged file at its word
        unknown = "GGMLQuantizationType" in str(error)
        raise ModelError(
            f"{path.name} has blocks of an unknown type" if unknown else f"{path.name} is damaged",
            found=f"{' '.join(str(error).split())[:200]} in {path.stat().st_size} bytes",
            next="fetch another quantization of it, such as Q8_0" if unknown else "fetch it again",
        ) from None
    if experts > 1:  # transformers would read what Mixtral's files call llama as a Llama
        raise ModelError(
            f"{path.name} is a mixture of experts",
            found=f"{experts} of them",
            allowed="one feed-forward part in each layer",
        )
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

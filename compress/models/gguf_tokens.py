"""A tokenizer of merged bytes as the keys of a GGUF file."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from compress.errors import ModelError
from compress.models.checkpoint import read_config, read_json
from compress.models.tokenizer import chat_template, tokenizer_settings

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # token types
# One name of each way to cut text before merges; llama.cpp knows them by it. The likeliest first.
_CUTS = ("smollm", "llama-bpe", "qwen2", "gpt-2", "deepseek-r1-qwen", "dbrx", "tekken", "gpt-4o")
_TELLING = (  # what they cut in different ways
    "I'm sure WE'LL cut It's and DON'T 1234567 in 2024, x=1_000;  two  spaces\n\n  12 \n\n\n x\t.",
    "call(self.value) HTTPServer camelCase ÜBER l'été naïve cafe\u0301 İstanbul",
    "日本語 Привет नमस्ते 👩‍👩‍👧 ﬁ ①//\n",
)


def tokenizer_keys(checkpoint: Path, ends: Collection[int]) -> dict[str, Any]:
    """`tokenizer.*` of a GGUF file; `ends` are the tokens that end what is generated.

    Raises ModelError for a tokenizer that is no merges of bytes, or cuts text as no name stands for.
    """
    backend = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    described, config = read_json(checkpoint / "tokenizer.json"), read_config(checkpoint)
    model = described["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or not model.get("merges"):
        raise _unknown(f"{model['type']}{' of pieces' if model.get('byte_fallback') else ''}")
    tokens, types = _tokens(described, int(config["vocab_size"]))
    keys: dict[str, Any] = {
        "model": "gpt2",
        "tokens": tokens,
        "token_type": types,
        "merges": [each if isinstance(each, str) else " ".join(each) for each in model["merges"]],
    }
    marks = _marks(checkpoint, backend, ends)
    keys |= {f"{name}_token_id": number for name, number in marks.items()}
    keys |= _ends_of_texts(backend, marks)
    keys = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
    whole_words = bool(model.get("ignore_merges"))
    keys["tokenizer.ggml.pre"] = _cut(keys, backend, str(config["model_type"]), whole_words)
    if template := chat_template(checkpoint):
        keys["tokenizer.chat_template"] = template
    return keys


def _tokens(described: Mapping[str, Any], count: int) -> tuple[list[str], list[int]]:
    """Text and type of each token; a model may have rows for more than the tokenizer has."""
    tokens, types = [f"[PAD{number}]" for number in range(count)], [_UNUSED] * count
    for token, number in described["model"]["vocab"].items():
        tokens[number], types[number] = token, _NORMAL
    for added in described["added_tokens"]:
        number = added["id"]
        tokens[number] = added["content"]
        types[number] = _CONTROL if added["special"] else _USER_DEFINED
    return tokens, types


def _marks(checkpoint: Path, backend: tokenizers.Tokenizer, ends: Collection[int]) -> dict[str, int]:
    """Key -> token: beginning, end, unknown, filling; of further ends, those of a turn and of a message."""
    settings = tokenizer_settings(checkpoint)
    found = {}
    for key, name in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        token = settings.get(f"{name}_token")
        token = token["content"] if isinstance(token, dict) else token
        number = backend.token_to_id(token) if token else None
        if number is not None:
            found[key] = number
    others = sorted({*ends} - {found.get("eos")})
    if "eos" not in found and others:
        found["eos"] = others.pop(0)
    return found | dict(zip(("eot", "eom"), others, strict=False))


def _ends_of_texts(backend: tokenizers.Tokenizer, marks: Mapping[str, int]) -> dict[str, bool]:
    """Whether texts are put between marks; raises ModelError for others than those of beginning and end."""
    put = list(backend.encode("").ids)
    begins, ends = put[:1] == [marks.get("bos")], put[-1:] == [marks.get("eos")]
    if begins and ends and len(put) == 1:  # one token stands for both
        ends = False
    if len(put) != begins + ends:
        raise _unknown(f"texts between {backend.decode(put, skip_special_tokens=False)!r}")
    return {"add_bos_token": begins, "add_eos_token": ends}


def _cut(keys: Mapping[str, Any], backend: tokenizers.Tokenizer, architecture: str, whole_words: bool) -> str:
    """The name of what cuts these texts alike, as a reader of the file will; `whole_words`: words that are
    tokens are not merged, which texts seldom tell."""
    from compress.models.gguf_tokenizer import tokenizer_of

    wanted = [backend.encode(text, add_special_tokens=False).ids for text in _TELLING]
    for name in _CUTS:
        told = {**keys, "general.architecture": architecture, "tokenizer.ggml.pre": name}
        read = tokenizer_of(told, 2**31).backend_tokenizer
        if read.model.ignore_merges != whole_words:
            continue
        if [read.encode(text, add_special_tokens=False).ids for text in _TELLING] == wanted:
            return name
    raise _unknown("text cut in a way that none of them stands for")


def _unknown(found: str) -> ModelError:
    return ModelError(
        "this tokenizer cannot be written into a GGUF file",
        found=found,
        allowed=f"merges of bytes, cut as {', '.join(_CUTS)}",
        next="ship.gguf=none, and llama.cpp's own converter on the artifact's checkpoint/",
    )

"""The tokenizer that a GGUF file describes, as llama.cpp reads it, in the form of tokenizer.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from compress.errors import ModelError, did_you_mean
from compress.models.gguf_config import ends_by_text

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # token types
_MARK = "▁"  # SentencePiece's space
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = rf"{_SHORT}|{_LETTERS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"
_QWEN2 = rf"{_SHORT}|{_LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}"
)
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}"
)


@dataclass(frozen=True)
class _Cut:
    """What text is cut into before merges: llama.cpp knows it by the name in tokenizer.ggml.pre."""

    pattern: str | None = None  # None: GPT-2's
    digits: bool = False  # each of them for itself, first
    composed: bool = False  # NFC first, as the tokenizers do that the name stands for
    whole_words: bool = False  # words that are tokens are not merged
    begins: bool = False  # with a mark, where the file does not say


_CUTS = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "mellum", "a.x-4.0"), _Cut()),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _Cut(digits=True)
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0"),
        _Cut(_LLAMA3, whole_words=True, begins=True),
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _Cut(_LLAMA3)),
    "qwen2": _Cut(_QWEN2, composed=True),
    "deepseek-r1-qwen": _Cut(_QWEN2),
    "tekken": _Cut(_TEKKEN, whole_words=True, begins=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), _Cut(_GPT4O)),
}
_IDLE = ("tokenizer.chat_template", "tokenizer.huggingface.json", "tokenizer.ggml.token_type_count")
_OFF = ("add_sep_token", "remove_extra_whitespaces", "precompiled_charsmap")  # where they are empty
_APPLIED = (
    *("model", "pre", "tokens", "token_type", "scores", "merges"),
    *("add_bos_token", "add_eos_token", "add_space_prefix"),
)


def tokenizer_of(metadata: Mapping[str, Any], max_length: int) -> Any:
    """A fast tokenizer of transformers; raises ModelError for an unknown kind, or unknown keys."""
    start = "tokenizer.ggml."
    keys = {name[len(start) :]: each for name, each in metadata.items() if name.startswith(start)}
    for name, value in metadata.items():
        if not name.startswith("tokenizer.") or name.startswith(_IDLE) or name.endswith("_token_id"):
            continue
        key = name.removeprefix(start)
        if key not in _APPLIED and (key not in _OFF or value):
            raise ModelError(f"a GGUF file says what we cannot apply: {name}", found=str(value)[:80])
    kind = keys.get("model")
    makers = {"gpt2": _of_bytes, "llama": _of_pieces}
    if kind not in makers or "tokens" not in keys:
        raise ModelError(
            "a GGUF file has a tokenizer of an unknown kind",
            found=f"tokenizer.ggml.model={kind}" if "tokens" in keys else "no tokenizer.ggml.tokens",
            allowed=" or ".join(makers),
            next="take the safetensors of the model",
        )
    backend, begins = makers[kind](keys)
    _add_marks(backend, keys, metadata["general.architecture"], {*ends_by_text(metadata)})
    marks = {
        f"{name}_token": keys["tokens"][keys[f"{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"{key}_token_id" in keys
    }
    _add_ends(backend, keys, marks, begins)
    if template := metadata.get("tokenizer.chat_template"):
        marks["chat_template"] = template
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=max_length, clean_up_tokenization_spaces=False, **marks
    )


def _of_bytes(keys: Mapping[str, Any]) -> tuple[Tokenizer, bool]:
    """Merges of bytes, as GPT-2's; and whether texts begin with a mark."""
    name = keys.get("pre", "none")
    if name not in _CUTS:
        raise ModelError(
            "a GGUF file cuts text in an unknown way",
            found=f"tokenizer.ggml.pre={name}",
            allowed=did_you_mean(name, _CUTS),
            next="take the safetensors of the model, or a newer conversion",
        )
    if keys.get("add_space_prefix"):
        raise ModelError(
            "a GGUF file says what we cannot apply: tokenizer.ggml.add_space_prefix", found="True"
        )
    if not keys.get("merges"):
        raise ModelError(
            "a GGUF file has a tokenizer of merged bytes, and no merges",
            found="no tokenizer.ggml.merges",
            next="fetch it again, or take the safetensors of the model",
        )
    cut = _CUTS[name]
    vocabulary = {token: number for number, token in enumerate(keys["tokens"])}
    merges = [tuple(each.split(" ")) for each in keys["merges"]]
    made = Tokenizer(BPE(vocabulary, merges, ignore_merges=cut.whole_words))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if cut.digits else []
    if cut.pattern:
        steps.append(pre_tokenizers.Split(Regex(cut.pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut.pattern is None))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if cut.composed:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    return made, cut.begins


def _of_pieces(keys: Mapping[str, Any]) -> tuple[Tokenizer, bool]:
    """SentencePiece's merges of characters: the pair goes first whose token has the highest score."""
    if "scores" not in keys:
        raise ModelError("a GGUF file of pieces lacks tokenizer.ggml.scores")
    tokens, types = keys["tokens"], keys.get("token_type") or [_NORMAL] * len(keys["tokens"])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    scored = [number for number, kind in enumerate(types) if kind == _NORMAL]
    merges = []
    for number in sorted(scored, key=lambda each: -keys["scores"][each]):
        whole = tokens[number]
        pairs = ((whole[:at], whole[at:]) for at in range(1, len(whole)))
        merges += [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    unknown = keys.get("unknown_token_id")
    made = Tokenizer(
        BPE(
            vocabulary,
            merges,
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", _MARK)
    back: list[Any] = [decoders.Replace(_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if keys.get("add_space_prefix", True):
        made.normalizer = normalizers.Sequence([normalizers.Prepend(_MARK), spaces])
        back.append(decoders.Strip(" ", 1, 0))
    else:
        made.normalizer = spaces
    made.decoder = decoders.Sequence(back)
    return made, True


def _add_marks(backend: Tokenizer, keys: Mapping[str, Any], architecture: str, ends: set[int]) -> None:
    """Tokens that stay whole wherever they stand. Phi-3's marks of turns take the spaces behind them too;
    no key says so, llama.cpp knows it by the name."""
    plain = ("<unk>", "<s>", "<|endoftext|>")
    strips = architecture == "phi3" and keys["model"] == "llama"
    special, other = [], []
    types = keys.get("token_type") or [_NORMAL] * len(keys["tokens"])
    for number, (token, kind) in enumerate(zip(keys["tokens"], types, strict=False)):
        if kind in (_UNKNOWN, _CONTROL) or number in ends:
            right = strips and token not in plain
            special.append(AddedToken(token, special=True, normalized=False, rstrip=right))
        elif kind == _USER_DEFINED:
            other.append(AddedToken(token, special=False, normalized=False))
    backend.add_special_tokens(special)
    backend.add_tokens(other)


def _add_ends(backend: Tokenizer, keys: Mapping[str, Any], marks: Mapping[str, str], begins: bool) -> None:
    """Marks of beginning and end, where the file or its kind says that texts have them."""
    begin = [marks["bos_token"]] if keys.get("add_bos_token", begins) and "bos_token" in marks else []
    end = [marks["eos_token"]] if keys.get("add_eos_token", False) and "eos_token" in marks else []
    if begin or end:
        backend.post_processor = processors.TemplateProcessing(
            single=[*begin, "$A", *end],
            pair=[*begin, "$A", *end, *(f"{each}:1" for each in begin), "$B:1", *(f"{e}:1" for e in end)],
            special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys([*begin, *end])],
        )

"""Fewer tokens, so that text made of those that stay is tokenised as before: arithmetic on tokenizer.json.

Byte-pair encoding splits a token's text the same way wherever the token is found: no merge crosses the
border of a final token, and the merge of the lowest rank at each step is still there. So what has to
stay with a token is what its own encoding passes through, and no more: its closure. A unigram tokenizer
takes the best of all splittings, which stays the best when others are struck out.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import pre_tokenizers

from compress.errors import ConfigError, ModelError

Content = dict[str, Any]  # of tokenizer.json


def numbers(tokenizer: Content) -> dict[str, int]:
    """Token -> number, added tokens included."""
    vocab = tokenizer["model"]["vocab"]
    pieces = vocab if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    return {**pieces, **{added["content"]: added["id"] for added in tokenizer["added_tokens"]}}


def check_kind(tokenizer: Content) -> None:
    """Raise ModelError unless tokens can be struck out and every text still be encoded and read back."""
    model = tokenizer.get("model") or {}
    kind = model.get("type")
    reason = None
    if kind not in ("BPE", "Unigram"):
        reason = f"{kind}"
    elif kind == "BPE" and not model.get("merges"):
        reason = "BPE without merges"
    elif kind == "BPE" and (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")):
        reason = "BPE with a prefix or suffix of subwords"
    elif kind == "BPE" and not byte_tokens(tokenizer):
        reason = "BPE that has no tokens of single bytes"
    if reason:
        raise ModelError(
            "the vocabulary of this tokenizer cannot be cut",
            found=reason,
            allowed="byte-level BPE, BPE with byte fallback, Unigram (tokenizer.json)",
            next="prune.vocabulary=null",
        )


def byte_tokens(tokenizer: Content) -> set[str]:
    """Those that any text can be written in, as far as there are any: SmolLM2 has 235 of the 256."""
    known, names = numbers(tokenizer).keys(), set()
    if tokenizer["model"].get("byte_fallback"):
        names |= {f"<0x{byte:02X}>" for byte in range(256)} & known
    if _mentions(tokenizer.get("pre_tokenizer"), "ByteLevel"):
        names |= set(pre_tokenizers.ByteLevel.alphabet()) & known
    return names


def choose(
    tokenizer: Content, counts: Mapping[int, int], target: int, required: Iterable[int] = ()
) -> tuple[int, ...]:
    """Old numbers of at most `target` tokens that stay, ascending: special ones, bytes, the most frequent.

    `counts`: number -> how often it occurs in the texts that matter; among those that never occur the
    lowest numbers come first, which BPE learnt first. `required`: numbers that config files and chat
    template name. Raises ModelError for a tokenizer of another kind, ConfigError for a target that the
    required ones alone exceed.
    """
    check_kind(tokenizer)
    known = numbers(tokenizer)
    texts = {number: token for token, number in known.items()}
    special = {token["id"] for token in tokenizer["added_tokens"]}
    closure = Closure(tokenizer)
    stay = {known[name] for name in _always(tokenizer)} | special | set(required)
    for number in sorted(stay - special):
        stay |= closure.of(texts.get(number, ""))
    if len(stay) > target:
        raise ConfigError(
            "prune.vocabulary leaves no room for the tokens that must stay",
            found=target,
            allowed=f"at least {len(stay)}: special tokens, single bytes, the chat template",
        )
    for number in sorted(texts, key=lambda number: (-counts.get(number, 0), number)):
        if number not in stay:
            more = {number} | closure.of(texts[number])
            if len(stay | more) <= target:
                stay |= more
    return tuple(sorted(stay))


def _always(tokenizer: Content) -> set[str]:
    model = tokenizer["model"]
    names = byte_tokens(tokenizer)
    if model.get("unk_token") in numbers(tokenizer):
        names.add(model["unk_token"])
    if model["type"] == "Unigram":
        pieces = model["vocab"]
        # An unknown character costs 10 more than the worst piece: were that one struck out, less.
        names.add(min(pieces, key=lambda piece: float(piece[1]))[0])
        if model.get("unk_id") is not None:
            names.add(pieces[model["unk_id"]][0])
    return names


class Closure:
    """What else has to stay with a token."""

    def __init__(self, tokenizer: Content) -> None:
        self._known = numbers(tokenizer)
        self._ranks = {pair: rank for rank, pair in enumerate(merges(tokenizer))}

    def of(self, token: str) -> set[int]:
        """Numbers of the characters and of all products of merging them; of a unigram token none.

        Tokens that merging never makes, which only `ignore_merges` finds, add what comes of the attempt.
        """
        if not self._ranks:
            return set()
        parts = list(token)
        products = set(parts)
        while len(parts) > 1:
            ranked = [(self._ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in self._ranks]
            if not ranked:
                break
            _, i = min(ranked)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
            products.add(parts[i])
        return {self._known[part] for part in products if part in self._known}


def merges(tokenizer: Content) -> list[tuple[str, str]]:
    """In order; older files have them as "a b"."""
    listed = tokenizer["model"].get("merges") or []
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in listed)
    return [(a, b) for a, b in pairs]


# ---------------------------------------------------------------- writing


def rewrite_tokenizer(tokenizer: Content, stay: Sequence[int]) -> Content:
    """tokenizer.json with the tokens `stay` alone, numbered in their order."""
    new = {old: number for number, old in enumerate(stay)}
    model = dict(tokenizer["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
        model["merges"] = [[a, b] for a, b in merges(tokenizer) if {a, b, a + b} <= model["vocab"].keys()]
    else:
        model["vocab"] = [piece for old, piece in enumerate(model["vocab"]) if old in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    changed = {
        **tokenizer,
        "model": model,
        "added_tokens": [{**token, "id": new[token["id"]]} for token in tokenizer["added_tokens"]],
        "post_processor": _renumber_processor(tokenizer.get("post_processor"), new),
    }
    if tokenizer.get("padding"):
        changed["padding"] = {**tokenizer["padding"], "pad_id": new[tokenizer["padding"]["pad_id"]]}
    return changed


def _renumber_processor(processor: Any, new: Mapping[int, int]) -> Any:
    """Numbers within TemplateProcessing (`ids`), Bert- and RobertaProcessing (`sep`, `cls`), and Sequence."""
    if not processor:
        return processor
    changed = dict(processor)
    if "processors" in changed:
        changed["processors"] = [_renumber_processor(part, new) for part in changed["processors"]]
    if isinstance(changed.get("special_tokens"), dict):
        changed["special_tokens"] = {
            name: {**token, "ids": [new[old] for old in token["ids"]]}
            for name, token in changed["special_tokens"].items()
        }
    for name in ("sep", "cls"):
        if name in changed:
            token, old = changed[name]
            changed[name] = [token, new[old]]
    return changed


# Settings of config, generation_config and tokenizer_config that hold numbers of tokens.
_LISTS = ("suppress_tokens", "begin_suppress_tokens")


def numbers_in(settings: Mapping[str, Any]) -> set[int]:
    """Numbers of tokens that a config file names; it may name several ends."""
    return {
        old
        for name, value in settings.items()
        if name.endswith(("_token_id", "_token_ids"))
        for old in (value if isinstance(value, list) else [value])
        if isinstance(old, int) and old >= 0
    }


def renumber_settings(settings: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """The same settings with new numbers; those that are gone are struck from lists."""
    changed = dict(settings)
    for name, value in settings.items():
        if name.endswith(("_token_id", "_token_ids")) or name in _LISTS:
            if isinstance(value, list):
                changed[name] = [new[old] for old in value if old in new]
            elif isinstance(value, int):
                changed[name] = new.get(value, value)
    if isinstance(settings.get("added_tokens_decoder"), dict):
        changed["added_tokens_decoder"] = {
            str(new[int(old)]): token for old, token in settings["added_tokens_decoder"].items()
        }
    return changed


def _mentions(part: Any, kind: str) -> bool:
    if isinstance(part, dict):
        return part.get("type") == kind or any(_mentions(inner, kind) for inner in part.values())
    return isinstance(part, list) and any(_mentions(inner, kind) for inner in part)

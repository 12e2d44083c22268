"""What language models write by themselves: likelihood of given text hides a model that repeats itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import ModelError
from compress.graph.decoder import Decoder
from compress.models.checkpoint import read_json
from compress.models.tokenizer import Tokenizer

NGRAM = 4
PIECE = 512  # tokens of a prompt in one call: their logits are all given, 4 bytes times the vocabulary each


def continuation(
    decoder: Decoder,
    ids: Sequence[int],
    count: int,
    pick: Callable[[np.ndarray], int],
    anew: int | None = None,
) -> Iterator[int]:
    """`count` tokens after `ids`, each made when it is asked for; `pick` takes one by its logits. The decoder
    may have read the first of `ids` already, all but the last of them at most.

    `anew`: tokens beyond which all are rotated otherwise, so that what is cached of them is of no use.
    """
    ids = list(ids)
    logits = _read(decoder, ids, anew)
    for left in reversed(range(count)):
        ids.append(pick(logits))
        yield ids[-1]
        if left and decoder.past == anew:
            decoder.reset()
            logits = _read(decoder, ids, anew)
        elif left:
            logits = decoder.run(np.array(ids[-1:]))[-1]


def longest_piece(anew: int | None) -> int:
    """Tokens of a prompt that `continuation` reads in one call at most."""
    return PIECE if anew is None else max(PIECE, anew + 1)


def _read(decoder: Decoder, ids: list[int], anew: int | None) -> np.ndarray:
    """Logits (vocabulary,) after these tokens, of which the decoder has read the first."""
    ids = ids[decoder.past :]
    first = PIECE if anew is None or len(ids) <= anew else longest_piece(anew)
    pieces = np.split(np.array(ids), range(first, len(ids), PIECE))
    logits: np.ndarray = [decoder.run(piece, last=True)[-1] for piece in pieces][-1]
    return logits


def likeliest(logits: np.ndarray) -> int:
    """The first token of the largest of these logits (vocabulary,)."""
    return int(logits.argmax())


def rotated_anew(folder: Path) -> int | None:
    """Tokens beyond which LongRoPE rotates by its other factors; None for other rotations."""
    rope = _settings(folder / "config.json").get("rope_parameters") or {}
    return rope.get("original_max_position_embeddings") if rope.get("rope_type") == "longrope" else None


def end_tokens(folder: Path) -> frozenset[int]:
    """Tokens that end a text: as in transformers, those of generation_config.json alone, where that is there,
    or else of config.json.

    Raises ModelError for a file that is not JSON, or names no tokens.
    """
    names = ("generation_config.json", "config.json")
    name = next((name for name in names if (folder / name).is_file()), names[-1])
    found = _settings(folder / name).get("eos_token_id")
    tokens = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(each, int) for each in tokens):
        raise ModelError(
            f"{name} does not say which tokens end a text",
            found=f"eos_token_id {found}",
            allowed="a number of a token, or several in a list",
            next=f"correct {name}, or fetch it again",
        )
    return frozenset(tokens)


def _settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def continuations(
    model: Path, checkpoint: Path, prompts: Sequence[Sequence[int]], new_tokens: int, prepack: bool = True
) -> list[list[int]]:
    """What the model in an ONNX file, of this checkpoint, writes after each prompt by its likeliest tokens,
    until it ends the text or has written `new_tokens`."""
    if not prompts:
        return []
    ends, anew = end_tokens(checkpoint), rotated_anew(checkpoint)
    capacity = max(map(len, prompts)) + new_tokens
    decoder = Decoder(model, capacity=capacity, prepack=prepack, at_once=longest_piece(anew))
    written = []
    for prompt in prompts:
        decoder.reset()
        tokens = continuation(decoder, prompt, new_tokens, likeliest, anew)
        written.append(list(takewhile(lambda token: token not in ends, tokens)))
    return written


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Leading elements in which both agree."""
    different = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(different, min(len(one), len(other)))


def repeated(tokens: Sequence[int]) -> float:
    """Share of runs of `NGRAM` tokens that had occurred before; 0 for a text too short to have any."""
    runs = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def beginning(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """As much of `text` as its first `tokens` tokens are."""
    _, ends = tokenizer.with_ends(text)
    return text[: ends[min(tokens, len(ends)) - 1]]

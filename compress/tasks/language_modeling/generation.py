"""What language models write by themselves: likelihood of given text hides a model that repeats itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from compress.graph.decoder import Decoder
from compress.models.tokenizer import Tokenizer

NGRAM = 4


def greedy(decoder: Decoder, prompt: Sequence[int], new_tokens: int, stop: Collection[int]) -> list[int]:
    """The likeliest continuation of `prompt`, token by token, until one of `stop` or `new_tokens`."""
    decoder.reset()
    logits = decoder.run(np.asarray(prompt), last=True)
    found: list[int] = []
    while True:
        token = int(logits[-1].argmax())
        if token in stop:
            return found
        found.append(token)
        if len(found) == new_tokens:
            return found
        logits = decoder.run(np.array([token]))


def continuations(
    model: Path,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    stop: Collection[int],
    prepack: bool = True,
) -> list[list[int]]:
    """What the model in an ONNX file writes after each prompt."""
    if not prompts:
        return []
    decoder = Decoder(model, capacity=max(map(len, prompts)) + new_tokens, prepack=prepack)
    return [greedy(decoder, prompt, new_tokens, stop) for prompt in prompts]


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

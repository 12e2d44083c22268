"""Texts to the inputs of a language model, with a cache of keys and values."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import DataError
from compress.models.checkpoint import read_config
from compress.models.tokenizer import Tokenizer
from compress.schema.workload import Workload
from compress.tasks.base import Feeds

CONTEXT = 512  # tokens of a window, for calibration and evaluation
Ints = NDArray[np.int64]


class LanguageProcessor:
    """Tokenizes texts in a row, cut to windows; `config` is config.json."""

    def __init__(self, tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.layers = int(config["num_hidden_layers"])
        self.kv_heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        self.head_dim = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
        self.context = int(config["max_position_embeddings"])  # tokens

    @property
    def cache_names(self) -> tuple[str, ...]:
        return tuple(f"past_key_values.{i}.{kind}" for i in range(self.layers) for kind in ("key", "value"))

    @property
    def input_names(self) -> tuple[str, ...]:
        """All that an exported graph may take; one that fuses attention does without positions."""
        return ("input_ids", "attention_mask", "position_ids", *self.cache_names)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """Numbers of the tokens of the texts in a row, a line feed behind each."""
        return [number for text in texts for number in self.tokenizer.plain(text + "\n")]

    def feeds(self, ids: Ints, past: int = 0) -> Feeds:
        """For `ids` (batch, tokens) after `past` tokens whose keys and values are zeros."""
        batch, tokens = ids.shape
        shape = (batch, self.kv_heads, past, self.head_dim)
        return {
            "input_ids": ids,
            "attention_mask": np.ones((batch, past + tokens), np.int64),
            "position_ids": np.tile(np.arange(past, past + tokens, dtype=np.int64), (batch, 1)),
            **{name: np.zeros(shape, np.float32) for name in self.cache_names},
        }

    def windows(self, texts: Sequence[str], tokens: int = CONTEXT) -> Ints:
        """The texts in a row, cut to (windows, tokens); what is left over at the end is not used."""
        return _cut(self.tokens(texts), tokens)

    def batches(self, examples: Sequence[str], size: int) -> Iterator[Feeds]:
        """Windows of `CONTEXT` tokens, or of all that the model or the texts have."""
        ids = self.tokens(examples)
        windows = _cut(ids, min(CONTEXT, len(ids), self.context))
        for start in range(0, len(windows), size):
            yield self.feeds(windows[start : start + size])

    def check(self, workload: Workload) -> None:
        """Raise DataError for more tokens than the model's context."""
        if workload.past + workload.size > self.context:
            raise DataError(
                "the workload is longer than the model's context",
                found=f"{workload.past + workload.size} tokens",
                allowed=f"at most {self.context}",
            )

    def workload(self, examples: Sequence[str], workload: Workload) -> Feeds:
        """Inputs of exactly (batch, tokens) made of real text, after `past` cached tokens."""
        self.check(workload)
        ids = self.tokens(examples)
        need = workload.batch * workload.size
        repeated = (ids * -(-need // len(ids)))[:need]
        return self.feeds(np.array(repeated, np.int64).reshape(workload.batch, -1), workload.past)


def _cut(ids: Sequence[int], tokens: int) -> Ints:
    count = len(ids) // max(1, tokens)
    if count == 0:
        raise DataError("too little text", found=f"{len(ids)} tokens", allowed=f"at least {tokens}")
    return np.array(ids[: count * tokens], np.int64).reshape(count, tokens)


def open_processor(checkpoint: Path) -> LanguageProcessor:
    """Raises ModelError where the tokenizer or config.json cannot be read, or one has tokens that the other
    does not know."""
    config, tokenizer = read_config(checkpoint), Tokenizer(checkpoint)
    tokenizer.check_known(config["vocab_size"])
    return LanguageProcessor(tokenizer, config)

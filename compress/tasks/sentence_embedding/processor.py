"""Texts to the inputs of a sentence encoder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.errors import DataError
from compress.models.checkpoint import read_config
from compress.models.limits import table_of_positions
from compress.models.tokenizer import Tokenizer
from compress.schema.workload import Workload
from compress.tasks.base import Feeds, refuse_cache
from compress.tasks.sentence_embedding.settings import Settings, read_settings


@dataclass(frozen=True)
class TextProcessor:
    """Tokenizes whole texts behind the model's own prompt, cut where the model ends."""

    tokenizer: Tokenizer
    input_names: tuple[str, ...]
    max_length: int  # tokens where texts are cut
    positions: int | None  # tokens that the model can count; None: any number
    settings: Settings

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """Numbers of the tokens of each text with the prompt, at most `max_length` and the model's."""
        return self._cut(texts, min(max_length or self.max_length, self.max_length))

    def _cut(self, texts: Sequence[str], length: int) -> list[list[int]]:
        return self.tokenizer.encode([self.settings.prompt + text for text in texts], length)

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> Feeds:
        """Padded to the longest text: name -> (batch, tokens) int64."""
        ids, mask = self.tokenizer.padded(self.encode(texts, max_length))
        return self._feeds(ids, mask)

    def batches(self, examples: Sequence[str], size: int) -> Iterator[Feeds]:
        """Batches of similar length, so that little is padding; order is not kept."""
        ordered = sorted(examples, key=len)
        for start in range(0, len(ordered), size):
            yield self.tokenize(ordered[start : start + size])

    def check(self, workload: Workload) -> None:
        """Raise ConfigError for cached tokens, DataError for more tokens than the model can count."""
        refuse_cache(workload)
        if self.positions is not None and workload.size > self.positions:
            raise DataError(
                "the workload is longer than the model's positions",
                found=f"{workload.size} tokens",
                allowed=f"at most {self.positions}",
            )

    def workload(self, examples: Sequence[str], workload: Workload) -> Feeds:
        """Inputs of exactly (batch, tokens) made of real text, without padding."""
        self.check(workload)
        batch, tokens = workload.batch, workload.size
        ids = np.array(self._cut(long_texts(examples, batch, tokens), tokens), np.int64)
        return self._feeds(ids, np.ones_like(ids))

    def _feeds(self, ids: np.ndarray, mask: np.ndarray) -> Feeds:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: given[name] for name in self.input_names}


def long_texts(examples: Sequence[str], count: int, tokens: int) -> list[str]:
    """Texts of the words of the examples, in their order, of more tokens than `tokens` each."""
    words = " ".join(examples).split()
    need = 2 * tokens  # words are tokens at least, but for a few that a tokenizer knows nothing of
    words *= -(-count * need // len(words))
    return [" ".join(words[row * need : (row + 1) * need]) for row in range(count)]


def open_processor(checkpoint: Path) -> TextProcessor:
    """Raises ModelError where the tokenizer or config.json cannot be read, or one has tokens that the other
    does not know."""
    config, tokenizer = read_config(checkpoint), Tokenizer(checkpoint)
    tokenizer.check_known(config["vocab_size"])
    typed = config.get("type_vocab_size") or 0
    names = ("input_ids", "attention_mask") + (("token_type_ids",) if typed > 1 else ())
    settings, positions = read_settings(checkpoint), table_of_positions(config)
    # A length that sentence-transformers is told is no further limited there: beyond the table it fails.
    length = settings.max_tokens or min(tokenizer.max_length, int(config["max_position_embeddings"]))
    return TextProcessor(tokenizer, names, min(length, positions or length), positions, settings)

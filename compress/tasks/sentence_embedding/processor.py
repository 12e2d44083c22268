"""Texts to the inputs of a sentence encoder."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from compress.models.checkpoint import read_config, read_json
from compress.models.tokenizer import Tokenizer
from compress.schema.workload import Workload
from compress.tasks.base import Feeds, refuse_cache

_COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions, from behind its number


class TextProcessor:
    """Tokenizes whole texts, cut where the model ends."""

    def __init__(self, tokenizer: Tokenizer, input_names: tuple[str, ...], max_length: int) -> None:
        self.tokenizer, self.input_names, self.max_length = tokenizer, input_names, max_length

    def tokenize(self, texts: Sequence[str], max_length: int | None = None) -> Feeds:
        """Padded to the longest text: name -> (batch, tokens) int64."""
        length = min(max_length or self.max_length, self.max_length)
        ids, mask = self.tokenizer.padded(self.tokenizer.encode(texts, length))
        return self._feeds(ids, mask)

    def batches(self, examples: Sequence[str], size: int) -> Iterator[Feeds]:
        """Batches of similar length, so that little is padding; order is not kept."""
        ordered = sorted(examples, key=len)
        for start in range(0, len(ordered), size):
            yield self.tokenize(ordered[start : start + size])

    def check(self, workload: Workload) -> None:
        refuse_cache(workload)

    def workload(self, examples: Sequence[str], workload: Workload) -> Feeds:
        """Inputs of exactly (batch, tokens) made of real text, without padding."""
        self.check(workload)
        batch, tokens = workload.batch, workload.size
        words = " ".join(examples).split()
        need = 2 * tokens  # words are tokens at least, but for a few that a tokenizer knows nothing of
        words *= -(-batch * need // len(words))
        texts = [" ".join(words[row * need : (row + 1) * need]) for row in range(batch)]
        ids = np.array(self.tokenizer.encode(texts, tokens), np.int64)
        return self._feeds(ids, np.ones_like(ids))

    def _feeds(self, ids: np.ndarray, mask: np.ndarray) -> Feeds:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: given[name] for name in self.input_names}


def open_processor(checkpoint: Path) -> TextProcessor:
    """Raises ModelError where the tokenizer or config.json cannot be read."""
    config, tokenizer = read_config(checkpoint), Tokenizer(checkpoint)
    typed = config.get("type_vocab_size") or 0
    names = ("input_ids", "attention_mask") + (("token_type_ids",) if typed > 1 else ())
    path = checkpoint / "sentence_bert_config.json"
    declared = read_json(path).get("max_seq_length") if path.is_file() else None
    offset = config["pad_token_id"] + 1 if config["model_type"] in _COUNTED_FROM_PADDING else 0
    positions = int(config["max_position_embeddings"]) - offset
    return TextProcessor(tokenizer, names, min(int(declared or tokenizer.max_length), positions))

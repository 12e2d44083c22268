"""Texts, and pairs of texts, to the inputs of an encoder with whatever head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.record import Record
from compress.errors import DataError
from compress.models.checkpoint import read_config
from compress.models.limits import table_of_positions
from compress.models.tokenizer import Text, Tokenizer, Tokens
from compress.schema.report import CutTexts
from compress.schema.workload import Workload
from compress.tasks.base import Feeds, refuse_cache

Examples = Sequence[str | Record]  # of a split: plain text, or what data of one's own has


@dataclass(frozen=True)
class TextProcessor:
    """Tokenizes whole texts, cut where the model ends."""

    tokenizer: Tokenizer
    input_names: tuple[str, ...]
    max_length: int  # tokens where texts are cut
    positions: int | None  # tokens that the model can count; None: any number

    def texts(self, examples: Examples) -> list[Text]:
        """What the model reads of each: the text, with its pair where it has one."""
        return [text_of(example) for example in examples]

    def encode(self, examples: Examples, max_length: int | None = None) -> list[Tokens]:
        """Tokens of what is read of each example, at most `max_length` and the model's."""
        return self.cut(self.texts(examples), min(max_length or self.max_length, self.max_length))

    def cut(self, texts: Sequence[Text], length: int) -> list[Tokens]:
        encodings = self.tokenizer.encodings(texts, length)
        return [self.tokens(encoding) for encoding in encodings]

    def count_cut(self, examples: Examples) -> CutTexts:
        """How many of all that is read of the examples are longer than the model reads."""
        encodings = self.tokenizer.encodings(self.every_text(examples), self.max_length)
        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        return CutTexts(texts=len(encodings), cut=cut, limit=self.max_length)

    def every_text(self, examples: Examples) -> list[Text]:
        """What `texts` gives, of examples of which that gives a part all of it."""
        return self.texts(examples)

    def tokens(self, encoding: Any) -> Tokens:
        """Of what the library tokenizers says of a text."""
        return Tokens(encoding.ids, encoding.type_ids if self.tokenizer.tells_types else [0] * len(encoding))

    def feeds(self, rows: Sequence[Tokens]) -> Feeds:
        """Padded to the longest row: name -> (rows, tokens) int64."""
        ids, mask = self.tokenizer.padded([row.ids for row in rows])
        types = self.tokenizer.filled([row.types for row in rows], 0)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: given[name] for name in self.input_names}

    def tokenize(self, examples: Examples, max_length: int | None = None) -> Feeds:
        """Padded to the longest text: name -> (batch, tokens) int64."""
        return self.feeds(self.encode(examples, max_length))

    def batches(self, examples: Examples, size: int) -> Iterator[Feeds]:
        """Batches of similar length, so that little is padding; order is not kept."""
        ordered = sorted(self.texts(examples), key=letters)
        for start in range(0, len(ordered), size):
            yield self.feeds(self.cut(ordered[start : start + size], self.max_length))

    def check(self, workload: Workload) -> None:
        """Raise ConfigError for cached tokens, DataError for more tokens than the model can count."""
        refuse_cache(workload)
        if self.positions is not None and workload.size > self.positions:
            raise DataError(
                "the workload is longer than the model's positions",
                found=f"{workload.size} tokens",
                allowed=f"at most {self.positions}",
            )

    def workload(self, examples: Examples, workload: Workload) -> Feeds:
        """Inputs of exactly (batch, tokens) made of real text, without padding; of pairs, with the first text
        of each example in front."""
        self.check(workload)
        batch, tokens = workload.batch, workload.size
        return self.feeds(self.cut(self.long_texts(examples, batch, tokens), tokens))

    def long_texts(self, examples: Examples, count: int, tokens: int) -> list[Text]:
        """Texts, or pairs, of more tokens than `tokens` each."""
        texts = self.texts(examples)
        whole = long_texts([text if isinstance(text, str) else text[1] for text in texts], count, tokens)
        firsts = [texts[row % len(texts)] for row in range(count)]
        return [
            long if isinstance(first, str) else (first[0], long)
            for first, long in zip(firsts, whole, strict=True)
        ]


def text_of(example: str | Record) -> Text:
    if isinstance(example, str):
        return example
    return example.text if example.pair is None else (example.text, example.pair)


def letters(text: Text) -> int:
    """How long it is, of a pair both."""
    return len(text) if isinstance(text, str) else sum(map(len, text))


def long_texts(examples: Sequence[str], count: int, tokens: int) -> list[str]:
    """Texts of the words of the examples, in their order, of more tokens than `tokens` each."""
    words = " ".join(examples).split()
    need = 2 * tokens  # words are tokens at least, but for a few that a tokenizer knows nothing of
    words *= -(-count * need // len(words))
    return [" ".join(words[row * need : (row + 1) * need]) for row in range(count)]


def opened(checkpoint: Path, max_tokens: int | None = None) -> dict[str, Any]:
    """The fields of a `TextProcessor`; `max_tokens`: where texts are cut, where the folder says so itself.

    Raises ModelError where the tokenizer or config.json cannot be read, or one has tokens that the other does
    not know.
    """
    config, tokenizer = read_config(checkpoint), Tokenizer(checkpoint)
    tokenizer.check_known(config["vocab_size"])
    typed = config.get("type_vocab_size") or 0
    names = ("input_ids", "attention_mask") + (("token_type_ids",) if typed > 1 else ())
    positions = table_of_positions(config)
    # A length that sentence-transformers is told is no further limited there: beyond the table it fails.
    length = max_tokens or min(tokenizer.max_length, int(config["max_position_embeddings"]))
    limit = min(length, positions or length)
    return {"tokenizer": tokenizer, "input_names": names, "max_length": limit, "positions": positions}

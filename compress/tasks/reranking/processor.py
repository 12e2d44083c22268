"""Queries and passages to the inputs of a reranker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.data.record import Record
from compress.models.tokenizer import Text, Tokens
from compress.tasks.reranking.settings import Settings, read_settings
from compress.tasks.text.processor import Examples, TextProcessor, opened

_FEW = 4  # passages of a query that calibration looks at


@dataclass(frozen=True)
class PairProcessor(TextProcessor):
    """A pair for every passage of a query; a text without passages is read with the one after it."""

    settings: Settings

    def texts(self, examples: Examples) -> list[Text]:
        """At most `_FEW` pairs of each query, evenly spread over its passages."""
        return [pair for pairs in self._pairs(examples) for pair in pairs[:: -(-len(pairs) // _FEW)]]

    def every_text(self, examples: Examples) -> list[Text]:
        return [pair for pairs in self._pairs(examples) for pair in pairs]

    def encode(self, examples: Examples, max_length: int | None = None) -> list[Tokens]:
        """Tokens of every pair, with the gain of the passage where that is known."""
        return [row for rows in self.queries(examples, max_length) for row in rows]

    def queries(self, examples: Examples, max_length: int | None = None) -> list[list[Tokens]]:
        """The same, those of each query apart."""
        length = min(max_length or self.max_length, self.max_length)
        pairs = list(self._pairs(examples))
        rows = iter(self.cut([pair for of_query in pairs for pair in of_query], length))
        return [
            [replace(next(rows), label=gain, query=number) for gain in _gains(example)]
            for number, example in enumerate(examples)
        ]

    def _pairs(self, examples: Examples) -> Iterator[list[Text]]:
        for number, example in enumerate(examples):
            if isinstance(example, Record) and example.candidates:
                yield [(example.text, passage) for passage in example.candidates]
            elif isinstance(example, Record) and example.pair is not None:
                yield [(example.text, example.pair)]
            else:
                yield [(_text(example), _text(examples[(number + 1) % len(examples)]))]


def _text(example: str | Record) -> str:
    return example if isinstance(example, str) else example.text


def _gains(example: str | Record) -> Sequence[tuple[float, ...]]:
    """Of each pair, one number where it is known."""
    if isinstance(example, str) or not example.candidates:
        return [() if isinstance(example, str) else example.labels]
    return [(gain,) for gain in example.relevance] or [()] * len(example.candidates)


def open_processor(checkpoint: Path) -> PairProcessor:
    """Raises ModelError where a file that it needs cannot be read."""
    settings = read_settings(checkpoint)
    return PairProcessor(**opened(checkpoint, settings.max_tokens), settings=settings)

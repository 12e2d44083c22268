"""Words to the inputs of a tagger, and back from its tokens to the words."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.data.record import Record
from compress.models.tokenizer import Text, Tokens
from compress.schema.report import CutTexts
from compress.tasks.text.kind import UNKNOWN
from compress.tasks.text.processor import Examples, TextProcessor, opened

NOWHERE = -1  # in place of a token: the word was cut off, or has none


@dataclass(frozen=True)
class TaggingProcessor(TextProcessor):
    """Words are read as the text that they make with spaces between, as pipelines of transformers read it;
    the first token of a word speaks for it."""

    def texts(self, examples: Examples) -> list[Text]:
        return [each if isinstance(each, str) else " ".join(each.words) or each.text for each in examples]

    def encode(self, examples: Examples, max_length: int | None = None) -> list[Tokens]:
        """Tokens of each text; where words have tags, the first token of each has that, the others none."""
        encodings = self.read(examples, max_length)
        rows = []
        for encoding, example in zip(encodings, examples, strict=True):
            row = self.tokens(encoding)
            if not isinstance(example, str) and example.tags:
                label = [UNKNOWN] * len(row)
                for place, tag in zip(first_tokens(encoding, example.words), example.tags, strict=True):
                    if place != NOWHERE:
                        label[place] = tag
                row = replace(row, label=tuple(label))
            rows.append(row)
        return rows

    def count_cut(self, examples: Examples) -> CutTexts:
        """With the words that get no tag since they lie behind what is read."""
        words = [each.words if isinstance(each, Record) and each.words else () for each in examples]
        unread = 0
        for encoding, of_text in zip(self.read(examples), words, strict=True):
            if encoding.overflowing:
                read = _with_tokens(encoding, of_text)
                beyond = (_with_tokens(part, of_text) for part in encoding.overflowing)
                unread += len(set().union(*beyond) - read)
        return replace(super().count_cut(examples), words=sum(map(len, words)), unread=unread)

    def read(self, examples: Examples, max_length: int | None = None) -> list[Any]:
        """What the library tokenizers says of each text."""
        length = min(max_length or self.max_length, self.max_length)
        return self.tokenizer.encodings(self.texts(examples), length)


def first_tokens(encoding: Any, words: Sequence[str]) -> list[int]:
    """Of the words of a text, with spaces between: the place of the first token of each, or `NOWHERE`.

    A token may begin with the space before its word, so that its last character tells the word.
    """
    word_at = [number for number, word in enumerate(words) for _ in range(len(word) + 1)]
    places = [NOWHERE] * len(words)
    for place, (start, end) in enumerate(encoding.offsets):
        if end > start and places[word_at[end - 1]] == NOWHERE:
            places[word_at[end - 1]] = place
    return places


def _with_tokens(encoding: Any, words: Sequence[str]) -> set[int]:
    """Numbers of the words that have one."""
    places = first_tokens(encoding, words) if words else []
    return {number for number, place in enumerate(places) if place != NOWHERE}


def open_processor(checkpoint: Path) -> TaggingProcessor:
    """Raises ModelError where the tokenizer or config.json cannot be read."""
    return TaggingProcessor(**opened(checkpoint))

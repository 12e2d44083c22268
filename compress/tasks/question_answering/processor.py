"""Questions and contexts to the inputs of a model, a long context in windows; and back from its tokens."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.data.record import Record
from compress.errors import ModelError
from compress.models.tokenizer import Text, Tokens
from compress.schema.report import CutTexts
from compress.tasks.text.processor import Examples, TextProcessor, opened

_SHARED = 128  # tokens of a window that the next one begins with, of short windows a quarter
_OF_CONTEXT = 1


@dataclass(frozen=True)
class Window:
    """A question with a part of its context."""

    example: int  # which it is of those that were read
    tokens: Tokens
    offsets: tuple[tuple[int, int] | None, ...]  # of each token within the context; None: no token of it


@dataclass(frozen=True)
class AnswerProcessor(TextProcessor):
    """A window for every part of a context; a text without context is asked of the one after it."""

    def texts(self, examples: Examples) -> list[Text]:
        """Question and context of each."""
        found: list[Text] = []
        for number, example in enumerate(examples):
            if isinstance(example, Record) and example.pair is not None:
                found.append((self._shortened(example.text), example.pair))
            else:
                after = examples[(number + 1) % len(examples)]
                found.append((self._shortened(_text(example)), _text(after)))
        return found

    def encode(self, examples: Examples, max_length: int | None = None) -> list[Tokens]:
        """Tokens of every window, with the places where the answer begins and ends, where it is known: the
        first token where the window has no answer."""
        return [
            replace(window.tokens, label=_places(window, examples[window.example]))
            for window in self.windows(examples, max_length)
        ]

    def windows(self, examples: Examples, max_length: int | None = None) -> list[Window]:
        length = min(max_length or self.max_length, self.max_length)
        shared = min(_SHARED, length // 4)
        encodings = self.tokenizer.encodings(self.texts(examples), length, "only_second", shared)
        return [
            Window(number, self.tokens(part), _offsets(part))
            for number, encoding in enumerate(encodings)
            for part in (encoding, *encoding.overflowing)
        ]

    def count_cut(self, examples: Examples) -> CutTexts:
        """Questions: contexts are read in windows, to their end."""
        asked = [_text(each) for each in examples]
        cut = sum(self._shortened(question) != question for question in asked)
        return CutTexts(texts=len(asked), cut=cut, limit=self.max_length // 2)

    def cut(self, texts: list[Text], length: int) -> list[Tokens]:  # type: ignore[override]
        encodings = self.tokenizer.encodings(texts, length, "longest_first")
        return [self.tokens(encoding) for encoding in encodings]

    def _shortened(self, question: str) -> str:
        """So that half of the tokens are left for the context."""
        _, ends = self.tokenizer.with_ends(question)
        most = self.max_length // 2
        return question if len(ends) <= most else question[: ends[most - 1]]


def _text(example: str | Record) -> str:
    return example if isinstance(example, str) else example.text


def _offsets(encoding: Any) -> tuple[tuple[int, int] | None, ...]:
    pairs = zip(encoding.offsets, encoding.sequence_ids, strict=True)
    return tuple(tuple(offset) if of == _OF_CONTEXT else None for offset, of in pairs)


def _places(window: Window, example: str | Record) -> tuple[float, ...]:
    """Of the first answer, tokens; nothing where nobody says whether there is one."""
    if isinstance(example, str) or example.pair is None:
        return ()
    if not example.answers:
        return (0, 0)
    start, text = example.answers[0]
    end = start + len(text)
    within = [
        place
        for place, offset in enumerate(window.offsets)
        if offset is not None and offset[0] < end and offset[1] > start
    ]
    whole = within and window.offsets[within[0]][0] <= start and window.offsets[within[-1]][1] >= end  # type: ignore[index]
    return (within[0], within[-1]) if whole else (0, 0)


def open_processor(checkpoint: Path) -> AnswerProcessor:
    """Raises ModelError where the tokenizer or config.json cannot be read."""
    processor = AnswerProcessor(**opened(checkpoint))
    if processor.tokenizer.pads_left or processor.tokenizer.cuts_left:
        raise ModelError(
            "places of answers are counted from the beginning of a text, which this tokenizer moves",
            found="padding_side or truncation_side left in tokenizer_config.json",
            allowed="right",
        )
    return processor

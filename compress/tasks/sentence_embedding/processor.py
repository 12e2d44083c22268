"""Texts to the inputs of a sentence encoder."""

from dataclasses import dataclass
from pathlib import Path

from compress.models.tokenizer import Text
from compress.tasks.sentence_embedding.settings import Settings, read_settings
from compress.tasks.text import processor
from compress.tasks.text.processor import Examples, opened


@dataclass(frozen=True)
class TextProcessor(processor.TextProcessor):
    """Tokenizes whole texts behind the model's own prompt, cut where the model ends."""

    settings: Settings

    def texts(self, examples: Examples) -> list[Text]:
        """The prompt and the text of each."""
        plain = (each if isinstance(each, str) else each.text for each in examples)
        return [self.settings.prompt + text for text in plain]


def open_processor(checkpoint: Path) -> TextProcessor:
    """Raises ModelError where the tokenizer or config.json cannot be read, or one has tokens that the other
    does not know."""
    settings = read_settings(checkpoint)
    return TextProcessor(**opened(checkpoint, settings.max_tokens), settings=settings)

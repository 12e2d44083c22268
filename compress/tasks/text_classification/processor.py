"""Texts, or pairs of them, to the inputs of a classifier."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.models.tokenizer import Tokens
from compress.tasks.text.kind import Kind
from compress.tasks.text.processor import Examples, TextProcessor, opened


@dataclass(frozen=True)
class ClassifierProcessor(TextProcessor):
    def encode(self, examples: Examples, max_length: int | None = None) -> list[Tokens]:
        """Tokens of each text or pair, with its labels where it has some."""
        rows = super().encode(examples, max_length)
        return [
            row if isinstance(example, str) else replace(row, label=example.labels)
            for row, example in zip(rows, examples, strict=True)
        ]


def open_processor(checkpoint: Path) -> ClassifierProcessor:
    """Raises ModelError where the tokenizer or config.json cannot be read."""
    return ClassifierProcessor(**opened(checkpoint))


def kind_of(config: Mapping[str, Any]) -> Kind:
    """What a config.json says of the logits, as transformers' pipeline reads it."""
    problem = config.get("problem_type")
    if problem is None:
        names = config.get("id2label")
        problem = "regression" if names and len(names) == 1 else "single_label_classification"
    return _KINDS[problem]


_KINDS = {
    "single_label_classification": Kind.classes,
    "multi_label_classification": Kind.labels,
    "regression": Kind.values,
}

"""What a model card says of a tagger."""

from collections.abc import Mapping
from typing import Any

from compress.tasks.text.card import code
from compress.tasks.text.processor import TextProcessor

_TEXTS = 'texts = ["Angela Merkel was born in Hamburg.", "A cat sits on the mat."]'
_TAGS = """for text, encoding, tags in zip(texts, encoded, logits.argmax(2)):
    of_tokens = zip(encoding.tokens, encoding.offsets, tags)
    print([(token, labels[tag]) for token, (start, end), tag in of_tokens if end > start])"""


def card_facts(processor: TextProcessor, labels: Mapping[int, str]) -> dict[str, Any]:
    names = [labels[number] for number in sorted(labels)]
    lines = f'logits = run(feeds)["logits"]\nlabels = {names}\n'
    return {
        "pipeline_tag": "token-classification",
        "inputs": dict.fromkeys(processor.input_names, "int64 (batch, tokens)"),
        "outputs": {"logits": f"float32 (batch, tokens, {len(names)}); the first token speaks for its word"},
        "max_length": processor.max_length,
        "example_code": code(processor, _TEXTS) + lines + _TAGS,
    }

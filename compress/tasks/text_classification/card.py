"""What a model card says of a classifier of texts."""

from collections.abc import Mapping
from typing import Any

from compress.tasks.text.card import code
from compress.tasks.text.kind import Kind
from compress.tasks.text.processor import TextProcessor

_TEXTS = """texts = ["A cat sits on the mat.", "Someone walks a dog."]
# of a model for pairs: texts = [("A cat sits on the mat.", "An animal rests."), ...]"""
_ANSWERS = {
    Kind.classes: """probabilities = np.exp(logits - logits.max(1, keepdims=True))
probabilities /= probabilities.sum(1, keepdims=True)  # softmax
print([(labels[i], float(p[i])) for p, i in zip(probabilities, probabilities.argmax(1))])""",
    Kind.labels: """probabilities = 1 / (1 + np.exp(-logits))  # sigmoid: each label by itself
print([[label for label, p in zip(labels, row) if p > 0.5] for row in probabilities])""",
    Kind.values: "print(logits)  # the values themselves",
}
_MEANING = {
    Kind.classes: "softmax makes probabilities of them",
    Kind.labels: "sigmoid makes a probability of each",
    Kind.values: "which are the values themselves",
}


def card_facts(processor: TextProcessor, kind: Kind, labels: Mapping[int, str]) -> dict[str, Any]:
    names = [labels[number] for number in sorted(labels)]
    lines = f'logits = run(feeds)["logits"]\nlabels = {names}\n'
    return {
        "pipeline_tag": "text-classification",
        "inputs": dict.fromkeys(processor.input_names, "int64 (batch, tokens)"),
        "outputs": {"logits": f"float32 (batch, {len(names)}); {_MEANING[kind]}"},
        "max_length": processor.max_length,
        "example_code": code(processor, _TEXTS) + lines + _ANSWERS[kind],
    }

"""What a model card says of a reranker."""

from typing import Any

from compress.data.record import Record
from compress.tasks.reranking.processor import PairProcessor
from compress.tasks.text.card import code

_QUERY = "Which animals rest?"
_PASSAGES = ("A cat sits on the mat.", "The quick brown fox jumps over the lazy dog.")
CHECK_PAIRS = (Record(text=_QUERY, candidates=_PASSAGES),)
_TEXTS = f"""query = {_QUERY!r}
passages = {list(_PASSAGES)}
texts = [(query, passage) for passage in passages]"""
_SCORES = {
    "none": 'scores = run(feeds)["logits"][:, 0]\n',
    "sigmoid": 'scores = 1 / (1 + np.exp(-run(feeds)["logits"][:, 0]))  # sigmoid\n',
}
_RANKED = "print([passages[i] for i in (-scores).argsort()])  # the best first"


def card_facts(processor: PairProcessor) -> dict[str, Any]:
    activation = processor.settings.activation
    told = "which are the scores" if activation == "none" else "of which sigmoid makes scores"
    return {
        "pipeline_tag": "text-ranking",
        "inputs": dict.fromkeys(processor.input_names, "int64 (batch, tokens), of query and passage"),
        "outputs": {"logits": f"float32 (batch, 1), {told}"},
        "max_length": processor.max_length,
        "example_code": code(processor, _TEXTS) + _SCORES[activation] + _RANKED,
    }

"""What a model card says of a model that answers questions."""

from typing import Any

from compress.data.record import Record
from compress.tasks.text.card import code
from compress.tasks.text.processor import TextProcessor

_QUESTION, _CONTEXT = "Where does the cat sit?", "A cat sits on the mat, and a dog barks in the garden."
CHECK_QUESTION = (Record(text=_QUESTION, pair=_CONTEXT),)
_TEXTS = f"""question = {_QUESTION!r}
context = {_CONTEXT!r}
texts = [(question, context)]"""
_ANSWER = """outputs = run(feeds)
of_context = [part == 1 for part in encoded[0].sequence_ids]
first, last = (np.where(of_context, outputs[name][0], -np.inf) for name in ("start_logits", "end_logits"))
scores = np.triu(first[:, None] + last[None, :])  # the last token is not before the first
scores[np.tril_indices(len(scores), -1)] = -np.inf
first, last = np.unravel_index(scores.argmax(), scores.shape)
print(context[encoded[0].offsets[first][0] : encoded[0].offsets[last][1]])"""


def card_facts(processor: TextProcessor) -> dict[str, Any]:
    return {
        "pipeline_tag": "question-answering",
        "inputs": dict.fromkeys(processor.input_names, "int64 (batch, tokens), of question and context"),
        "outputs": {
            "start_logits": "float32 (batch, tokens), of the first token of the answer",
            "end_logits": "float32 (batch, tokens), of the last one",
        },
        "max_length": processor.max_length,
        "example_code": code(processor, _TEXTS) + _ANSWER,
    }

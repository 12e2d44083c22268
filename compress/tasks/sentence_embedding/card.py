"""What a model card says of a sentence encoder."""

from typing import Any

from compress.tasks.sentence_embedding.processor import TextProcessor
from compress.tasks.sentence_embedding.settings import Settings
from compress.tasks.text.card import code

_TEXTS = 'texts = ["A cat sits on the mat.", "Someone walks a dog."]'
_EMBEDDINGS = 'embeddings = run(feeds)["sentence_embedding"]\n'
_BY_LENGTH = "embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)\n"
_SIMILARITIES = {  # by sentence-transformers' name of it
    "cosine": "print(embeddings @ embeddings.T)  # cosine similarities",
    "dot": "print(embeddings @ embeddings.T)  # dot products, by which this model compares texts",
    "euclidean": "differences = embeddings[:, None] - embeddings[None]\n"
    "print(-np.linalg.norm(differences, axis=-1))  # this model compares texts by their distance",
    "manhattan": "differences = embeddings[:, None] - embeddings[None]\n"
    "print(-np.abs(differences).sum(axis=-1))  # this model compares texts by this distance",
}


def card_facts(processor: TextProcessor, width: int) -> dict[str, Any]:
    """`width`: numbers of an embedding."""
    settings = processor.settings
    unit = settings.normalize and settings.dimensions is None
    behind = f", of a text behind {settings.prompt!r}" if settings.prompt else ""
    similarity = _SIMILARITIES[settings.similarity]
    return {
        "pipeline_tag": "sentence-similarity",
        "inputs": dict.fromkeys(processor.input_names, f"int64 (batch, tokens){behind}"),
        "outputs": {
            "sentence_embedding": f"float32 (batch, {width}), {'length 1' if unit else 'of any length'}"
        },
        "max_length": processor.max_length,
        "example_code": code(processor, f"{_TEXTS}\n{_prompts(settings)}".strip())
        + _EMBEDDINGS
        + _BY_LENGTH * (settings.similarity == "cosine" and not unit)
        + similarity,
    }


def _prompts(settings: Settings) -> str:
    """Lines of the example that put the prompt in front, or tell which ones there are."""
    others = {name: text for name, text in settings.prompts.items() if text}
    lines = [f"# This model was made for texts behind {text!r} ({name})." for name, text in others.items()]
    if settings.prompt:
        lines += [
            f"prompt = {settings.prompt!r}  # in front of every text, as all numbers of this card were taken"
        ]
        lines += ["texts = [prompt + text for text in texts]"]
    return "".join(f"{line}\n" for line in lines)

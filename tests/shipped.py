"""Artifacts of tiny language models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from compress.artifact import Manifest, write_artifact
from compress.stages.result import write_result

TEMPLATE = (  # refuses what begins with an answer, as published ones do
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('a user speaks first') }}{% endif %}"
    "{% for m in messages %}{{ {'system': 'w1', 'user': 'w2', 'assistant': 'w3', 'tool': 'w4'}[m.role] }} "
    "{{ m.content }} {% endfor %}w3"
)


def ship_tiny(folder: Path, tiny_lm: Any, context: int, template: str | None = None) -> Path:
    """An artifact of the model of one layer; its tokens are the words w0, w1 and so on."""
    graph, checkpoint = folder / "graph", folder / "checkpoint"
    graph.mkdir()
    checkpoint.mkdir()
    tiny_lm.write(graph / "model.onnx")
    words = {f"w{i}": i for i in range(len(tiny_lm.embedding))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if template is None:
        tokenizer.save(str(checkpoint / "tokenizer.json"))
    else:
        whole = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template)
        whole.save_pretrained(checkpoint)
    (checkpoint / "config.json").write_text(json.dumps({"max_position_embeddings": context}))
    write_result(graph, ships=[path.name for path in graph.iterdir()])
    write_result(checkpoint, ships=[path.name for path in checkpoint.iterdir()])
    return ship(folder / "artifact", graph, checkpoint, tiny_lm.feeds(np.array([[1, 2, 3]])))


def ship(artifact: Path, graph: Path, checkpoint: Path, inputs: dict[str, np.ndarray], **more: Any) -> Path:
    """The artifact of a graph and its checkpoint, whose times were taken with one thread."""
    names = ("name", "base_model", "source", "license")
    empty: dict[str, Any] = {key: {} for key in ("config", "splits", "headline")}
    manifest = Manifest(
        **dict.fromkeys(names, "m"), lineage=(), environment={"threads": 1}, opset=18, **empty
    )
    write_artifact(
        artifact,
        graph=graph,
        checkpoint=checkpoint,
        inputs=inputs,
        card="",
        manifest=manifest,
        keep_checkpoint=True,
        **more,
    )
    return artifact


def greedy(tiny_lm: Any, ids: list[int], count: int) -> list[int]:
    """The most likely tokens after these, by numpy."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(tiny_lm.logits(np.array(ids))[-1].argmax()))
    return ids[-count:]

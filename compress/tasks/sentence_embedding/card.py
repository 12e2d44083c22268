"""What a model card says of a sentence encoder."""

from pathlib import Path
from typing import Any

from compress.graph import graph_path

CHECK_TEXTS = ("A cat sits on the mat.", "The quick brown fox jumps over the lazy dog.")
_EXAMPLE = """
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_padding()
tokenizer.enable_truncation({max_length})
session = onnxruntime.InferenceSession("{graph}")

encoded = tokenizer.encode_batch(["A cat sits on the mat.", "Someone walks a dog."])
feeds = {{
    "input_ids": np.array([e.ids for e in encoded]),
    "attention_mask": np.array([e.attention_mask for e in encoded]),
    "token_type_ids": np.array([e.type_ids for e in encoded]),
}}
names = [i.name for i in session.get_inputs()]
embeddings = session.run(["sentence_embedding"], {{n: feeds[n] for n in names}})[0]
print(embeddings @ embeddings.T)  # cosine similarities
"""


def card_facts(input_names: tuple[str, ...], max_length: int) -> dict[str, Any]:
    return {
        "pipeline_tag": "sentence-similarity",
        "inputs": dict.fromkeys(input_names, "int64 (batch, tokens)"),
        "outputs": {"sentence_embedding": "float32 (batch, hidden), length 1"},
        "max_length": max_length,
        "example_code": _EXAMPLE.format(graph=graph_path(Path()), max_length=max_length),
    }

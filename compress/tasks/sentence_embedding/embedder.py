"""Embeddings of texts by an ONNX file, as onnxruntime computes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.errors import GateError
from compress.graph.gates import ADVICE, check_answers
from compress.metrics.quality import Outputs
from compress.tasks.sentence_embedding.processor import TextProcessor
from compress.tasks.text.answers import answers

OUTPUT = "sentence_embedding"


def embed(
    model_path: Path,
    processor: TextProcessor,
    texts: Sequence[str],
    batch_size: int = 1,
    threads: int = 0,
    there: Outputs | None = None,
) -> NDArray[np.float32]:
    """Embeddings [len(texts), hidden] by the output `sentence_embedding` of an ONNX file on the CPU.

    Texts go one at a time by default: `compress.tasks.text.answers` says why. Raises what that does, and
    GateError for embeddings that are not finite, zero, or the same for all texts.
    """
    rows = processor.encode(texts)
    order = sorted(range(len(texts)), key=lambda i: -len(rows[i]))  # like lengths need little padding
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    batches = [[rows[i] for i in part] for part in parts]
    found = answers(model_path, processor, batches, [OUTPUT], threads, there)
    vectors = [vector for each in found for vector in each[OUTPUT]]
    embeddings = np.empty((len(texts), len(vectors[0]) if vectors else 0), dtype=np.float32)
    embeddings[order] = vectors
    _check(embeddings, texts, model_path)
    return embeddings


def _check(embeddings: NDArray[np.float32], texts: Sequence[str], model_path: Path) -> None:
    of_texts = dict(zip(texts, embeddings, strict=True))  # equal texts may have equal embeddings
    check_answers(list(of_texts.values()), model_path.name, "embedding", "text")
    if zeros := int((~embeddings.any(axis=1)).sum()):
        raise GateError(
            f"{model_path.name} gives embeddings of zeros",
            found=f"{zeros} of {len(texts)} texts",
            next=ADVICE,
        )

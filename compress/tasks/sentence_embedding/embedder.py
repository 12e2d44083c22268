"""Embeddings of texts by an ONNX file, as onnxruntime computes them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from compress.errors import GateError, ModelError
from compress.graph.gates import ADVICE, check_answers
from compress.graph.session import Runtime, open_session
from compress.metrics.quality import Outputs
from compress.tasks.sentence_embedding.processor import TextProcessor

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

    Texts go one at a time by default. Dynamic int8 quantizes activations with one scale a tensor, so in a
    batch the embedding of a text depends on the texts beside it and on the padding: batches of 32 moved
    the cosine of two texts by up to 0.10 in int8 all-MiniLM-L6-v2 (7e-7 in float32) and its Lee Spearman
    from 0.507 to 0.511. One at a time takes about twice as long, and is what a user of the model sees for
    a single text. `threads` 0 means one for each core this process may use. `there` runs the file, by default
    a session of this process.

    Raises ModelError for a file onnxruntime cannot load or of other inputs and outputs, GateError for
    embeddings that are not finite, zero, or the same for all texts.
    """
    session = _session(model_path, threads)
    names = [node.name for node in session.get_inputs()]
    # Longest first: the memory arena is then sized once. Within a batch, like lengths need little padding.
    lengths = [len(ids) for ids in processor.encode(texts)]
    order = sorted(range(len(texts)), key=lambda i: -lengths[i])

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for start in range(0, len(order), batch_size):
            tokens = processor.tokenize([texts[i] for i in order[start : start + batch_size]])
            yield {name: tokens[name] for name in names}

    rows: list[NDArray[np.float32]] = []
    if there is None:
        for batch in batches():
            rows.extend(session.run([OUTPUT], batch)[0])
    else:
        for given in there(model_path, batches()):
            rows.extend(given[OUTPUT])
    embeddings = np.empty((len(texts), len(rows[0]) if rows else 0), dtype=np.float32)
    embeddings[order] = rows
    _check(embeddings, texts, model_path)
    return embeddings


def _usable_cores() -> int:
    # onnxruntime counts the machine's cores; threads that share one spin against each other.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _session(model_path: Path, threads: int) -> InferenceSession:
    session = open_session(model_path, Runtime(threads=threads or _usable_cores()))
    known = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {node.name for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]
    if OUTPUT not in outputs or not inputs <= set(known):
        raise ModelError(
            f"{model_path.name} is not a sentence encoder",
            found=f"inputs {', '.join(sorted(inputs))}; outputs {', '.join(outputs)}",
            allowed=f"inputs {', '.join(known)}; output {OUTPUT}",
        )
    return session


def _check(embeddings: NDArray[np.float32], texts: Sequence[str], model_path: Path) -> None:
    of_texts = dict(zip(texts, embeddings, strict=True))  # equal texts may have equal embeddings
    check_answers(list(of_texts.values()), model_path.name, "embedding", "text")
    if zeros := int((~embeddings.any(axis=1)).sum()):
        raise GateError(
            f"{model_path.name} gives embeddings of zeros",
            found=f"{zeros} of {len(texts)} texts",
            next=ADVICE,
        )

"""Embeddings of texts by an ONNX file, as onnxruntime computes them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from compress.errors import GateError, ModelError

if TYPE_CHECKING:  # takes seconds
    from transformers import PreTrainedTokenizerBase

OUTPUT = "sentence_embedding"
DEFAULT_MAX_LENGTH = 128  # tokens
SPREAD_FLOOR = 1e-4  # of embeddings around their mean, relative to it: below, the output is constant


def load_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder; it truncates to `max_seq_length` of sentence_bert_config.json,
    else to 128 tokens. Raises ModelError when the folder holds no tokenizer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        settings = checkpoint / "sentence_bert_config.json"
        limit = json.loads(settings.read_text()).get("max_seq_length") if settings.is_file() else None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot load a tokenizer from {checkpoint}",
            found=str(error).splitlines()[0],
            next="give the folder that holds tokenizer.json and tokenizer_config.json",
        ) from None
    tokenizer.model_max_length = limit or DEFAULT_MAX_LENGTH
    return tokenizer


def embed(
    model_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 1,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Embeddings [len(texts), hidden] by the output `sentence_embedding` of an ONNX file on the CPU.

    Texts go one at a time by default. Dynamic int8 quantizes activations with one scale a tensor, so in a
    batch the embedding of a text depends on the texts beside it and on the padding: batches of 32 moved
    the cosine of two texts by up to 0.10 in int8 all-MiniLM-L6-v2 (7e-7 in float32) and its Lee Spearman
    from 0.507 to 0.511. One at a time takes about twice as long, and is what a user of the model sees for
    a single text. `threads` 0 means one for each core this process may use.

    Raises ModelError for a file onnxruntime cannot load or of other inputs and outputs, GateError for
    embeddings that are not finite, zero, or the same for all texts.
    """
    session = _session(model_path, threads)
    names = [node.name for node in session.get_inputs()]
    # Longest first: the memory arena is then sized once. Within a batch, like lengths need little padding.
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=True)["input_ids"]] if texts else []
    order = sorted(range(len(texts)), key=lambda i: -lengths[i])
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(order), batch_size):
        batch = [texts[i] for i in order[start : start + batch_size]]
        tokens = tokenizer(
            batch, padding=True, truncation=True, return_token_type_ids=True, return_tensors="np"
        )
        rows.extend(session.run([OUTPUT], {name: tokens[name].astype(np.int64) for name in names})[0])
    embeddings = np.empty((len(texts), len(rows[0]) if rows else 0), dtype=np.float32)
    embeddings[order] = rows
    _check(embeddings, texts, model_path)
    return embeddings


def _usable_cores() -> int:
    # onnxruntime counts the machine's cores; threads that share one spin against each other.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _session(model_path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _usable_cores()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise ModelError(f"onnxruntime cannot load {model_path.name}", found=str(error)) from None
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
    broken = int((~np.isfinite(embeddings).all(axis=1) | ~embeddings.any(axis=1)).sum())
    if broken:
        raise GateError(
            f"{model_path.name} gives embeddings that are not finite or zero",
            found=f"{broken} of {len(texts)} texts",
            next="quantize fewer layers, or prune less",
        )
    if len(set(texts)) < 2:
        return
    mean = embeddings.mean(axis=0)
    spread = float(np.linalg.norm(embeddings - mean, axis=1).max() / np.linalg.norm(mean))
    if spread < SPREAD_FLOOR:
        raise GateError(
            f"{model_path.name} gives the same embedding for every text",
            found=f"relative spread {spread:.1e} over {len(texts)} texts",
            allowed=f"at least {SPREAD_FLOOR:g}",
            next="quantize fewer layers, or prune less",
        )

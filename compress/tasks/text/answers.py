"""What an ONNX file answers to tokens, as onnxruntime computes it, or a target."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from compress.errors import ModelError
from compress.graph.session import Runtime, open_session
from compress.metrics.quality import Outputs
from compress.models.tokenizer import Tokens
from compress.tasks.base import Feeds
from compress.tasks.text.processor import TextProcessor

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Answers = dict[str, NDArray[np.float32]]


def answers(
    model_path: Path,
    processor: TextProcessor,
    batches: Sequence[Sequence[Tokens]],
    names: Sequence[str],
    threads: int = 0,
    there: Outputs | None = None,
) -> list[Answers]:
    """The outputs `names` of an ONNX file on the CPU for each batch, in their order.

    Dynamic int8 quantizes activations with one scale a tensor, so in a batch the answer to a text depends on
    the texts beside it and on the padding: batches of 32 moved the cosine of two texts by up to 0.10 in int8
    all-MiniLM-L6-v2 (7e-7 in float32) and its Lee Spearman from 0.507 to 0.511. So whoever asks says what is
    asked together: for a single text one at a time, which takes about twice as long. `threads` 0 means one
    for each physical core this process may use. `there` runs the file, by default a session of this process.

    Raises ModelError for a file that onnxruntime cannot load, or of other inputs and outputs.
    """
    session = _session(model_path, names, threads)
    inputs = [node.name for node in session.get_inputs()]
    # Longest first: the memory arena is then sized once.
    order = sorted(range(len(batches)), key=lambda i: -max(map(len, batches[i])))

    def feeds() -> Iterator[Feeds]:
        for number in order:
            fed = processor.feeds(batches[number])
            yield {name: fed[name] for name in inputs}

    found: list[Answers] = [{}] * len(batches)
    if there is None:
        given = (dict(zip(names, session.run(list(names), fed), strict=True)) for fed in feeds())
    else:
        given = ({name: outputs[name] for name in names} for outputs in there(model_path, feeds()))
    for number, answer in zip(order, given, strict=True):
        found[number] = answer
    return found


def _session(model_path: Path, names: Sequence[str], threads: int) -> InferenceSession:
    session = open_session(model_path, Runtime(threads=threads))
    inputs = {node.name for node in session.get_inputs()}
    outputs = [node.name for node in session.get_outputs()]
    if not set(names) <= set(outputs) or not inputs <= set(_INPUTS):
        raise ModelError(
            f"{model_path.name} is no encoder that gives {', '.join(names)}",
            found=f"inputs {', '.join(sorted(inputs))}; outputs {', '.join(outputs)}",
            allowed=f"inputs {', '.join(_INPUTS)}; output {', '.join(names)}",
        )
    return session

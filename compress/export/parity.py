"""Whether an ONNX file computes what the torch model computes, on real inputs.

Encoders and classifiers are compared answer by answer; the logits of a language model token by token, once
for whole windows and once with a cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compress.config.export import ExportConfig
from compress.errors import GateError, ModelError
from compress.graph.decoder import Decoder
from compress.graph.gates import check_outputs
from compress.graph.session import open_session
from compress.stages.result import gate, write_result
from compress.tasks import Model

if TYPE_CHECKING:  # encoders are exported with this file too
    from compress.tasks.language_modeling.model import CausalLM

EXAMPLES = 64
# Examples, and how many at a time: a graph with a batch of its own fails.
_SHAPES = ((EXAMPLES, 8), (6, 3), (2, 1))
WINDOWS, TOKENS, STEPS = 4, 128, 8  # of a language model: STEPS tokens of each window go one by one


def parity(model: Model, path: Path, examples: Any) -> dict[str, float]:
    """Largest difference and smallest cosine between the outputs of torch and ONNX for real examples.

    Raises GateError where onnxruntime cannot load the graph, its inputs or outputs are not the model's, or
    what it gives is not finite or the same for all examples.
    """
    try:
        session = open_session(path)
    except ModelError as error:
        raise _not_loaded(error, "try export.fuse=false") from None
    names = [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]
    wanted = list(model.input_names), list(model.output_names)
    if names != wanted:
        raise GateError(
            "the exported graph has other inputs or outputs than the model",
            found=" -> ".join(map(", ".join, names)),
            allowed=" -> ".join(map(", ".join, wanted)),
        )
    answers: list[dict[str, np.ndarray]] = []  # of each example

    def both() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in chain(*(model.batches(examples[:count], size) for count, size in _SHAPES)):
            with torch.no_grad():
                ours = model.outputs(batch)
            feeds = {name: tensor.numpy() for name, tensor in batch.items()}
            theirs = session.run(names[1], feeds)
            answers.extend(dict(zip(names[1], rows, strict=True)) for rows in zip(*theirs, strict=True))
            for name, array in zip(names[1], theirs, strict=True):
                yield ours[name].numpy().reshape(len(array), -1), array.reshape(len(array), -1)

    examples = examples[:EXAMPLES]
    numbers = {**distances(both()), "examples": len(examples)}
    check_outputs(answers, "the exported graph")
    return numbers


def decoder_parity(model: CausalLM, path: Path, texts: Sequence[str]) -> dict[str, float]:
    """Largest difference of logits, smallest cosine of a token's, and share of tokens with the same answer.

    Each window is run whole, and again with its last `STEPS` tokens one by one after the cached others.
    Raises GateError where onnxruntime cannot load the graph or what it gives is not finite.
    """
    try:
        decoder = Decoder(path, capacity=TOKENS, prepack=False)
    except ModelError as error:
        raise _not_loaded(error, "try export=torch") from None
    tokens = min(TOKENS, int(model.config.max_position_embeddings))
    windows = model.windows(texts, tokens)[:WINDOWS]
    agreement: list[float] = []

    def both() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for ids in windows:
            with torch.no_grad():
                ours = model.run({"input_ids": ids[None]})[0].numpy()
            for theirs in (whole(decoder, ids.numpy()), stepwise(decoder, ids.numpy(), STEPS)):
                if not np.isfinite(theirs).all():
                    raise GateError("the exported graph gives NaN or infinity", next="try export=torch")
                agreement.append(float((ours.argmax(1) == theirs.argmax(1)).mean()))
                yield ours, theirs

    numbers = distances(both())
    return {**numbers, "top1_agreement": float(np.mean(agreement)), "tokens": len(agreement) * tokens}


def distances(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Over pairs of equal arrays (rows, width): the largest difference, the largest output and the smallest
    cosine of a row."""
    diffs, outputs, cosines = [], [], []
    for ours, theirs in pairs:
        outputs.append(float(np.abs(ours).max()))
        diffs.append(float(np.abs(ours - theirs).max()))
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines.append(float(((ours * theirs).sum(1) / norms).min()))
    # unlike max() and min(), numpy's never pass over NaN
    return {
        "max_abs_diff": float(np.max(diffs)),
        "largest_output": float(np.max(outputs)),
        "min_cosine": float(np.min(cosines)),
    }


def whole(decoder: Decoder, ids: np.ndarray) -> np.ndarray:
    """Logits (tokens, vocabulary) of all tokens at once."""
    decoder.reset()
    return decoder.run(ids)


def stepwise(decoder: Decoder, ids: np.ndarray, steps: int) -> np.ndarray:
    """The same, the last `steps` tokens one by one."""
    decoder.reset()
    first = len(ids) - steps
    rows = [decoder.run(ids[:first]), *(decoder.run(ids[i : i + 1]) for i in range(first, len(ids)))]
    return np.concatenate(rows)


def check_parity(numbers: dict[str, float], config: ExportConfig, out: Path, advice: str) -> None:
    """Note the gate in `out/stage.json`; raise GateError when ONNX and torch differ too much."""
    write_result(out, gates=[gate("ONNX equals torch", **numbers)])
    allowed = config.max_abs_diff * max(1.0, numbers["largest_output"])  # rounding grows with what is rounded
    near = numbers["max_abs_diff"] <= allowed and numbers["min_cosine"] >= config.min_cosine
    if near:  # NaN is not
        return
    same = f", same answer for {numbers['top1_agreement']:.1%}" if "top1_agreement" in numbers else ""
    raise GateError(
        "the exported graph does not compute what the torch model computes",
        found=f"max abs {numbers['max_abs_diff']:.2e}, cosine {numbers['min_cosine']:.6f}{same}",
        allowed=f"max abs {allowed:.1e}, cosine {config.min_cosine}",
        next=advice,
    )


def _not_loaded(error: ModelError, advice: str) -> GateError:
    reason = str(error).rpartition("found:")[2].strip()  # what the runtime itself said
    return GateError("onnxruntime cannot load the exported graph", found=reason, next=advice)

"""Whether an ONNX file computes what the torch model computes, on real inputs."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.config.export import ExportConfig
from compress.errors import GateError, ModelError
from compress.export.with_cache import WithCache
from compress.graph.gates import check_outputs
from compress.graph.session import open_session, running
from compress.stages.result import gate, write_result
from compress.tasks import Feeds, Model

EXAMPLES = 64
# Examples, from one to another, and how many at a time: a graph with a batch of its own fails.
_BATCHES = ((0, 2, 1), (2, 8, 3), (8, EXAMPLES, 8))
Runs = Iterator[tuple[Feeds, Feeds]]  # what torch and the graph give


def parity(model: Model, path: Path, examples: Any, advice: str, cached: bool = False) -> dict[str, float]:
    """Over the rows (an example's, or a token's) of all outputs of torch and ONNX for real examples: the
    largest difference, the largest number, the smallest cosine, and how often both are largest at the same
    place, which is the answer of what gives logits.

    `cached`: the graph takes keys and values of earlier tokens. The limits of the model that were crossed are
    told, too. Raises GateError, with `advice`, where onnxruntime cannot run the graph, and without where
    its inputs or outputs are not the model's, or what it gives is not finite or the same for all examples.
    """
    rows: list[tuple[float, float, float, float]] = []
    answers: list[Feeds] = []  # of each example: of a text, of its last token
    crossed: dict[int, bool] = {}
    try:
        runs = (_with_cache if cached else _in_batches)(model, path, examples, crossed)
        with torch.no_grad():
            for wanted, given in runs:
                rows += [_distance(wanted[name], array) for name, array in given.items()]
                last = (array.reshape(len(array), -1)[:, -array.shape[-1] :] for array in given.values())
                answers += [dict(zip(given, each, strict=True)) for each in zip(*last, strict=True)]
    except ModelError as error:
        reason = str(error).rpartition("found:")[2].strip()  # what the runtime itself said
        raise GateError("onnxruntime cannot run the exported graph", found=reason, next=advice) from error
    check_outputs(answers, "the exported graph")
    differences, largest, cosines, same = np.array(rows).T
    return {  # unlike max() and min(), numpy's never pass over NaN
        "max_abs_diff": float(differences.max()),
        "largest_output": float(largest.max()),
        "min_cosine": float(cosines.min()),
        "same_largest": float(same.mean()),
        "examples": len(answers),
        **{f"crosses_{limit}": float(was) for limit, was in crossed.items()},
    }


def _in_batches(model: Model, path: Path, examples: Any, crossed: dict[int, bool]) -> Runs:
    session = open_session(path)
    names = [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]
    wanted = list(model.input_names), list(model.output_names)
    if names != wanted:
        raise GateError(
            "the exported graph has other inputs or outputs than the model",
            found=" -> ".join(map(", ".join, names)),
            allowed=" -> ".join(map(", ".join, wanted)),
        )
    longest, reached = model.at_limits(examples)
    crossed.update(reached)
    of_examples = (model.batches(examples[start:end], size) for start, end, size in _BATCHES)
    for batch in chain(*of_examples, longest):
        feeds = {name: tensor.numpy() for name, tensor in batch.items()}
        with running():
            given = session.run(names[1], feeds)
        outputs = {name: each.numpy() for name, each in model.outputs(batch).items()}
        yield outputs, dict(zip(names[1], given, strict=True))


def _with_cache(model: Model, path: Path, texts: Any, crossed: dict[int, bool]) -> Runs:
    tried = WithCache(model, path, texts)
    [name] = model.output_names
    for wanted, found in tried.pairs():
        yield {name: wanted[None]}, {name: found[None]}
    crossed.update(tried.crossed)


def _distance(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float, float]:
    """Largest difference, largest number, smallest cosine of a row and share of rows largest at the same
    place."""
    ours, theirs = (array.reshape(-1, theirs.shape[-1]) for array in (ours, theirs))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = ((ours * theirs).sum(1) / norms).min()
    return (
        np.abs(ours - theirs).max(),
        np.abs(ours).max(),
        cosine,
        np.mean(ours.argmax(1) == theirs.argmax(1)),
    )


def check_parity(numbers: dict[str, float], config: ExportConfig, out: Path, advice: str) -> None:
    """Note the gate in `out/stage.json`; raise GateError when ONNX and torch differ too much."""
    write_result(out, gates=[gate("ONNX equals torch", **numbers)])
    allowed = config.max_abs_diff * max(1.0, numbers["largest_output"])  # rounding grows with what is rounded
    if numbers["max_abs_diff"] <= allowed and numbers["min_cosine"] >= config.min_cosine:
        return
    raise GateError(  # also for NaN
        "the exported graph does not compute what the torch model computes",
        found=f"max abs {numbers['max_abs_diff']:.2e}, cosine {numbers['min_cosine']:.6f}",
        allowed=f"max abs {allowed:.1e}, cosine {config.min_cosine}",
        next=advice,
    )

"""Whether an ONNX file computes what the torch model computes, on real inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from compress.errors import GateError
from compress.graph.gates import check_outputs
from compress.models import Model

EXAMPLES = 64


def parity(model: Model, path: Path, examples: Any) -> dict[str, float]:
    """Largest difference and smallest cosine between the outputs of torch and ONNX for real examples.

    Raises GateError where onnxruntime cannot load the graph, its inputs or outputs are not the model's, or
    what it gives is not finite or the same for all examples.
    """
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise GateError(
            "onnxruntime cannot load the exported graph",
            found=error,
            next="try another opset: export.opset=17",
        ) from None
    names = [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]
    wanted = list(model.input_names), [model.output_name]
    if names != wanted:
        raise GateError(
            "the exported graph has other inputs or outputs than the model",
            found=" -> ".join(map(", ".join, names)),
            allowed=" -> ".join(map(", ".join, wanted)),
        )
    diffs, cosines = [], []
    outputs: list[dict[str, np.ndarray]] = []
    for batch in model.batches(examples, 8):
        with torch.no_grad():
            ours = model.run(batch).numpy()
        feeds = {name: tensor.numpy() for name, tensor in batch.items()}
        theirs = session.run([model.output_name], feeds)[0]
        outputs += [{model.output_name: row} for row in theirs]
        diffs.append(float(np.abs(ours - theirs).max()))
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines.append(float(((ours * theirs).sum(1) / norms).min()))
    check_outputs(outputs, "the exported graph")
    return {
        "max_abs_diff": float(np.max(diffs)),  # unlike max() never passes over NaN
        "min_cosine": float(np.min(cosines)),
        "examples": len(examples),
    }


def check_parity(numbers: dict[str, float], max_abs_diff: float, min_cosine: float, advice: str) -> None:
    """Raise GateError when ONNX and torch differ by more than is allowed."""
    near = numbers["max_abs_diff"] <= max_abs_diff and numbers["min_cosine"] >= min_cosine
    if not near:  # put so that NaN fails
        raise GateError(
            "the exported graph does not compute what the torch model computes",
            found=f"max abs {numbers['max_abs_diff']:.2e}, cosine {numbers['min_cosine']:.6f}",
            allowed=f"max abs {max_abs_diff:.0e}, cosine {min_cosine}",
            next=advice,
        )

"""torch in, ONNX out, by optimum's exporter; the parity gate makes the result trustworthy.

optimum itself only warns when the exported numbers differ, and compares one random batch.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from compress.config import OptimumExport
from compress.data import load_splits
from compress.errors import CompressError, GateError
from compress.export.fuse import LOWEST_OPSET, fuse
from compress.families import Encoder, load
from compress.onnx_gates import check_operators, check_outputs
from compress.registry import register

PARITY_TEXTS = 64
log = logging.getLogger(__name__)


@register(OptimumExport)
def export(config: OptimumExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write `out/model.onnx` and `out/parity.json`.

    Raises GateError when ONNX and torch differ on real inputs by more than the config allows, and
    CompressError when the architecture has an operator that cannot be exported.
    """
    encoder = load(checkpoint)
    path = out / "model.onnx"
    try:
        _export(encoder, max(config.opset, LOWEST_OPSET) if config.fuse else config.opset, path)
    except (RuntimeError, ValueError, torch.onnx.OnnxExporterError) as error:
        raise CompressError(
            "the model cannot be exported to ONNX",
            found=str(error).strip().splitlines()[0],
            next="try another opset: export.opset=17",
        ) from error
    _strip(path)
    blocks = fuse(path) if config.fuse else 0
    if config.fuse and blocks != len(encoder.layers()):
        log.warning("fused the attention of %d of %d layers", blocks, len(encoder.layers()))
    check_operators(onnx.load(path, load_external_data=False))
    numbers = parity(encoder, path, load_splits(splits).calibration.texts[:PARITY_TEXTS])
    (out / "parity.json").write_text(json.dumps({"fused_layers": blocks, **numbers}, indent=2))
    near = numbers["max_abs_diff"] <= config.max_abs_diff and numbers["min_cosine"] >= config.min_cosine
    if not near:  # put so that NaN fails
        raise GateError(
            "the exported graph does not compute what the torch model computes",
            found=f"max abs {numbers['max_abs_diff']:.2e}, cosine {numbers['min_cosine']:.6f}",
            allowed=f"max abs {config.max_abs_diff:.0e}, cosine {config.min_cosine}",
            next="try export.fuse=false" if config.fuse else "try another opset: export.opset=17",
        )


def parity(encoder: Encoder, path: Path, texts: tuple[str, ...]) -> dict[str, float]:
    """Largest difference and smallest cosine between torch and ONNX embeddings of real texts.

    Raises GateError where onnxruntime cannot load the graph, its inputs or outputs are not the model's, or
    what it gives is not finite or the same for all texts.
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
    wanted = list(encoder.input_names), ["sentence_embedding"]
    if names != wanted:
        raise GateError(
            "the exported graph has other inputs or outputs than the model",
            found=" -> ".join(map(", ".join, names)),
            allowed=" -> ".join(map(", ".join, wanted)),
        )
    diffs, cosines = [], []
    outputs: list[dict[str, np.ndarray]] = []
    for batch in encoder.batches(texts, 8):
        with torch.no_grad():
            ours = encoder.module(**batch)["sentence_embedding"].numpy()
        feeds = {name: tensor.numpy() for name, tensor in batch.items()}
        theirs = session.run(["sentence_embedding"], feeds)[0]
        outputs += [{"sentence_embedding": row} for row in theirs]
        diffs.append(float(np.abs(ours - theirs).max()))
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines.append(float(((ours * theirs).sum(1) / norms).min()))
    check_outputs(outputs, "the exported graph")
    return {
        "max_abs_diff": float(np.max(diffs)),  # unlike max() never passes over NaN
        "min_cosine": float(np.min(cosines)),
        "texts": len(texts),
    }


def _export(encoder: Encoder, opset: int, path: Path) -> None:
    from optimum.exporters.onnx import export as optimum_export
    from optimum.exporters.tasks import TasksManager

    hf_config: Any = encoder.module.config
    base = TasksManager.get_exporter_config_constructor(
        exporter="onnx",
        model_type=hf_config.model_type,
        task="feature-extraction",
        library_name="transformers",
    )

    class SentenceEncoderOnnxConfig(base.func):  # type: ignore[misc, name-defined]
        """The architecture's own inputs; pooled and normalised, so one vector a text comes out."""

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {name: {0: "batch_size", 1: "sequence_length"} for name in encoder.input_names}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {"sentence_embedding": {0: "batch_size"}}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer and deprecation warnings of the TorchScript exporter
        logging.getLogger("optimum").setLevel(logging.ERROR)
        optimum_export(
            encoder.module, SentenceEncoderOnnxConfig(hf_config, task="feature-extraction"), path, opset=opset
        )


def _strip(path: Path) -> None:
    """Remove what the exporter notes about its own stack: it would leak paths and change digests."""
    model = onnx.load(path)
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.save(model, path)

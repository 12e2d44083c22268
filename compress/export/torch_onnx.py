"""torch in, ONNX out, by torch.export; the parity gate makes the result trustworthy."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from torch import nn

from compress.config.export import TorchExport
from compress.data import load_splits
from compress.errors import CompressError
from compress.export.parity import EXAMPLES, check_parity, parity
from compress.export.simplify import flatten_attention, name_by_module, name_operators, protect_residual_sums
from compress.graph import graph_path
from compress.graph.gates import check_operators
from compress.tasks import load


def export(config: TorchExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a graph whose batch is open, and the length of texts.

    Raises GateError when ONNX and torch differ on real inputs by more than the config allows, and
    CompressError when the model has an operator that cannot be exported.
    """
    model, path = load(checkpoint), graph_path(out)
    examples = load_splits(splits).calibration.examples[:EXAMPLES]
    # Strides of images with channels last would go into the graph.
    plain = {"memory_format": torch.contiguous_format}
    inputs = {name: each.clone(**plain) for name, each in next(model.batches(examples[:2], 2)).items()}
    axes = {name: dict(enumerate(model.open_axes)) for name in inputs}
    write(model.module, inputs, axes, model.output_names, path, config)
    numbers = parity(model, path, examples)
    check_parity(numbers, config, out, "try export.fuse=false" if config.fuse else "try export.opset=18")


def write(
    module: nn.Module,
    inputs: Mapping[str, Any],
    axes: Mapping[str, Any],
    outputs: Sequence[str],
    path: Path,
    config: TorchExport,
    *,
    names: Sequence[str] | None = None,
    beside: bool = False,
) -> None:
    """Export `module` to `path`: the same bytes every time, free of paths and times.

    `inputs`: keyword -> tensor, or a nest of them that `names` are the flat names of; `axes`: of the same
    nest, axis -> name for those that stay open. `beside` puts the weights into a file of their own. Raises
    CompressError when the module has an operator that cannot be exported.
    """
    for chatty in ("torch.onnx", "torch._subclasses"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                module,
                kwargs=dict(inputs),
                dynamic_shapes=dict(axes),
                input_names=list(names or inputs),
                output_names=list(outputs),
                opset_version=config.opset,
                dynamo=True,
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError, torch.onnx.OnnxExporterError) as error:
        raise CompressError(
            "the model cannot be exported to ONNX",
            found=_reason(error),
            next="compress --debug shows where; rewrite what torch.export cannot trace",
        ) from error
    graph: onnx_ir.Model = program.model
    name_operators(graph)
    name_by_module(graph)
    if config.fuse:
        protect_residual_sums(graph)
        flatten_attention(graph)
        RemoveUnusedNodesPass()(graph)
    _forget_sources(graph)
    beside_it = f"{path.name}_data" if beside else None
    onnx_ir.save(graph, path, external_data=beside_it, size_threshold_bytes=1024)
    check_operators(onnx.load(path, load_external_data=False))


def _forget_sources(graph: onnx_ir.Model) -> None:
    """Remove what the exporter notes of its own stack: it would leak paths and change digests."""
    ClearMetadataAndDocStringPass()(graph)
    values = (*graph.graph.inputs, *graph.graph.initializers.values(), *graph.graph.outputs)
    for value in (*values, *(value for node in graph.graph for value in node.outputs)):
        value.metadata_props.clear()


def _reason(error: BaseException) -> str:
    """The first cause, which the exporter wraps in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

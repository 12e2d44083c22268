"""torch in, ONNX out, by torch.export; the parity gate makes the result trustworthy."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.config.export import TorchExport
from compress.data import load_splits
from compress.errors import CompressError
from compress.export import simplify
from compress.export.parity import check_parity, parity
from compress.export.save import save
from compress.graph import graph_path
from compress.system.silence import printed_to
from compress.tasks import load
from compress.tasks.base import Traced

log = logging.getLogger(__name__)


def export(config: TorchExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a graph whose batch is open, and the length of texts.

    Raises GateError when ONNX and torch differ on real inputs by more than the config allows, and
    CompressError when the model has an operator that cannot be exported.
    """
    model, path = load(checkpoint), graph_path(out)
    examples = load_splits(splits).calibration.examples
    traced = model.traced(examples)
    write(traced, path, config)
    advice = "try export.fuse=false" if config.fuse else "try export.opset=18"
    check_parity(parity(model, path, examples, advice, traced.cached), config, out, advice)


def write(traced: Traced, path: Path, config: TorchExport) -> None:
    """Export to `path`: the same bytes every time, free of paths and times. Where there is a cache, the
    weights lie in a file of their own.

    Raises CompressError when the module has an operator that cannot be exported.
    """
    for chatty in ("torch.onnx", "torch._subclasses", "torch.fx"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    try:  # of a failure torch prints all that it had traced
        ignored = warnings.catch_warnings(action="ignore")
        with ignored, torch.no_grad(), printed_to(log), _as_computed(traced):
            program: Any = torch.onnx.export(
                traced.module,
                kwargs=traced.inputs,
                dynamic_shapes=traced.axes,
                input_names=list(traced.input_names),
                output_names=list(traced.output_names),
                opset_version=config.opset,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the model's code and the exporter stumble over
        raise CompressError(
            "the model cannot be exported to ONNX",
            found=_reason(error),
            next="compress --debug shows where; rewrite what torch.export cannot trace",
        ) from error
    graph: onnx_ir.Model = program.model
    simplify.order_by_use(graph)
    simplify.name_operators(graph)
    simplify.name_by_module(graph)
    if config.fuse:
        simplify.protect_residual_sums(graph)
        simplify.flatten_attention(graph)
        RemoveUnusedNodesPass()(graph)
    save(graph, path, beside=traced.cached)


@contextmanager
def _as_computed(traced: Traced) -> Iterator[None]:
    """What a module computes once and keeps, as LongRoPE its frequencies, is computed before a trace, so that
    the graph has torch's bits, and is kept after it: a trace puts tensors without numbers there."""
    traced.module(**traced.inputs)
    kept = [(each, dict(vars(each)), dict(each._buffers)) for each in traced.module.modules()]
    yield
    for each, attributes, buffers in kept:
        vars(each).update(attributes)
        each._buffers.clear()
        each._buffers.update(buffers)


def _reason(error: BaseException) -> str:
    """The first cause, which the exporter wraps in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

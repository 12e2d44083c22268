"""torch in, ONNX out, by torch's own exporter: what classifiers of images need."""

import logging
from pathlib import Path

import onnx
import torch

from compress.config.export import TorchExport
from compress.data import load_splits
from compress.export.attempt import attempt
from compress.export.parity import EXAMPLES, check_parity, parity
from compress.export.sizes import fold_sizes
from compress.export.strip import strip
from compress.graph import graph_path
from compress.graph.gates import check_operators
from compress.tasks import load


def export(config: TorchExport, checkpoint: Path, splits: Path, out: Path) -> None:
    """Write a graph whose batch is open.

    Raises GateError when ONNX and torch differ on real inputs by more than the config allows, and
    CompressError when the net has an operator that cannot be exported.
    """
    model, path = load(checkpoint), graph_path(out)
    examples = load_splits(splits).calibration.examples[:EXAMPLES]
    inputs = next(model.batches(examples[:2], 2))
    names = [*model.input_names, *model.output_names]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with attempt():
        torch.onnx.export(
            model.module,
            tuple(inputs.values()),
            path,
            input_names=list(model.input_names),
            output_names=list(model.output_names),
            dynamic_axes={name: {0: "batch_size"} for name in names},
            opset_version=config.opset,
            dynamo=False,
        )
    strip(path)
    fold_sizes(path, {name: tensor.numpy() for name, tensor in inputs.items()})
    check_operators(onnx.load(path, load_external_data=False))
    numbers = parity(model, path, examples)
    check_parity(numbers, config, out, "try another opset: export.opset=17")

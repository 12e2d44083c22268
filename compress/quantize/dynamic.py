"""8-bit weights, 8-bit activations whose scale is found at run time."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic

from compress.config.evaluate import EvaluateConfig
from compress.config.quantize import Int8Dynamic
from compress.graph import graph_path
from compress.quantize import coverage
from compress.quantize.activations import EXAMPLES, calibration_feeds
from compress.quantize.finish import finish
from compress.quantize.kernels import quiet, resolve
from compress.quantize.smoothing import smooth


def quantize(
    config: Int8Dynamic,
    cpu_flags: Sequence[str],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
    evaluate: EvaluateConfig | None = None,
) -> None:
    kernel = resolve(cpu_flags, config.weight_type, config.reduce_range)
    model, target = onnx.load(graph_path(graph)), graph_path(out)
    excluded = coverage.excluded_nodes(model.graph, config.exclude)
    if config.smooth is not None:
        model = smooth(model, calibration_feeds(checkpoint, splits, EXAMPLES), config.smooth, excluded)
    with quiet():
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul", "Gemm", *(["Gather"] if config.embeddings else [])],
            per_channel=config.per_channel,
            reduce_range=kernel.reduce_range,
            weight_type=kernel.weight_type,
            nodes_to_exclude=excluded,
            # Operators that shape inference does not know would otherwise hide their tensors' type.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    finish(config, onnx.load(target), model, checkpoint, splits, out, evaluate)

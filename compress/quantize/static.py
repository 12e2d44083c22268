"""8-bit weights and activations in QDQ format, scales from calibration.

Of a transformer only what goes into a product with weights is quantized: softmax, normalisation and
additions stay in float, where integers cost accuracy and save nothing. A convolutional net stays in
integers from its first convolution to its last layer: between convolutions there is no work that float
would be needed for, and onnxruntime joins Q, DQ and convolution into one integer kernel only so.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
    save_tensors_data,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from compress.config.evaluate import EvaluateConfig
from compress.config.quantize import Calibrator, Int8Static
from compress.data import load_splits
from compress.graph import graph_path
from compress.graph.surgery import producers, replace_nodes
from compress.quantize import coverage
from compress.quantize.activations import EXAMPLES, calibration_feeds
from compress.quantize.calibrate import Grid, least_squares_ranges
from compress.quantize.equalize import equalize
from compress.quantize.finish import finish
from compress.quantize.kernels import Kernel, quiet, resolve
from compress.quantize.layers import is_convolutional, roundings
from compress.quantize.smoothing import smooth
from compress.tasks import Processor, open_processor

_METHODS = {method.name.lower(): method for method in CalibrationMethod}

# Of a transformer. A convolution among float operators, such as a ViT's first, has no integer kernel that
# gives floats: quantized it would run in float all the same, after rounding its input.
_WITH_WEIGHTS = ("MatMul", "Gemm")
# What lies between convolutions and has an integer kernel, or passes integers through.
_CONVOLUTIONAL = [
    *("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "Concat"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Reshape", "Transpose"),
]


class FeedReader(CalibrationDataReader):  # type: ignore[misc]
    """One example at a time: padding would enter the statistics."""

    def __init__(self, processor: Processor, examples: Any) -> None:
        self.processor, self.examples = processor, examples
        self.set_range(0, len(examples))

    def __len__(self) -> int:
        return len(self.examples)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.batches = self.processor.batches(self.examples[start_index:end_index], 1)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantize(
    config: Int8Static,
    cpu_flags: Sequence[str],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
    evaluate: EvaluateConfig | None = None,
) -> None:
    quantized, original = calibrated(config, cpu_flags, graph, checkpoint, splits, out)
    finish(config, quantized, original, checkpoint, splits, out, evaluate)


def calibrated(
    config: Int8Static, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The QDQ graph and the float graph it was made from, which name what layers give alike."""
    kernel = resolve(cpu_flags, config.weight_type, config.reduce_range, config.symmetric_activations)
    with tempfile.TemporaryDirectory(dir=out) as scratch, quiet():
        source, target = Path(scratch) / "prepared.onnx", Path(scratch) / "quantized.onnx"
        quant_pre_process(graph_path(graph), source, skip_symbolic_shape=True)
        original = onnx.load(source)
        excluded = coverage.excluded_nodes(original.graph, config.exclude)
        if config.smooth is not None:
            feeds = calibration_feeds(checkpoint, splits, min(EXAMPLES, config.examples))
            original = smooth(original, feeds, config.smooth, excluded)
        if config.equalize:
            original = equalize(original)
        of_activations = _declare_products(original.graph)
        onnx.save(original, source)
        whole = is_convolutional(original.graph)
        types = _CONVOLUTIONAL if whole else [*_WITH_WEIGHTS, *(["Gather"] if config.embeddings else [])]
        quantize_static(
            source,
            target,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=types,
            per_channel=config.per_channel,
            reduce_range=kernel.reduce_range,
            activation_type=QuantType.QInt8 if kernel.symmetric_activations else QuantType.QUInt8,
            weight_type=kernel.weight_type,
            nodes_to_exclude=[*excluded, *of_activations],
            # A cache of ranges, of our mse, passes for those of minmax.
            calibrate_method=_METHODS.get(config.calibrator.value, CalibrationMethod.MinMax),
            extra_options={
                "ActivationSymmetric": kernel.symmetric_activations,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": [] if whole else [*_WITH_WEIGHTS],
                "CalibPercentile": config.percentile,
                # Texts differ in length, and the histograms stack what they get at one time.
                "CalibStridedMinMax": 1,
            },
            **_ranges(config, kernel, source, types, checkpoint, splits),
        )
        quantized = onnx.load(target)
        if not whole:
            _spare_the_rest(quantized.graph)
        return with_activations(quantized, original), original


def _ranges(
    config: Int8Static, kernel: Kernel, source: Path, types: Sequence[str], checkpoint: Path, splits: Path
) -> dict[str, Any]:
    """What tells `quantize_static` the ranges: examples, or for what it has no method, a cache of ours."""
    processor = open_processor(checkpoint)
    examples = load_splits(splits).calibration.examples[: config.examples]
    if config.calibrator is not Calibrator.mse:
        return {"calibration_data_reader": FeedReader(processor, examples)}
    grid = Grid(low=-127, high=127, symmetric=True) if kernel.symmetric_activations else Grid(low=0, high=255)
    ranges = least_squares_ranges(source, types, lambda: FeedReader(processor, examples), grid)
    cache = source.with_name("ranges.json")
    save_tensors_data(ranges, cache)
    return {"calibration_cache_path": cache}


def with_activations(quantized: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with each Relu and Clip that the quantizer left to the rounding after it.

    A convolution then gives what its twin in the float graph gives, by the same name; onnxruntime drops
    them again.
    """
    activations = {n.output[0]: n for n in original.graph.node if n.op_type in ("Relu", "Clip")}
    nodes = []
    for node in quantized.graph.node:
        nodes.append(node)
        activation = activations.get(node.output[0]) if node.output else None
        if activation is not None and node.op_type != activation.op_type:
            node.output[0] = activation.input[0]
            nodes.append(activation)
    given = {tensor.name for tensor in quantized.graph.initializer} | producers(nodes).keys()
    needed = {name for node in nodes for name in node.input} - given
    quantized.graph.initializer.extend(t for t in original.graph.initializer if t.name in needed)
    replace_nodes(quantized.graph, nodes)
    return quantized


def _declare_products(graph: onnx.GraphProto) -> list[str]:
    """Say in the graph that what goes into products with weights is float; names of the products without.

    Shape inference stops at operators it does not know, and the quantizer leaves alone whatever has no type.
    Its option MatMulConstBOnly does nothing in QDQ format.
    """
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    known = weights | {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    of_activations = []
    for node in graph.node:
        if node.op_type not in _WITH_WEIGHTS:
            continue
        if not weights & set(node.input):
            of_activations.append(node.name)
            continue
        for name in (*node.input, *node.output):
            if name and name not in known:
                known.add(name)
                is_float = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                graph.value_info.append(is_float)
    return of_activations


def _spare_the_rest(graph: onnx.GraphProto) -> None:
    """Give additions and normalisations the float tensor itself where a product reads it rounded.

    The quantizer reroutes every reader of a tensor, and so rounds the residual stream too. What embedding
    tables give stays: the int8 lookup is recognised by the rounding after it.
    """
    tables = {name for node in graph.node if node.op_type == "Gather" for name in node.output}
    floats = {twin: name for name, twin in roundings(graph.node).items() if name not in tables}
    for node in graph.node:
        if node.op_type not in _WITH_WEIGHTS:
            for index, name in enumerate(node.input):
                node.input[index] = floats.get(name, name)

"""8-bit weights and activations in QDQ format, scales from calibration.

Only what goes into a product with weights is quantized: softmax, normalisation and additions stay in
float, where integers cost accuracy and save nothing.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from compress.config import Calibrator, Int8Static
from compress.data import load_splits
from compress.families import Encoder, load
from compress.quantize import coverage
from compress.quantize.activations import TEXTS, calibration_feeds
from compress.quantize.finish import finish
from compress.quantize.kernels import resolve
from compress.quantize.quiet import quiet
from compress.quantize.smooth import smooth
from compress.registry import register

_METHODS = {
    Calibrator.minmax: CalibrationMethod.MinMax,
    Calibrator.entropy: CalibrationMethod.Entropy,
    Calibrator.percentile: CalibrationMethod.Percentile,
}


class TextReader(CalibrationDataReader):  # type: ignore[misc]
    """One text at a time: padding would enter the statistics."""

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.encoder, self.texts = encoder, texts
        self.set_range(0, len(texts))

    def __len__(self) -> int:
        return len(self.texts)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.batches = self.encoder.batches(self.texts[start_index:end_index], 1)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {name: tensor.numpy() for name, tensor in batch.items()}


@register(Int8Static)
def quantize(
    config: Int8Static, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    kernel = resolve(cpu_flags, config.weight_type, config.reduce_range, config.symmetric_activations)
    texts = load_splits(splits).calibration.texts[: config.texts]
    with tempfile.TemporaryDirectory(dir=out) as scratch, quiet():
        source = Path(scratch) / "prepared.onnx"
        quant_pre_process(graph / "model.onnx", source, skip_symbolic_shape=True)
        excluded = coverage.excluded_nodes(source, config.exclude)
        if config.smooth is not None:
            feeds = calibration_feeds(checkpoint, splits, min(TEXTS, config.texts))
            onnx.save(smooth(onnx.load(source), feeds, config.smooth, excluded), source)
        of_activations = _declare_products(source)
        quantize_static(
            source,
            out / "model.onnx",
            TextReader(load(checkpoint), texts),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", *(["Gather"] if config.embeddings else [])],
            per_channel=config.per_channel,
            reduce_range=kernel.reduce_range,
            activation_type=QuantType.QInt8 if kernel.symmetric_activations else QuantType.QUInt8,
            weight_type=kernel.weight_type,
            nodes_to_exclude=[*excluded, *of_activations],
            calibrate_method=_METHODS[config.calibrator],
            extra_options={
                "ActivationSymmetric": kernel.symmetric_activations,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                "CalibPercentile": config.percentile,
                # Texts differ in length, and the histograms stack what they get at one time.
                "CalibStridedMinMax": 1,
            },
        )
        original = onnx.load(source)
    _spare_the_rest(out / "model.onnx")
    finish(config, onnx.load(out / "model.onnx"), original, checkpoint, splits, out)


def _declare_products(path: Path) -> list[str]:
    """Say in the file that what goes into products with weights is float; names of the products without.

    Shape inference stops at operators it does not know, and the quantizer leaves alone whatever has no type.
    Its option MatMulConstBOnly does nothing in QDQ format.
    """
    model = onnx.load(path)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    known = weights | {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    of_activations = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        if not weights & set(node.input):
            of_activations.append(node.name)
            continue
        for name in (*node.input, *node.output):
            if name and name not in known:
                known.add(name)
                is_float = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                graph.value_info.append(is_float)
    onnx.save(model, path)
    return of_activations


def _spare_the_rest(path: Path) -> None:
    """Give additions and normalisations the float tensor itself where a product reads it rounded.

    The quantizer reroutes every reader of a tensor, and so rounds the residual stream too. What embedding
    tables give stays: the int8 lookup is recognised by the rounding after it.
    """
    model = onnx.load(path)
    producers = {output: node for node in model.graph.node for output in node.output}
    floats = {}
    for node in model.graph.node:
        rounding = producers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounding is not None and rounding.op_type == "QuantizeLinear":
            source = producers.get(rounding.input[0])
            if source is None or source.op_type != "Gather":
                floats[node.output[0]] = rounding.input[0]
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            for index, name in enumerate(node.input):
                node.input[index] = floats.get(name, name)
    onnx.save(model, path)

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
from compress.quantize.kernels import resolve
from compress.quantize.quiet import quiet
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
            nodes_to_exclude=[*coverage.excluded_nodes(source, config.exclude), *of_activations],
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
    coverage.check(coverage.measure(out / "model.onnx", config.exclude), config.min_coverage, out)


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

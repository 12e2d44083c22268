"""8-bit weights, 8-bit activations whose scale is found at run time."""

from collections.abc import Sequence
from pathlib import Path

from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic

from compress.config import Int8Dynamic
from compress.quantize import coverage
from compress.quantize.kernels import resolve
from compress.quantize.quiet import quiet
from compress.registry import register


@register(Int8Dynamic)
def quantize(
    config: Int8Dynamic, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    kernel = resolve(cpu_flags, config.weight_type, config.reduce_range)
    source, target = graph / "model.onnx", out / "model.onnx"
    with quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm", *(["Gather"] if config.embeddings else [])],
            per_channel=config.per_channel,
            reduce_range=kernel.reduce_range,
            weight_type=kernel.weight_type,
            nodes_to_exclude=coverage.excluded_nodes(source, config.exclude),
            # Operators that shape inference does not know would otherwise hide their tensors' type.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    coverage.check(coverage.measure(target, config.exclude), config.min_coverage, out)

"""How much of a model really became integer: quantizers skip nodes without a word."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from compress.errors import ConfigError, GateError
from compress.graph.surgery import attributes, producers, readers
from compress.graph.weights import is_external
from compress.quantize.layers import positions_of
from compress.schema.quantization import Coverage, SkippedNode
from compress.stages.result import gate, write_result

_PRODUCTS = {"MatMul", "Gemm", "Conv"}
_INTEGER_PRODUCTS = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "MatMulNBits", "QGemm"}
_ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention"}
_INTEGERS = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4}


def measure(quantized: Path, excluded: Sequence[str] = (), left_out: Collection[str] = ()) -> Coverage:
    """Coverage of an ONNX file.

    `coverage_macs` is the share of the products with weights that run on integers, in
    multiply-accumulates a token or an image. Products of two activations (attention) have no weights; they
    are listed among the skipped, and do not count.
    """
    model = onnx.load(quantized, load_external_data=False)
    graph, positions = model.graph, positions_of(model)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    made_by, read_by = producers(graph.node), readers(graph.node)
    integer, real, skipped = 0, 0, []
    for node in graph.node:
        if node.op_type in _ATTENTION:
            skipped.append(SkippedNode(node=node.name, reason="both inputs are activations"))
        if node.op_type not in _PRODUCTS | _INTEGER_PRODUCTS:
            continue
        weight, dequantized = _weight(node, initializers, made_by)
        if weight is None:
            skipped.append(SkippedNode(node=node.name, reason="both inputs are activations"))
        elif node.op_type in _INTEGER_PRODUCTS or (dequantized and not _in_float(node, read_by)):
            integer += _numbers(node, weight) * positions.get(node.output[0], 1)
        else:
            real += int(np.prod(weight.dims)) * positions.get(node.output[0], 1)
            chosen = any(re.search(pattern, node.name) for pattern in excluded)
            reason = "excluded by quantize.exclude" if chosen else f"the quantizer left {node.op_type} alone"
            if node.name in left_out:
                reason = "left in float for quality"
            skipped.append(SkippedNode(node=node.name, reason=reason))
    sizes = {name: _bytes(tensor) for name, tensor in initializers.items()}
    small = sum(size for name, size in sizes.items() if initializers[name].data_type in _INTEGERS)
    return Coverage(
        coverage_macs=integer / max(1, integer + real),
        coverage_bytes=small / max(1, sum(sizes.values())),
        skipped=tuple(skipped),
    )


def check(coverage: Coverage, floor: float, out: Path) -> None:
    """Note the coverage in `out/stage.json`; raise GateError below the floor."""
    passed = gate(
        "integer coverage",
        coverage_macs=coverage.coverage_macs,
        coverage_bytes=coverage.coverage_bytes,
        floor=floor,
    )
    write_result(out, gates=[passed], facts={"coverage": coverage})
    if coverage.coverage_macs < floor:
        reasons = sorted({node.reason for node in coverage.skipped if "activations" not in node.reason})
        raise GateError(
            "too little of the model became integer",
            found=f"{coverage.coverage_macs:.1%} of multiply-accumulates; {'; '.join(reasons)}",
            allowed=f"at least {floor:.1%}",
            next="exclude fewer nodes, or lower quantize.min_coverage if that is meant",
        )


def excluded_nodes(graph: onnx.GraphProto, patterns: Sequence[str]) -> list[str]:
    """Names of the products that match; raises ConfigError for a pattern that matches none."""
    products = [node.name for node in graph.node if node.op_type in _PRODUCTS | {"Gather"}]
    return matching(products, patterns, "node")


def matching(names: Sequence[str], patterns: Sequence[str], kind: str) -> list[str]:
    """Those of the names in which a pattern is; raises ConfigError for a pattern that is in none."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name in names):
            raise ConfigError(
                f"a pattern in quantize.exclude matches no {kind}",
                found=pattern,
                allowed=f"{', '.join(names[:6])}, ..., {names[-1]}",
            )
    return [name for name in names if any(re.search(pattern, name) for pattern in patterns)]


def _weight(
    node: onnx.NodeProto,
    initializers: dict[str, onnx.TensorProto],
    made_by: dict[str, onnx.NodeProto],
) -> tuple[onnx.TensorProto | None, bool]:
    """The constant operand of a product, and whether it comes as integers through DequantizeLinear
    (with the other operand quantized too, or it would be computed in float)."""
    weight, quantized = None, []
    for name in node.input:
        source = made_by.get(name)
        quantized.append(source is not None and source.op_type == "DequantizeLinear")
        if source is not None and quantized[-1]:
            name = source.input[0]
        if weight is None and name in initializers and len(initializers[name].dims) >= 2:
            weight = initializers[name]
    return weight, all(quantized[:2])  # a third input is the bias


def _in_float(node: onnx.NodeProto, read_by: dict[str, list[onnx.NodeProto]]) -> bool:
    """Whether a convolution gives floats: onnxruntime has an integer kernel only for one that gives integers.

    An activation in between that the integers' range does as well is no obstacle.
    """
    if node.op_type != "Conv":
        return False
    after = read_by.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type in ("Relu", "Clip"):
        after = read_by.get(after[0].output[0], [])
    return not after or any(reader.op_type != "QuantizeLinear" for reader in after)


def _numbers(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    """How many weights a product has; those of MatMulNBits are packed."""
    if node.op_type != "MatMulNBits":
        return int(np.prod(weight.dims))
    sizes = attributes(node)
    return int(sizes["K"] * sizes["N"])


def _bytes(tensor: onnx.TensorProto) -> int:
    if is_external(tensor):
        return int(ExternalDataInfo(tensor).length or 0)
    return len(tensor.raw_data) or numpy_helper.to_array(tensor).nbytes

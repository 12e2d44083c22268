"""Signed 8-bit weights as unsigned ones, and back: 128 more, and so is their zero point.

Differences to the zero point stay the same integers, and so does every sum of products that does not
saturate. Which of the two has the faster kernel depends on the CPU's instructions and on the runtime.
"""

import numpy as np
import onnx
from onnx import TensorProto

from compress.graph.surgery import drop_dead, readers
from compress.graph.weights import Weights

SHIFT = 128
_TYPES: dict[int, type] = {TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8}
_PRODUCTS = ("MatMul", "Gemm", "Conv")
_INTEGER_PRODUCTS = {"MatMulInteger": 3, "ConvInteger": 3}  # op -> where the zero point of its weights stands


def unsigned_weights(model: onnx.ModelProto) -> int:
    """Make the signed 8-bit weights of all products unsigned; how many nodes read them."""
    return _shifted(model.graph, TensorProto.INT8, TensorProto.UINT8)


def signed_weights(model: onnx.ModelProto) -> int:
    """Make the unsigned 8-bit weights of all products signed; how many nodes read them."""
    return _shifted(model.graph, TensorProto.UINT8, TensorProto.INT8)


def _shifted(graph: onnx.GraphProto, old: int, new: int) -> int:
    weights, reading = Weights(graph, "/shifted"), readers(graph.node)
    kind, shift = _TYPES[new], SHIFT if new == TensorProto.UINT8 else -SHIFT
    count = 0
    for tensor in list(graph.initializer):
        by = reading.get(tensor.name, [])
        places = [_zero_point_place(node, tensor.name, reading) for node in by]
        if tensor.data_type != old or not by or None in places:
            continue
        moved = weights.put(tensor.name, _moved(weights[tensor.name], shift, kind))
        for node, place in zip(by, places, strict=True):
            assert place is not None
            zero = node.input[place] if len(node.input) > place else ""
            value = weights[zero] if zero else np.zeros((), _TYPES[old])
            while len(node.input) <= place:
                node.input.append("")
            node.input[place] = weights.put(zero or f"{tensor.name}/zero", _moved(value, shift, kind))
            node.input[list(node.input).index(tensor.name)] = moved
            count += 1
    drop_dead(graph)
    return count


def _moved(value: np.ndarray, shift: int, kind: type) -> np.ndarray:
    return (value.astype(np.int16) + shift).astype(kind)


def _zero_point_place(
    node: onnx.NodeProto, weight: str, reading: dict[str, list[onnx.NodeProto]]
) -> int | None:
    """Which input of a node is the zero point of this weight; None where the node is no reader of weights
    of a product, such as a table of embeddings."""
    if node.op_type in _INTEGER_PRODUCTS:
        return _INTEGER_PRODUCTS[node.op_type] if node.input[1] == weight else None
    if node.op_type == "DequantizeLinear" and node.input[0] == weight:
        by = reading.get(node.output[0], [])
        return 2 if by and all(each.op_type in _PRODUCTS for each in by) else None
    return None

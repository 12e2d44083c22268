"""The standard's Attention (opset 23) as the products and the softmax that it stands for."""

import numpy as np
import onnx
from onnx import TensorProto

from compress.graph.surgery import attributes
from compress.graph.weights import Weights
from compress.rewrite.nodes import MARK, Steps, replace

FAR = -1e31  # added to what a mask leaves out; exp of it is 0, and where all is left out all weigh the same
# What else the standard's Attention can do, with the value at which it does not.
_PLAIN = {"softcap": 0.0, "is_causal": 0, "qk_matmul_output_mode": 0}


def plain_attention(model: onnx.ModelProto) -> int:
    """Rewrite every Attention in float32 without a cache and with as many heads of keys as of queries."""
    types = _types(model)
    weights, instead = Weights(model.graph, MARK), {}
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Attention" and not node.domain and _is_plain(node, types):
            instead[number] = _steps(node, weights, types)
    return replace(model.graph, instead)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> its type, as far as ONNX can tell."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _is_plain(node: onnx.NodeProto, types: dict[str, int]) -> bool:
    has = attributes(node)
    mask = node.input[3] if len(node.input) > 3 else ""
    return (
        not any(node.input[4:])
        and not any(node.output[1:])
        and "scale" in has
        and has.get("q_num_heads", 0) == has.get("kv_num_heads", 0)
        and all(has.get(name, value) == value for name, value in _PLAIN.items())
        and "softmax_precision" not in has
        and types.get(node.input[0]) == TensorProto.FLOAT
        and (not mask or types.get(mask) in (TensorProto.BOOL, TensorProto.FLOAT))
    )


def _steps(node: onnx.NodeProto, weights: Weights, types: dict[str, int]) -> list[onnx.NodeProto]:
    """Q, K and V are (batch, tokens, heads * size), or (batch, heads, tokens, size) without `q_num_heads`."""
    has, steps = attributes(node), Steps(node, weights)
    heads = has.get("q_num_heads", 0)
    query, key, value = node.input[:3]
    if heads:
        apart = steps.constant(np.array([0, 0, heads, -1], np.int64))
        query, key, value = (steps.add("Reshape", [name, apart]) for name in (query, key, value))
        query, value = (steps.add("Transpose", [name], perm=[0, 2, 1, 3]) for name in (query, value))
    key = steps.add("Transpose", [key], perm=[0, 2, 3, 1] if heads else [0, 1, 3, 2])
    scale = steps.constant(np.array(has["scale"], np.float32))
    scores = steps.add("Mul", [steps.add("MatMul", [query, key]), scale])
    if len(node.input) > 3 and node.input[3]:
        mask = node.input[3]
        if types[mask] == TensorProto.BOOL:
            near, far = (steps.constant(np.array(each, np.float32)) for each in (0, FAR))
            mask = steps.add("Where", [mask, near, far])
        scores = steps.add("Add", [scores, mask])
    shares = steps.add("Softmax", [scores], axis=-1)
    if not heads:
        steps.add("MatMul", [shares, value], node.output[0])
        return steps.nodes
    mixed = steps.add("Transpose", [steps.add("MatMul", [shares, value])], perm=[0, 2, 1, 3])
    joined = steps.constant(np.array([0, 0, -1], np.int64))
    steps.add("Reshape", [mixed, joined], node.output[0])
    return steps.nodes

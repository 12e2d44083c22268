"""LayerNormalization as subtractions and products; its means are products with a column of 1/n, for which
runtimes have fast kernels and which none of them joins to a norm again."""

import numpy as np
import onnx
from onnx import TensorProto

from compress.graph.surgery import attributes
from compress.graph.weights import Weights
from compress.rewrite.nodes import MARK, Steps, replace

EPSILON = 1e-5  # of the standard, where a node has none


def plain_norms(model: onnx.ModelProto) -> int:
    """Rewrite every norm of float32 over the last axis; how many there were."""
    weights, instead = Weights(model.graph, MARK), {}
    for number, node in enumerate(model.graph.node):
        if node.op_type == "LayerNormalization" and not node.domain and _over_last_axis(node, weights):
            instead[number] = _steps(node, weights)
    return replace(model.graph, instead)


def _over_last_axis(node: onnx.NodeProto, weights: Weights) -> bool:
    only_output = len([name for name in node.output if name]) == 1
    scale = weights.tensors.get(node.input[1])
    float32 = scale is not None and scale.data_type == TensorProto.FLOAT and len(scale.dims) == 1
    return only_output and float32 and attributes(node).get("axis", -1) == -1


def _steps(node: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto]:
    x, scale, *bias = node.input
    size = weights.tensors[scale].dims[0]
    steps = Steps(node, weights)
    means = steps.constant(np.full((size, 1), 1 / size, np.float32))
    epsilon = steps.constant(np.array(attributes(node).get("epsilon", EPSILON), np.float32))
    centred = steps.add("Sub", [x, steps.add("MatMul", [x, means])])
    variance = steps.add("MatMul", [steps.add("Mul", [centred, centred]), means])
    deviation = steps.add("Sqrt", [steps.add("Add", [variance, epsilon])])
    normal = steps.add("Mul", [centred, steps.add("Reciprocal", [deviation])])
    output = node.output[0]
    if bias and bias[0]:
        steps.add("Add", [steps.add("Mul", [normal, scale]), bias[0]], output)
    else:
        steps.add("Mul", [normal, scale], output)
    return steps.nodes

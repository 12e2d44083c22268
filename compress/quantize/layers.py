"""The layers of a float graph and of its quantized twin, and graphs that take some from each.

onnxruntime's quantizers rename nodes but keep the name of what a layer gives; by it they are matched.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from compress.graph.surgery import copied, needed, producers, reads

ALONE = "/alone"  # after the name of a tensor: what the integers make of float inputs
SWITCH = "/integer"  # after the name of a tensor: the input that says which of the two makes it
_LAYERS = {"MatMul", "Gemm", "Conv", "Gather"}
_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv"}
_PRODUCTS = {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", *_CONVOLUTIONS}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node with weights that became integer."""

    node: str  # its name in the float graph
    output: str  # the tensor that both graphs have
    macs: int  # multiply-accumulates a token or an image; 0 for an embedding table
    weights: int


def quantized_layers(reference: onnx.ModelProto, quantized: onnx.ModelProto) -> list[Layer]:
    """Layers of `reference` that `quantized` computes from integers, in the order of the graph."""
    weights, made_by = _float_weights(reference.graph), producers(quantized.graph.node)
    positions, layers = positions_of(reference), []
    for node in reference.graph.node:
        weight = next((name for name in node.input if name in weights), None)
        output = node.output[0]
        twin = made_by.get(output)
        if node.op_type not in _LAYERS or weight is None or twin is None or weight in twin.input:
            continue
        size = int(np.prod(weights[weight].dims))
        macs = 0 if node.op_type == "Gather" else size * positions.get(output, 1)
        layers.append(Layer(node=node.name, output=output, macs=macs, weights=size))
    return layers


def total_macs(reference: onnx.ModelProto) -> int:
    """Multiply-accumulates a token or an image of all products with weights, integer or not."""
    weights, positions = _float_weights(reference.graph), positions_of(reference)
    products = [node for node in reference.graph.node if node.op_type in _LAYERS - {"Gather"}]
    return sum(
        int(np.prod(weights[name].dims)) * positions.get(node.output[0], 1)
        for node in products
        for name in node.input
        if name in weights
    )


def is_convolutional(graph: onnx.GraphProto) -> bool:
    """Whether most of the layers with weights are convolutions; a ViT has one."""
    convolutions = sum(node.op_type == "Conv" for node in graph.node)
    weights = {tensor.name for tensor in graph.initializer}
    products = sum(
        node.op_type in ("MatMul", "Gemm") and bool(weights & set(node.input)) for node in graph.node
    )
    return bool(convolutions > products)


def positions_of(model: onnx.ModelProto) -> dict[str, int]:
    """Output of each product -> at how many places of one example it is computed: pixels, or tokens.

    1 where the graph leaves that open, as it does for texts.
    """
    outputs = {n.output[0]: n.op_type in _CONVOLUTIONS for n in model.graph.node if n.op_type in _PRODUCTS}
    if not any(outputs.values()):  # of texts: shape inference would find nothing but open lengths
        return {}
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.value_info, *graph.output)}
    return {
        name: int(np.prod([dim.dim_value or 1 for dim in (shape[2:] if convolution else shape[1:-1])]))
        for name, convolution in outputs.items()
        if (shape := list(shapes.get(name, ())))
    }


def restored(
    quantized: onnx.ModelProto, reference: onnx.ModelProto, outputs: Collection[str]
) -> onnx.ModelProto:
    """`quantized` with the float node back wherever one of `outputs` is made; all else as it was.

    In a convolutional net it reads what an integer layer gives only rounded: that rounding belongs to the
    kernel before it, which would fall back to float without.
    """
    originals = {node.output[0]: node for node in reference.graph.node if node.output[0] in outputs}
    if is_convolutional(reference.graph):
        rounded = _rounded(quantized.graph, reference.graph, outputs)
        originals = {name: copied(node, rounded) for name, node in originals.items()}
    nodes = [originals.get(node.output[0], node) for node in quantized.graph.node]
    needed = {name for node in originals.values() for name in node.input}
    weights = [tensor for tensor in reference.graph.initializer if tensor.name in needed]
    tables = {name for name, node in originals.items() if node.op_type == "Gather"}
    return _rebuilt(quantized, _without_rounding(nodes, tables), weights)


def beside(reference: onnx.ModelProto, quantized: onnx.ModelProto, outputs: Iterable[str]) -> onnx.ModelProto:
    """`reference` with the integer twin of each layer next to it, reading the same float inputs.

    The twin of `x` is `x/alone`: one run gives what each layer does to perfect inputs.
    """
    twins: dict[str, onnx.NodeProto] = {}
    for output in outputs:  # two layers may share the rounding of their input
        twins |= {node.output[0]: node for node in _twin(reference, quantized, output, ALONE)}
    return _rebuilt(
        reference, [*reference.graph.node, *twins.values()], quantized.graph.initializer, quantized
    )


def switched(
    reference: onnx.ModelProto, quantized: onnx.ModelProto, outputs: Collection[str]
) -> onnx.ModelProto:
    """A graph whose bool input `x/integer` says, for each layer, whether integers make its output `x`."""
    nodes = []
    for node in reference.graph.node:
        output = node.output[0]
        if output not in outputs:
            nodes.append(node)
            continue
        plain = copied(node)
        plain.output[0] += ALONE
        value = helper.make_tensor_value_info(output + ALONE, TensorProto.FLOAT, None)
        then, other = (
            helper.make_graph(branch, name, [], [value])
            for name, branch in (
                ("integer", _twin(reference, quantized, output, ALONE)),
                ("float", [plain]),
            )
        )
        nodes.append(helper.make_node("If", [output + SWITCH], [output], then_branch=then, else_branch=other))
    model = _rebuilt(reference, nodes, quantized.graph.initializer, quantized)
    model.graph.input.extend(
        helper.make_tensor_value_info(output + SWITCH, TensorProto.BOOL, []) for output in outputs
    )
    return model


def _twin(
    reference: onnx.ModelProto, quantized: onnx.ModelProto, output: str, suffix: str
) -> list[onnx.NodeProto]:
    """The nodes of `quantized` that make `output` from tensors that `reference` has too."""
    known = set(producers(reference.graph.node)) | {value.name for value in reference.graph.input}
    # A bias in integers is dequantized into a tensor of the float bias's name.
    twice = {tensor.name for tensor in reference.graph.initializer} & set(producers(quantized.graph.node))
    nodes: list[onnx.NodeProto] = []
    needed = {output}
    for node in reversed(quantized.graph.node):
        if needed & set(node.output):
            twin = copied(node, {name: name + suffix for name in twice})
            twin.name += suffix
            twin.output[:] = [
                name + suffix if name == output or name in twice else name for name in node.output
            ]
            nodes.insert(0, twin)
            needed = (needed - set(node.output)) | (set(node.input) - known)
    return nodes


def _rounded(
    quantized: onnx.GraphProto, reference: onnx.GraphProto, outputs: Collection[str]
) -> dict[str, str]:
    """Float tensor -> its rounded twin, for all that integer nodes make: neither an input nor `outputs`."""
    makers, rounded = producers(reference.node), {}
    for name, twin in roundings(quantized.node).items():
        maker = makers.get(name)
        while maker is not None and maker.op_type in ("Relu", "Clip"):  # which a convolution takes in
            maker = makers.get(maker.input[0])
        if maker is not None and maker.output[0] not in outputs:
            rounded[name] = twin
    return rounded


def _without_rounding(nodes: Iterable[onnx.NodeProto], tables: Collection[str]) -> list[onnx.NodeProto]:
    """Readers of what a float embedding table gives read it itself, where QDQ format rounds it for them."""
    nodes = list(nodes)
    floats = {twin: name for name, twin in roundings(nodes).items() if name in tables}
    return [copied(node, floats) if floats.keys() & set(node.input) else node for node in nodes]


def roundings(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """Tensor -> what DequantizeLinear makes of its rounded values."""
    nodes = list(nodes)
    integers = {node.output[0]: node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    return {
        integers[node.input[0]]: node.output[0]
        for node in nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in integers
    }


def _rebuilt(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    more: Iterable[onnx.TensorProto],
    twin: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """The model of these nodes, with `more` initializers where they are read.

    Without a twin, what no output needs is left out; with one, its operators' domains come in.
    """
    outputs = {value.name for value in model.graph.output}
    nodes = needed(nodes, outputs) if twin is None else nodes
    read = outputs.union(*map(reads, nodes))
    own = {tensor.name for tensor in model.graph.initializer} | producers(nodes).keys()
    tensors = [*model.graph.initializer, *(tensor for tensor in more if tensor.name not in own)]
    rebuilt = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=model.functions,
        metadata_props=model.metadata_props,
    )
    domains = {opset.domain for opset in model.opset_import}
    if twin is not None:
        rebuilt.opset_import.extend(opset for opset in twin.opset_import if opset.domain not in domains)
    rebuilt.graph.name = model.graph.name
    rebuilt.graph.node.extend(nodes)
    rebuilt.graph.initializer.extend(tensor for tensor in tensors if tensor.name in read)
    rebuilt.graph.input.extend(model.graph.input)
    rebuilt.graph.output.extend(model.graph.output)
    return rebuilt


def _float_weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2
    }

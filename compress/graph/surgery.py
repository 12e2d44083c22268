"""Which nodes of a graph make and read a tensor, and nodes put in place of others."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper


def producers(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """Tensor -> the node that makes it."""
    return {output: node for node in nodes for output in node.output}


def readers(nodes: Iterable[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    """Tensor -> the nodes that read it."""
    reading: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            reading.setdefault(name, []).append(node)
    return reading


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those of its branches included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from reads(inner)


def needed(
    nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], constants: Collection[str] = ()
) -> list[onnx.NodeProto]:
    """Those of the nodes, each behind what it reads, that it takes to compute `outputs` from `constants`."""
    wanted, needed_nodes = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output).difference(constants):
            needed_nodes.append(node)
            wanted.update(reads(node))
    return needed_nodes[::-1]


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    copies = [copied(node) for node in nodes]  # before those of the graph itself are gone
    del graph.node[:]
    graph.node.extend(copies)


def drop_dead(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output of the graph needs; an initializer stands for a node."""
    outputs = {value.name for value in graph.output}
    nodes = needed(list(graph.node), outputs, {tensor.name for tensor in graph.initializer})
    read = outputs.union(*map(reads, nodes))
    tensors = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(nodes) < len(graph.node):
        replace_nodes(graph, nodes)
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def fetching(model: onnx.ModelProto, tensors: Iterable[str]) -> bytes:
    """The model serialised with these tensors as its outputs: a runtime keeps them, and fuses the rest."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors))
    packed: bytes = opened.SerializeToString()
    return packed


def copied(node: onnx.NodeProto, renamed: Mapping[str, str] = {}) -> onnx.NodeProto:
    """A copy of the node that reads other tensors: `renamed` old -> new."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for slot, name in enumerate(copy.input):
        copy.input[slot] = renamed.get(name, name)
    return copy

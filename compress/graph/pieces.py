"""A graph in pieces that each read what the whole one computed, so that one wrong operator spoils no other.

A piece is a node; in a graph whose products are quantized by QuantizeLinear and DequantizeLinear around them
it is the node with those, which a runtime computes as one in integers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from compress.graph.files import with_weights
from compress.graph.surgery import copied, readers, reads
from compress.system.disk import link_or_copy

SUFFIX = "@alone"  # of what a piece gives
MARK = "@"
Node = onnx.NodeProto


@dataclass(frozen=True)
class Piece:
    node: Node  # after which it is called
    nodes: tuple[Node, ...]  # in the order of the graph
    reads: tuple[str, ...]  # values that depend on the graph's inputs
    gives: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.node.op_type} {self.node.name or self.gives[0]!r}"


def computed(graph: onnx.GraphProto) -> list[Node]:
    """The nodes whose results depend on the inputs of the graph, in its order."""
    constants = {tensor.name for tensor in graph.initializer}
    known = {value.name for value in graph.input} - constants
    nodes = []
    for node in graph.node:
        if known.intersection(reads(node)):
            nodes.append(node)
            known.update(filter(None, node.output))
    return nodes


def pieces(graph: onnx.GraphProto, single: bool = False) -> list[Piece]:
    """Those of a graph, in its order; `single`: every node is one. What nothing reads is not given."""
    nodes = computed(graph)
    makers = {name: node for node in nodes for name in node.output if name}
    inputs = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    known, reading = {*inputs, *makers}, readers(nodes)
    outputs = {value.name for value in graph.output}
    wanted = {*outputs, *(name for node in nodes for name in reads(node))} - {""}

    def alone(node: Node) -> str | None:
        """What a node gives, where one QuantizeLinear reads it and nothing else does."""
        [*names] = [name for name in node.output if name]
        if len(names) != 1 or names[0] in outputs or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return None
        by = reading.get(names[0], [])
        return names[0] if [each.op_type for each in by] == ["QuantizeLinear"] else None

    quantized = set() if single else {name for name in map(alone, nodes) if name}
    found = []
    for node in nodes:
        around = node.op_type == "QuantizeLinear" and node.input[0] in quantized
        unread = node.op_type == "DequantizeLinear" and not outputs.intersection(node.output)
        if not single and (around or unread):
            continue  # part of others
        before = [makers[name] for name in reads(node) if name in makers] if not single else []
        before = [each for each in before if each.op_type == "DequantizeLinear"]
        after = [each for name in node.output if name in quantized for each in reading[name]]
        group = (*{id(each): each for each in before}.values(), node, *after)
        inner = {name for each in group for name in each.output if name}
        gives = [name for each in (node, *after) for name in each.output if name in wanted - quantized]
        read = dict.fromkeys(name for each in group for name in reads(each) if name in known - inner)
        found.append(Piece(node, group, tuple(read), tuple(gives)))
    return found


def values(graph: onnx.GraphProto, parts: Iterable[Piece]) -> list[str]:
    """What the pieces read or give that nodes compute."""
    made = {name for node in graph.node for name in node.output}
    return list(dict.fromkeys(n for part in parts for n in (*part.reads, *part.gives) if n in made))


def apart(
    model: onnx.ModelProto,
    parts: Sequence[Piece],
    known: Sequence[Mapping[str, np.ndarray]],
    folder: Path,
    weights: Path,
) -> Path:
    """An ONNX file in `folder` that computes every piece of `model` from what it reads: inputs have the names
    of what is read, of the type and shape in `known`, open where it is not the same in all of them; outputs
    have those of what is given, with `SUFFIX`.

    The external weights of the model lie beside the file `weights` and are linked, or copied.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    dependent = {name for node in computed(graph) for name in node.output}
    constant = [copied(node) for node in graph.node if not dependent.intersection(node.output)]
    nodes = [each for number, part in enumerate(parts) for each in _renamed(part, number)]
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend([*constant, *nodes])
    for name in dict.fromkeys(name for part in parts for name in part.reads):
        arrays = [each[name] for each in known]
        sizes = [set(axis) for axis in zip(*(array.shape for array in arrays), strict=True)]
        shape = [min(size) if len(size) == 1 else None for size in sizes]
        kind = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
        graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    graph.output.extend(onnx.ValueInfoProto(name=name + SUFFIX) for part in parts for name in part.gives)
    path = folder / "pieces.onnx"
    onnx.save(small, path)
    link_weights(weights, folder)
    return path


def link_weights(graph: Path, folder: Path) -> None:
    """Put the external weights of an ONNX file into a folder as it has them beside it."""
    for file in with_weights(graph)[1:]:
        there = folder / file.relative_to(graph.parent)
        there.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(file, there)


def _renamed(part: Piece, number: int) -> list[Node]:
    """The nodes of a piece, whose values are its own; one that others may have, too, has its number behind
    its name."""
    inner = {name: f"{name}{MARK}{number}" for node in part.nodes for name in node.output if name}
    inner |= {name: name + SUFFIX for name in part.gives}
    nodes = []
    for node in part.nodes:
        copy = copied(node, inner)
        for slot, name in enumerate(copy.output):
            copy.output[slot] = inner.get(name, name)
        if node is not part.node:
            copy.name = f"{node.name}{MARK}{number}"
        nodes.append(copy)
    return nodes

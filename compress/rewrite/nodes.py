"""New nodes in place of one, with names of their own."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper

from compress.graph.surgery import replace_nodes
from compress.graph.weights import Weights

MARK = "/plain"  # behind the name of what is new


class Steps:
    """Nodes that follow one another in place of `node`; their values are called after what it gives."""

    def __init__(self, node: onnx.NodeProto, weights: Weights) -> None:
        self.node, self.weights = node, weights
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op_type: str, inputs: Iterable[str], output: str = "", **attributes: Any) -> str:
        """Add a node and return what it gives: `output`, or a new name."""
        output = output or f"{self.node.output[0]}{MARK}{len(self.nodes)}"
        name = f"{self.node.name or self.node.output[0]}{MARK}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def constant(self, value: np.ndarray) -> str:
        return self.weights.put(f"{self.node.output[0]}{MARK}", value)


def replace(graph: onnx.GraphProto, instead: dict[int, list[onnx.NodeProto]]) -> int:
    """Put nodes in the places of others, by the number of these in the graph; how many were replaced."""
    if instead:
        old = list(graph.node)
        replace_nodes(graph, [each for i, node in enumerate(old) for each in instead.get(i, [node])])
    return len(instead)

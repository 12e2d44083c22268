"""The constants of a graph as arrays, and new ones beside them."""

import numpy as np
import onnx
from onnx import numpy_helper


class Weights:
    """The initializers of a graph; a changed one is a new one, since several nodes may share it."""

    def __init__(self, graph: onnx.GraphProto, mark: str) -> None:
        """`mark` goes behind the name of what is new."""
        self.graph, self.mark = graph, mark
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.made = {output for node in graph.node for output in node.output}

    def __getitem__(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.tensors[name])

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def has(self, name: str, dimensions: int) -> bool:
        tensor = self.tensors.get(name)
        return (
            tensor is not None
            and len(tensor.dims) == dimensions
            and tensor.data_type == onnx.TensorProto.FLOAT
        )

    def put(self, name: str, value: np.ndarray) -> str:
        """Add the value under a new name made from this one."""
        while name in self.tensors or name in self.made:
            name += self.mark
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.tensors[name] = self.graph.initializer[-1]
        return name

    def drop_unused(self) -> None:
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

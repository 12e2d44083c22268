"""The constants of a graph as arrays, and new ones beside them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo


class Weights:
    """The initializers of a graph; a changed one is a new one, since several nodes may share it."""

    def __init__(self, graph: onnx.GraphProto, mark: str, folder: Path | None = None) -> None:
        """`mark` goes behind the name of what is new; `folder` holds the external data of the graph, which is
        read only where it is asked for."""
        self.graph, self.mark, self.folder = graph, mark, folder
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.made = {output for node in graph.node for output in node.output}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.read(self.tensors[name])

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def read(self, tensor: TensorProto) -> np.ndarray:
        """The values; those in external data are not copied."""
        if not is_external(tensor):
            return numpy_helper.to_array(tensor)
        assert self.folder is not None
        info = ExternalDataInfo(tensor)
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.memmap(self.folder / info.location, kind, "r", info.offset or 0, tuple(tensor.dims))

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
        self.add(name, value)
        return name

    def add(self, name: str, value: np.ndarray) -> None:
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.tensors[name] = self.graph.initializer[-1]


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)

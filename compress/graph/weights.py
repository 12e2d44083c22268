"""The constants of a graph as arrays, and new ones beside them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

FLOATS = (TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.FLOAT16)
SMALL = 65_536  # bytes: held with the graph
_ALIGNED = 64  # bytes between which tensors of a file begin


class Weights:
    """The initializers of a graph; a changed one is a new one, since several nodes may share it."""

    def __init__(
        self, graph: onnx.GraphProto, mark: str, folder: Path | None = None, sink: Path | None = None
    ) -> None:
        """`mark` goes behind the name of what is new; `folder` holds the external data of the graph, which is
        read only where it is asked for. What is new and large is written to the file `sink` at once, not to
        be held in memory."""
        self.graph, self.mark, self.folder, self.sink = graph, mark, folder, sink
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

    def matrix(self, name: str) -> np.ndarray | None:
        """A constant float matrix, also one that Cast, Concat of rows and Transpose make, as float32."""
        if name in self:
            known = any(self.has(name, 2, kind) for kind in FLOATS)
            return self[name].astype(np.float32, copy=False) if known else None
        maker = next((node for node in self.graph.node if name in node.output), None)
        if maker is None or maker.op_type not in ("Cast", "Concat", "Transpose"):
            return None
        given = [self.matrix(each) for each in maker.input]
        parts = [each for each in given if each is not None]
        if len(parts) < len(given):
            return None
        found = parts[0] if len(parts) == 1 else np.concatenate(parts)
        turned = maker.op_type == "Transpose" and list(maker.attribute[0].ints) == [1, 0]
        return found.T if turned else found

    def is_narrow(self, name: str) -> bool:
        """Whether a matrix is stored in half the width of float32."""
        while name in self.made and name not in self:
            maker = next(node for node in self.graph.node if name in node.output)
            if maker.op_type not in ("Cast", "Concat", "Transpose"):
                return False
            name = maker.input[0]
        return any(self.has(name, 2, kind) for kind in FLOATS[1:])

    def has(self, name: str, dimensions: int, kind: int = TensorProto.FLOAT) -> bool:
        tensor = self.tensors.get(name)
        return tensor is not None and len(tensor.dims) == dimensions and tensor.data_type == kind

    def put(self, name: str, value: np.ndarray) -> str:
        """Add the value under a new name made from this one."""
        while name in self.tensors or name in self.made:
            name += self.mark
        self.add(name, value)
        return name

    def add(self, name: str, value: np.ndarray) -> None:
        small = self.sink is None or value.nbytes <= SMALL
        tensor = numpy_helper.from_array(value, name) if small else self._written(name, value)
        self.graph.initializer.append(tensor)
        self.tensors[name] = self.graph.initializer[-1]

    def to_sink(self) -> None:
        """Have all that is large in the sink, for a graph that is saved beside it."""
        assert self.sink is not None
        for tensor in self.graph.initializer:
            if not is_external(tensor) and len(tensor.raw_data) <= SMALL:
                continue
            if not is_external(tensor) or ExternalDataInfo(tensor).location != str(self.sink):
                tensor.CopyFrom(self._written(tensor.name, self.read(tensor)))
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = self.sink.name

    def _written(self, name: str, value: np.ndarray) -> TensorProto:
        assert self.sink is not None
        with self.sink.open("ab") as file:
            file.write(bytes(-file.tell() % _ALIGNED))
            place = {"location": self.sink, "offset": file.tell(), "length": value.nbytes}
            np.ascontiguousarray(value).tofile(file)
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        return external(name, kind, value.shape, place)


def external(name: str, kind: int, shape: Iterable[int], place: Mapping[str, object]) -> TensorProto:
    """A tensor whose numbers lie in a file: `place` has location, offset and length."""
    tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)

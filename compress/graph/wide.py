"""A graph that reads weights in half the width of float32, as one that has them in float32."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from compress.graph import graph_files, graph_path, shipped_files
from compress.graph.surgery import drop_dead
from compress.graph.weights import FLOATS, Weights

_SLOTS = {"MatMul": 1, "Gather": 0}  # operator -> its input that is a matrix of weights


@contextmanager
def wide(folder: Path, scratch: Path) -> Iterator[Path]:
    """The variant in `folder`, or a copy within `scratch` for those who see no weights behind a Cast, as long
    as the context lasts."""
    path = graph_path(folder)
    model = onnx.load(path, load_external_data=False) if path.is_file() else onnx.ModelProto()
    if not any(tensor.data_type in FLOATS[1:] for tensor in model.graph.initializer):
        yield folder
        return
    with TemporaryDirectory(dir=scratch) as place:
        copy = Path(place)
        weights = Weights(model.graph, "/wide", folder, copy / f"{path.name}_data")
        for node in model.graph.node:
            slot = _SLOTS.get(node.op_type)
            if slot is not None and weights.is_narrow(node.input[slot]):
                values = weights.matrix(node.input[slot])
                node.input[slot] = weights.put(node.input[slot], np.ascontiguousarray(values))
        drop_dead(model.graph)
        weights.to_sink()
        onnx.save(model, copy / path.name)
        for name in {*shipped_files(folder)} - {each.name for each in graph_files(folder)}:
            shutil.copy(folder / name, copy / name)
        yield copy

"""A graph to time: as large as it is asked to be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def chain(path: Path, width: int, depth: int, inputs: tuple[str, ...] = ("x",)) -> Path:
    """`depth` square MatMuls on the sum of the inputs, [n, width] each."""
    random = np.random.default_rng(0)
    nodes, weights, last = [helper.make_node("Sum", list(inputs), ["sum"])], [], "sum"
    for i in range(depth):
        weight = random.standard_normal((width, width)).astype(np.float32) / width**0.5
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"y{i}"]))
        last = f"y{i}"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in inputs]
    output = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", width])
    graph = helper.make_graph(nodes, "chain", values, [output], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def make_chain() -> Callable[..., Path]:
    return chain


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    return {"x": np.ones((2, 32), np.float32), "unused": np.zeros(3)}

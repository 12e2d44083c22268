"""Checks of any ONNX graph, on graphs small enough to see."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from compress.errors import GateError
from compress.graph.gates import check_interface, check_operators, check_outputs, interface


def model(inputs=("a", "b"), output="y", shape=("batch", 4), op="Add", domain="", opset=18):
    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    node = helper.make_node(op, list(inputs), [output], domain=domain)
    graph = helper.make_graph([node], "g", [value(name) for name in inputs], [value(output)])
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets)


def test_the_interface_as_text():
    assert interface(model().graph) == [f"{name}: FLOAT [batch, 4]" for name in "aby"]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (model(inputs=("b", "a")), "found:   the order b"),
        (model(output="z"), "found:   z: FLOAT"),
        (model(shape=("batch", 5)), r"found:   a: FLOAT \[batch, 5\]"),
        (model(inputs=("a", "b", "c"), op="Sum"), "found:   c: FLOAT"),
    ],
)
def test_a_changed_interface_is_told(changed, found):
    check_interface(model().graph, model().graph)
    check_interface(model().graph, model(shape=(8, 4)).graph)  # shape inference found a number
    with pytest.raises(GateError, match="changed"):
        check_interface(model().graph, model(shape=("batch", "hidden")).graph)
    with pytest.raises(GateError, match=found):
        check_interface(model().graph, changed.graph)


def test_operators_and_opsets_that_onnxruntime_knows():
    check_operators(model())
    check_operators(model(op="BiasGelu", domain="com.microsoft"))
    with pytest.raises(GateError, match=r"ai\.onnx 999\n  allowed: at most \d\d\n"):
        check_operators(model(opset=999))
    with pytest.raises(GateError, match=r"ai\.onnx\.Addd at opset 18"):
        check_operators(model(op="Addd"))
    with pytest.raises(GateError, match=r"com\.example\.Add at"):
        check_operators(model(domain="com.example"))
    with pytest.raises(GateError, match=r"Gelu at opset 18\n  allowed: from opset 20 on"):
        check_operators(model(op="Gelu"))


def runs(*rows):
    return [{"y": np.array(row, np.float32)} for row in rows]


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (([1, np.nan], [1, 2]), "gives NaN or infinity\n  found:   output y not finite for 1 of 2"),
        (([1, np.inf], [np.inf, 2], [1, 2]), "output y not finite for 2 of 3"),
        (([1, 2], [1, 2.00001]), "the same output y for every input"),
        (([0, 0], [0, 0]), "the same output y for every input"),
    ],
)
def test_outputs_that_are_broken(rows, what):
    with pytest.raises(GateError, match=what):
        check_outputs(runs(*rows), "the graph")


@pytest.mark.parametrize("rows", [([1, 2], [1, 2.01]), ([1, 2],), ([1, 2], [1, 2, 3]), ([1, -1], [-1, 1])])
def test_outputs_that_are_sound(rows):
    check_outputs(runs(*rows), "the graph")

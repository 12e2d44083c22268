"""What nodes make and read, on graphs written out by hand."""

import numpy as np
import onnx
import pytest
from onnx import parser

from compress.graph.session import open_session
from compress.graph.surgery import (
    attributes,
    copied,
    drop_dead,
    fetching,
    needed,
    producers,
    readers,
    replace_nodes,
)


@pytest.fixture
def graph():
    """y = relu(x + w), beside a chain of two nodes and a weight that lead nowhere."""
    return parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        made (float[n, 2] x) => (float[n, 2] y) <float[2] w = {1, 2}, float[2] dead = {3, 4}> {
            sum = Add (x, w)
            once = Mul (sum, dead)
            twice = Flatten <axis = 0> (once)
            y = Relu (sum)
        }"""
    ).graph


BRANCHES = """<ir_version: 8, opset_import: ["" : 18]>
made (bool b, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
    sum = Add (x, w)
    y = If (b) <
        then_branch = one () => (float[2] t) { t = Relu (sum) },
        else_branch = other () => (float[2] e) { e = Neg (x) }
    >
}"""


def test_who_makes_and_reads(graph):
    made_by, read_by = producers(graph.node), readers(graph.node)
    assert {name: node.op_type for name, node in made_by.items()} == {
        "sum": "Add",
        "once": "Mul",
        "twice": "Flatten",
        "y": "Relu",
    }
    assert [node.op_type for node in read_by["sum"]] == ["Mul", "Relu"]
    assert "y" not in read_by
    assert attributes(made_by["twice"]) == {"axis": 0}


def test_what_an_output_needs(graph):
    assert [node.op_type for node in needed(list(graph.node), ["y"])] == ["Add", "Relu"]
    assert [node.op_type for node in needed(list(graph.node), ["once", "y"])] == ["Add", "Mul", "Relu"]


def test_what_is_dead_goes_and_the_rest_stays(graph):
    drop_dead(graph)
    assert [node.op_type for node in graph.node] == ["Add", "Relu"]
    assert [tensor.name for tensor in graph.initializer] == ["w"]
    onnx.checker.check_graph(graph)


def test_a_constant_stands_for_the_nodes_that_made_it(graph):
    graph.initializer.append(onnx.helper.make_tensor("sum", onnx.TensorProto.FLOAT, [2], [5, 6]))
    drop_dead(graph)
    assert [node.op_type for node in graph.node] == ["Relu"]
    assert [tensor.name for tensor in graph.initializer] == ["sum"]


def test_any_tensor_can_be_fetched(graph):
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    session = open_session(fetching(model, ["twice", "sum", "twice"]))
    assert [value.name for value in session.get_outputs()] == ["twice", "sum"]
    twice, total = session.run(None, {"x": np.ones((1, 2), np.float32)})
    assert total.tolist() == [[2, 3]]
    assert twice.tolist() == [[6, 12]]
    assert [value.name for value in model.graph.output] == ["y"]


def test_what_only_a_branch_reads_stays():
    model = parser.parse_model(BRANCHES)
    drop_dead(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Add", "If"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]


def test_copies_read_other_tensors_and_leave_the_node_alone(graph):
    node = graph.node[0]
    assert list(copied(node, {"w": "dead", "y": "z"}).input) == ["x", "dead"]
    assert list(node.input) == ["x", "w"]


def test_nodes_of_the_graph_itself_in_another_order(graph):
    replace_nodes(graph, [graph.node[0], graph.node[3]])
    assert [node.op_type for node in graph.node] == ["Add", "Relu"]

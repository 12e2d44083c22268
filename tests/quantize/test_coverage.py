"""Coverage of graphs made by hand, whose multiply-accumulates can be counted on paper."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ConfigError, GateError
from compress.quantize.coverage import check, excluded_nodes, measure
from compress.schema.quantization import Coverage, SkippedNode
from compress.stages.result import read_result

node = helper.make_node


def save(path, nodes, weights):
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, kind), name) for name, (shape, kind) in weights.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.fixture
def mixed(tmp_path):
    """64 integer MACs, 160 + 24 in float, an activation product, and an embedding."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], name="scale"),
        node("MatMulInteger", ["xq", "w8", "xz", "z8"], ["i"], name="up_quant"),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("MatMul", ["f", "w32"], ["g"], name="down"),
        node("Gemm", ["g", "wg", "bg"], ["h"], name="head"),
        node("Transpose", ["h"], ["ht"]),
        node("MatMul", ["h", "ht"], ["s"], name="scores"),
        node("Gather", ["table", "ids"], ["t"], name="look up"),
        node("Add", ["s", "t"], ["y"]),
    ]
    weights = {
        "w8": ((8, 8), np.int8),
        "z8": ((8,), np.int8),
        "w32": ((8, 20), np.float32),
        "wg": ((20, 4), np.float32),
        "bg": ((1, 4), np.float32),  # a bias of two dimensions is no weight
        "table": ((10, 4), np.float32),
        "ids": ((2,), np.int64),
    }
    return save(tmp_path / "model.onnx", nodes, weights)


def test_macs_and_bytes_by_hand(mixed):
    found = measure(mixed)
    assert found.coverage_macs == 64 / (64 + 160 + 80)
    floats, ids, integers = 4 * (160 + 80 + 4 + 40), 8 * 2, 64 + 8
    assert found.coverage_bytes == pytest.approx(integers / (integers + floats + ids))
    assert found.skipped == (
        SkippedNode(node="down", reason="the quantizer left MatMul alone"),
        SkippedNode(node="head", reason="the quantizer left Gemm alone"),
        SkippedNode(node="scores", reason="both inputs are activations"),
    )


def test_an_excluded_node_is_told_from_one_left_alone(mixed):
    reasons = {skipped.node: skipped.reason for skipped in measure(mixed, ["^do"]).skipped}
    assert reasons["down"] == "excluded by quantize.exclude"
    assert reasons["head"] == "the quantizer left Gemm alone"


def quantize_linear(name, zero="z"):
    return [
        node("QuantizeLinear", [name, "s", zero], [f"{name}_q"]),
        node("DequantizeLinear", [f"{name}_q", "s", zero], [f"{name}_d"]),
    ]


def weight_linear(name):
    return node("DequantizeLinear", [name, "s", "z"], [f"{name}_d"])


SCALE = {"s": ((), np.float32), "z": ((), np.int8)}


@pytest.mark.parametrize(
    ("inputs", "covered"),
    [(["x_d", "w_d"], 1.0), (["x", "w_d"], 0.0), (["x_d", "f"], 0.0), (["x", "f"], 0.0)],
)
def test_a_qdq_product_is_integer_when_both_sides_are(inputs, covered, tmp_path):
    nodes = [*quantize_linear("x"), weight_linear("w"), node("MatMul", inputs, ["y"], name="product")]
    weights = {**SCALE, "w": ((8, 3), np.int8), "f": ((8, 3), np.float32)}
    found = measure(save(tmp_path / "model.onnx", nodes, weights))
    assert found.coverage_macs == covered
    assert len(found.skipped) == (covered == 0)


@pytest.mark.parametrize(("first", "covered"), [("x_d", 1.0), ("x", 0.0)])
def test_a_quantized_bias_does_not_stand_for_a_quantized_input(first, covered, tmp_path):
    nodes = [
        *quantize_linear("x"),
        weight_linear("w"),
        weight_linear("b"),
        node("Gemm", [first, "w_d", "b_d"], ["y"], name="head"),
    ]
    weights = {**SCALE, "w": ((8, 3), np.int8), "b": ((1, 3), np.int32)}
    assert measure(save(tmp_path / "model.onnx", nodes, weights)).coverage_macs == covered


def test_a_qdq_product_of_activations_has_no_weights(tmp_path):
    nodes = [*quantize_linear("x"), node("MatMul", ["x_d", "x_d"], ["y"], name="scores")]
    found = measure(save(tmp_path / "model.onnx", nodes, SCALE))
    assert found.skipped == (SkippedNode(node="scores", reason="both inputs are activations"),)
    assert found.coverage_macs == 0.0  # and not a division by zero


def test_fused_attention_is_named(tmp_path):
    nodes = [node("Attention", ["x", "x", "x"], ["y"], name="att", q_num_heads=1, kv_num_heads=1)]
    found = measure(save(tmp_path / "model.onnx", nodes, {}))
    assert found.skipped == (SkippedNode(node="att", reason="both inputs are activations"),)


def test_a_product_counts_as_often_as_it_is_computed(tmp_path):
    """A convolution in float at 5 x 5 places, an integer one at 3 x 3, and an integer head."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="float"),
        node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        node("DequantizeLinear", ["aq", "s", "z"], ["af"]),
        weight_linear("v"),
        node("Conv", ["af", "v_d"], ["b"], name="integer"),
        *quantize_linear("b"),
        node("Flatten", ["b_d"], ["c"]),
        *quantize_linear("c"),
        weight_linear("u"),
        node("MatMul", ["c_d", "u_d"], ["y"], name="head"),
    ]
    weights = {
        **SCALE,
        "w": ((4, 8, 1, 1), np.float32),
        "v": ((2, 4, 3, 3), np.int8),
        "u": ((18, 3), np.int8),
    }
    path = save(tmp_path / "model.onnx", nodes, weights)
    model = onnx.load(path)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 5, 5]))
    onnx.save(model, path)
    found = measure(path)
    assert [skipped.node for skipped in found.skipped] == ["float"]
    real, integer = 4 * 8 * 25, 2 * 4 * 9 * 9 + 18 * 3
    assert found.coverage_macs == pytest.approx(integer / (integer + real))


def test_the_floor(tmp_path):
    skipped = (
        SkippedNode(node="a", reason="both inputs are activations"),
        SkippedNode(node="b", reason="the quantizer left Gemm alone"),
    )
    coverage = Coverage(coverage_macs=0.9, coverage_bytes=0.5, skipped=skipped)
    check(coverage, 0.9, tmp_path)
    assert read_result(tmp_path).fact("coverage", Coverage) == coverage
    expected = (
        r"found:   90\.0% of multiply-accumulates; the quantizer left Gemm alone\n  allowed: at least 95\.0%"
    )
    with pytest.raises(GateError, match=expected):
        check(coverage, 0.95, tmp_path)


def test_excluded_nodes_are_products_and_embeddings_that_match(mixed):
    graph = onnx.load(mixed).graph
    assert excluded_nodes(graph, []) == []
    assert excluded_nodes(graph, ["down", "^head$"]) == ["down", "head"]
    assert excluded_nodes(graph, ["look"]) == ["look up"]


@pytest.mark.parametrize("pattern", ["lm_head", "^own", "scale"])  # the last names a node that is no product
def test_a_pattern_that_matches_nothing(pattern, mixed):
    with pytest.raises(ConfigError, match="matches no node\n  found:   " + re.escape(pattern)):
        excluded_nodes(onnx.load(mixed).graph, ["down", pattern])


@pytest.mark.parametrize(
    ("after", "covered"),
    [
        ([node("QuantizeLinear", ["c", "s", "z"], ["y"])], 1.0),
        ([node("Relu", ["c"], ["r"]), node("QuantizeLinear", ["r", "s", "z"], ["y"])], 1.0),
        ([node("Add", ["c", "c"], ["y"])], 0.0),
        ([node("Relu", ["c"], ["y"])], 0.0),
    ],
)
def test_a_convolution_that_gives_floats_runs_in_float(after, covered, tmp_path):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
        node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
        node("Conv", ["xf", "wf"], ["c"]),
        *after,
    ]
    scalars = {"s": ((), np.float32), "z": ((), np.int8)}
    path = save(tmp_path / "model.onnx", nodes, {"w": ((4, 8, 1, 1), np.int8), **scalars})
    assert measure(path).coverage_macs == covered

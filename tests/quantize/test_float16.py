"""16-bit floats: half the size, near the float graph, and refused where numbers leave their range."""

import hashlib
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress import tasks
from compress.config.quantize import Float16
from compress.data import load_splits
from compress.errors import GateError
from compress.graph.session import open_session
from compress.graph.surgery import attributes, producers
from compress.quantize import quantize
from compress.quantize.float16 import in_float16, prepared
from compress.schema.quantization import Coverage
from compress.stages.result import read_result
from tests.conftest import ARCHITECTURES

QUICK = [("bert", True), ("mpnet", True)]
CASES = [
    pytest.param(name, fuse, marks=[] if (name, fuse) in QUICK else [pytest.mark.slow])
    for name in ARCHITECTURES
    for fuse in (True, False)
]


def types(path):
    """How many initializers of each type are matrices; a vector may be of angles."""
    graph = onnx.load(path).graph
    return Counter(t.data_type for t in graph.initializer if sum(size > 1 for size in t.dims) > 1)


@pytest.mark.parametrize(("name", "fuse"), CASES)
def test_an_encoder(name, fuse, quantized, cosine):
    out = quantized(Float16(), name, fuse)
    onnx.checker.check_model(out / "model.onnx")
    assert TensorProto.FLOAT not in types(out / "model.onnx")
    assert types(out / "model.onnx")[TensorProto.FLOAT16] >= 13
    assert cosine(out / "model.onnx", name) > 0.99995
    noted = read_result(out)
    (passed,) = noted.gates
    assert 0.99995 < passed.numbers["min_cosine"] < 1
    assert noted.fact("coverage", Coverage) is None


@pytest.mark.parametrize("name", ["resnet", "depthwise", "vit"])
def test_a_classifier(name, image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    graph, checkpoint = image_graphs[name], image_checkpoints[name]
    quantize(Float16(), (), graph, checkpoint, image_splits_folder, tmp_path)
    assert TensorProto.FLOAT not in types(tmp_path / "model.onnx")
    feeds = list(tasks.open_processor(checkpoint).batches(load_splits(image_splits_folder).test.examples, 8))
    before, after = (open_session(folder / "model.onnx") for folder in (graph, tmp_path))
    for feed in feeds:
        (expected,), (found,) = before.run(None, feed), after.run(None, feed)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=4e-3 * np.abs(expected).max())


def test_half_the_size(graphs):
    """Of a graph that is more than its nodes."""
    model = onnx.load(graphs() / "model.onnx")
    half = in_float16(prepared(model))

    def numbers(model):
        return sum(
            numpy_helper.to_array(tensor).nbytes
            for tensor in model.graph.initializer
            if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
        )

    assert numbers(half) == pytest.approx(numbers(model) / 2, rel=0.001)


def test_arithmetic_of_numpy():
    """relu(x W + b) in float16 of numpy, to the last digit but one."""
    random = np.random.default_rng(0)
    w, b, x = (random.standard_normal(shape).astype(np.float32) for shape in ((16, 8), (8,), (5, 16)))
    model = product(w, b)
    (found,) = open_session(in_float16(prepared(model)).SerializeToString()).run(None, {"x": x})
    rounded = [each.astype(np.float16).astype(np.float32) for each in (x, w, b)]
    expected = np.maximum((rounded[0] @ rounded[1]).astype(np.float16) + rounded[2].astype(np.float16), 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * np.spacing(np.abs(expected).max()))
    assert np.array_equal(found, found.astype(np.float16))  # not computed from the weights as they were


def test_a_sum_of_squares_stays_in_32_bits():
    """300^2 * 8 is ten times the largest 16-bit float."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("ReduceL2", ["y", "axes"], ["z"], keepdims=1),
    ]
    given, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", 8), ("z", 1))
    )
    tensors = [
        numpy_helper.from_array(np.eye(8, dtype=np.float32) * 300, "w"),
        numpy_helper.from_array(np.array([-1]), "axes"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], [result], tensors),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    (found,) = open_session(in_float16(prepared(model)).SerializeToString()).run(
        None, {"x": np.ones((1, 8), "f4")}
    )
    assert found[0, 0] == pytest.approx(300 * 8**0.5, rel=1e-3)


def product(w, b):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", w.shape[0]), ("y", w.shape[1]))
    ]
    tensors = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_numbers_out_of_range_are_refused(graphs, checkpoints, splits_folder, tmp_path):
    """Values 1e6 times as large, the weights that read them as much smaller: the same function, and the same
    numbers of onnxruntime on a CPU, which leaves the casts out."""
    folder, out = tmp_path / "graph", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    model = onnx.load(graphs() / "model.onnx")
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    values = next(node for node in products if "value" in node.name)
    reader = next(node for node in products if "attention/output" in node.name)
    bias = next(node for node in model.graph.node if values.output[0] in node.input)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, factor in ((values, 1e6), (bias, 1e6), (reader, 1e-6)):
        tensor = next(tensors[name] for name in node.input if name in tensors)
        scaled = numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(GateError, match=r"leaves the range(.|\n)*value(.|\n)*at most 65504"):
        quantize(Float16(), (), folder, checkpoints["bert"], splits_folder, out)


def test_positions_are_counted_in_32_bits(graphs):
    """MPNet sorts distances into buckets by their logarithm, and a bucket is a whole number."""
    half = in_float16(prepared(onnx.load(graphs("mpnet") / "model.onnx")))
    made_by = producers(half.graph.node)
    logarithm = next(node for node in half.graph.node if node.op_type == "Log")
    (whole,) = (
        node
        for node in half.graph.node
        if node.op_type == "Cast"
        and attributes(node)["to"] == TensorProto.INT64
        and "encoder" in node.name
        and made_by.get(node.input[0]) is not None
        and made_by[node.input[0]].op_type in ("Mul", "Add")
    )
    between, name = [], whole.input[0]
    while name != logarithm.output[0]:
        between.append(made_by[name].op_type)
        name = made_by[name].input[0]
    assert "Cast" not in between


def test_a_mask_of_the_least_float_stays_finite():
    """Two of them added, as for a token that lies neither in the window nor in the text."""
    nodes = [
        helper.make_node("Where", ["a", "zero", "least"], ["masked"], "mask"),
        helper.make_node("Add", ["masked", "masked"], ["both"], "twice"),
        helper.make_node("Add", ["x", "both"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["y"], "softmax"),
    ]
    least = np.finfo(np.float32).min
    tensors = [
        numpy_helper.from_array(np.array([False] * 4), "a"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        numpy_helper.from_array(np.array([least]), "least"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    half = in_float16(prepared(model))
    (found,) = open_session(half.SerializeToString()).run(None, {"x": np.zeros((1, 4), "f4")})
    np.testing.assert_array_equal(found, 0.25)


def test_twice_the_same_bytes(quantized):
    first, second = (
        hashlib.sha256((quantized(Float16(), out=out) / "model.onnx").read_bytes()).digest() for out in "ab"
    )
    assert first == second


def test_it_keeps_quiet(quantized, capfd):
    quantized(Float16())
    assert capfd.readouterr() == ("", "")

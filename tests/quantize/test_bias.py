"""Bias correction: known shifts are found again, and means of all products agree afterwards."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress.config import Int8Dynamic, Int8Static
from compress.quantize.activations import calibration_feeds, collect
from compress.quantize.bias import correct_bias, product_depths


@pytest.fixture
def feeds(checkpoints, splits_folder):
    return calibration_feeds(checkpoints["bert"], splits_folder, 12)


def biases(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """By the name of the product they are added to."""
    made = {node.output[0]: node for node in model.graph.node}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        for product, bias in (node.input, reversed(node.input)) if node.op_type == "Add" else ():
            if bias in weights and product in made and made[product].op_type == "MatMul":
                found[product] = numpy_helper.to_array(weights[bias])
    return found


def test_depths_of_a_transformer(graphs):
    depths = product_depths(onnx.load(graphs() / "model.onnx").graph)
    assert Counter(depths.values()) == {0: 3, 1: 1, 2: 1, 3: 1, 4: 3, 5: 1, 6: 1, 7: 1}
    at = {depth: name for name, depth in depths.items()}
    assert "attention/output" in at[1]
    assert "layer.1/intermediate" in at[6]


def test_a_known_shift_of_every_bias_is_undone(graphs, feeds):
    """Found layer by layer: a shift in front changes the means of all behind it, which are not at fault."""
    model = onnx.load(graphs() / "model.onnx")
    shifted = onnx.load(graphs() / "model.onnx")
    expected, rng = biases(model), np.random.default_rng(0)
    assert len(expected) == 12
    for tensor in shifted.graph.initializer:
        if any(np.array_equal(numpy_helper.to_array(tensor), bias) for bias in expected.values()):
            value = numpy_helper.to_array(tensor) + rng.normal(scale=0.2, size=tensor.dims)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    assert all(abs(biases(shifted)[name] - bias).max() > 0.1 for name, bias in expected.items())
    corrected = biases(correct_bias(shifted, model, feeds))
    for name, bias in expected.items():
        np.testing.assert_allclose(corrected[name], bias, atol=1e-4)


def means(model, names, feeds):
    rows = {name: [] for name in names}
    for values in collect(model, names, feeds):
        for name in names:
            rows[name].append(values[name][0])
    return {name: np.concatenate(found).mean(0) for name, found in rows.items()}


@pytest.mark.parametrize("config", [Int8Dynamic(), Int8Static(examples=16)])
def test_means_agree_afterwards(config, graphs, quantized, checkpoints, splits_folder, cosine):
    model = onnx.load(graphs() / "model.onnx")
    names = [node.output[0] for node in model.graph.node if node.op_type == "Add" and biases_of(node, model)]
    assert len(names) == 12
    feeds = calibration_feeds(checkpoints["bert"], splits_folder, 64)
    expected = means(model, names, feeds)
    gaps = {}
    for on in (False, True):
        path = quantized(replace(config, bias_correction=on), out=str(on)) / "model.onnx"
        found = means(onnx.load(path), names, feeds)
        gaps[on] = max(abs(found[name] - expected[name]).max() for name in names)
        assert cosine(path) > 0.99
    assert gaps[True] < 1e-4 < gaps[False] / 10


def biases_of(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    return any(name in biases(model) for name in node.input)


def test_a_bias_that_two_products_share_stays(feeds):
    def make(shift: float) -> onnx.ModelProto:
        model = onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 18]>
            toy (float[1, n, 3] x) => (float[1, n, 3] y) {
                a = MatMul(x, wa)
                b = MatMul(x, wb)
                c = MatMul(x, wc)
                ab = Add(a, shared)
                bb = Add(shared, b)
                cb = Add(c, own)
                y = Sum(ab, bb, cb)
            }"""
        )
        rng = np.random.default_rng(0)
        for name, shape in {"wa": (3, 3), "wb": (3, 3), "wc": (3, 3), "shared": 3, "own": 3}.items():
            value = rng.normal(size=shape).astype(np.float32) + np.float32(shift)
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        return model

    x = [{"x": np.ones((1, 4, 3), np.float32)}]
    corrected = correct_bias(make(0.5), make(0.0), x)
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in corrected.graph.initializer}
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in make(0.5).graph.initializer}
    np.testing.assert_array_equal(after["shared"], before["shared"])
    # Each of three inputs of 1 brought 0.5 too much, and so did the bias itself.
    np.testing.assert_allclose(after["own"], before["own"] - 2.0, rtol=1e-5)

"""Cross-layer equalization: the same function with even channels, and less lost in integers."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from compress.config.quantize import Int8Static
from compress.errors import ConfigError
from compress.graph.weights import Weights
from compress.quantize import quantize
from compress.quantize.equalize import Kernel, equalize, even_factors, even_out, find_pairs
from compress.tasks import load

X = {"x": np.random.default_rng(5).normal(size=(2, 3, 6, 6)).astype(np.float32)}


def toy(body, **shapes):
    """A graph of x (n, 3, 6, 6) with random constants of very different channels."""
    rng = np.random.default_rng(1)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        toy (float[n, 3, 6, 6] x) => (float[n, c, h, w] y) {{ {body} }}"""
    )
    for name, shape in shapes.items():
        value = rng.normal(size=shape) * np.exp2(rng.integers(-3, 4, (shape[0], *[1] * (len(shape) - 1))))
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


def result(model):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, X)[0]


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def assert_same(model, even):
    found, expected = result(even), result(model)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


CHAIN = """a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)  ar = Relu(a)
           d = Conv<pads = [1, 1, 1, 1], group = 8>(ar, w2, b2)  dr = Relu(d)
           y = Conv(dr, w3)"""
SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (5, 8, 1, 1)}


def test_factors_by_hand():
    found = even_factors(np.array([8.0, 1.0, 0.0, 1.0]), np.array([2.0, 4.0, 1.0, 0.0]))
    np.testing.assert_allclose(found, [2.0, 0.5, 1.0, 1.0])


def test_a_dead_channel_is_not_blown_up_to_its_bias():
    """By hand: 1e-6 and 1 would give a factor of 0.001, and a bias of 500; 4 times the largest is allowed."""
    first = Kernel(np.array([[[[1e-6]]], [[[1.0]]]]), np.array([-0.5, 2.0]), 1)
    second = Kernel(np.ones((1, 2, 1, 1)), None, 1)
    even_out([(first, second)])
    np.testing.assert_allclose(first.bias, [-8.0, 2.0])
    np.testing.assert_allclose(second.weight.ravel(), [0.0625, 1.0])


def test_a_chain_with_a_depthwise_convolution():
    model = toy(CHAIN, **SHAPES)
    before = model.SerializeToString()
    even = equalize(model)
    assert model.SerializeToString() == before
    assert_same(model, even)
    arrays = {
        node.output[0]: [constants(even)[name] for name in node.input[1:]]
        for node in even.graph.node
        if node.op_type == "Conv"
    }
    first, depthwise, last = (np.abs(arrays[name][0]) for name in ("a", "d", "y"))
    out, middle, into = first.max((1, 2, 3)), depthwise.max((1, 2, 3)), last.max((0, 2, 3))
    np.testing.assert_allclose(out, middle, rtol=0.01)
    np.testing.assert_allclose(middle, into, rtol=0.01)


def test_the_ranges_of_an_equal_pair_are_the_geometric_mean():
    """Dense and without biases, by hand: both sides of channel i become sqrt(r1 r2)."""
    first = Kernel(np.array([[[[4.0]]], [[[-1.0]]]]), None, 1)
    second = Kernel(np.array([[[[1.0]], [[9.0]]], [[[-0.5]], [[2.0]]]]), None, 1)
    even_out([(first, second)])
    np.testing.assert_allclose(first.weight.ravel(), [2.0, -3.0])
    np.testing.assert_allclose(second.weight[:, :, 0, 0], [[2.0, 3.0], [-1.0, 2 / 3]])


def test_groups_of_several_channels():
    body = "a = Conv(x, w1, b1) r = Relu(a) y = Conv<group = 2>(r, w2, b2)"
    model = toy(body, w1=(6, 3, 3, 3), b1=(6,), w2=(4, 3, 3, 3), b2=(4,))
    even = equalize(model)
    assert_same(model, even)
    last = np.abs(next(constants(even)[n.input[1]] for n in even.graph.node if n.output[0] == "y"))
    first = np.abs(next(constants(even)[n.input[1]] for n in even.graph.node if n.output[0] == "a"))
    into = np.concatenate([last[:2].max((0, 2, 3)), last[2:].max((0, 2, 3))])
    np.testing.assert_allclose(first.max((1, 2, 3)), into, rtol=0.01)


@pytest.mark.parametrize(
    "between",
    [
        "r = Clip(a, zero, six)",  # ReLU6 is not homogeneous
        "r = Sigmoid(a)",
        "r = Relu(a) s = Identity(r)",  # another reads it: a residual
        "r = Relu(a) s = Identity(a)",
    ],
)
def test_what_a_factor_does_not_pass_is_left_alone(between):
    body = f"a = Conv(x, w1, b1) {between} m = Conv(r, w2) n = Relu(m) y = Conv(n, w3)"
    model = toy(body, w1=(8, 3, 3, 3), b1=(8,), w2=(4, 8, 1, 1), w3=(4, 4, 1, 1))
    for name, value in (("zero", 0.0), ("six", 6.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    pairs = [(a.output[0], b.output[0]) for a, b in find_pairs(model.graph, Weights(model.graph, "_"))]
    assert pairs == [("m", "y")]
    even = equalize(model)
    assert_same(model, even)
    kept, was = constants(even), constants(model)
    np.testing.assert_array_equal(kept["w1"], was["w1"])
    np.testing.assert_array_equal(kept["b1"], was["b1"])


def test_what_the_graph_gives_is_left_alone():
    model = toy("y = Conv(x, w1) z = Conv(y, w2)", w1=(4, 3, 1, 1), w2=(4, 4, 1, 1))
    assert not list(find_pairs(model.graph, Weights(model.graph, "_")))


def test_two_layers_that_share_a_bias_get_one_each():
    body = "a = Conv(x, w1, b) ar = Relu(a) d = Conv(ar, w2, b) dr = Relu(d) y = Conv(dr, w3)"
    model = toy(body, w1=(4, 3, 1, 1), w2=(4, 4, 1, 1), w3=(4, 4, 1, 1), b=(4,))
    even = equalize(model)
    assert_same(model, even)
    own = [node.input[2] for node in even.graph.node if len(node.input) > 2]
    assert len(set(own)) == 2
    assert "b" not in constants(even)


def test_a_net_without_a_pair(quantized):
    with pytest.raises(
        ConfigError, match=r"equalize finds no two convolutions.*\n  found:   0 conv.*\n.*\n.*=false"
    ):
        quantized(Int8Static(equalize=True, examples=5))


@pytest.mark.parametrize(("name", "times"), [("depthwise", 4), ("resnet", 1)])
def test_less_is_lost_in_integers(
    name, times, uneven, image_checkpoints, image_splits_folder, image_splits, tmp_path
):
    images = load(image_checkpoints[name]).inputs(image_splits.test.images)["pixel_values"].numpy()

    def logits(path):
        return onnxruntime.InferenceSession(path).run(None, {"pixel_values": images})[0]

    errors = []
    for equal in (False, True):
        out = tmp_path / str(equal)
        out.mkdir()
        config = Int8Static(equalize=equal, per_channel=False, examples=12, min_sqnr_db=-100)
        quantize(config, ("avx512_vnni",), uneven[name], image_checkpoints[name], image_splits_folder, out)
        dense = logits(uneven[name] / "model.onnx")
        errors.append(((logits(out / "model.onnx") - dense) ** 2).sum() / (dense**2).sum())
    assert errors[1] < errors[0] / times

"""Bias correction: known shifts are found again, and means of all products agree afterwards."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from compress import tasks
from compress.config.quantize import Int8Dynamic, Int8Static
from compress.quantize import quantize
from compress.quantize.activations import calibration_feeds, collect
from compress.quantize.bias import correct_bias, product_depths
from compress.quantize.static import calibrated


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


# ---------------------------------------------------------------- convolutions

CONVOLUTIONS = ("depthwise", "resnet")


@pytest.fixture
def image_feeds(image_checkpoints, image_splits_folder):
    return lambda name: calibration_feeds(image_checkpoints[name], image_splits_folder, 30)


@pytest.fixture
def int8_pair(image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    """The QDQ graph as calibration leaves it, and the float graph it was made from."""

    def make(name, flags=("avx512_vnni",), **changes):
        folders = image_graphs[name], image_checkpoints[name], image_splits_folder, tmp_path
        return calibrated(Int8Static(examples=12, **changes), flags, *folders)

    return make


def channel_means(model, names, feeds):
    """Of each product's output, before it is rounded: by numpy, axis 1."""
    own = {node.output[0] for node in model.graph.node}
    tensors = [
        name if f"{name}_QuantizeLinear_Input" not in own else f"{name}_QuantizeLinear_Input"
        for name in names
    ]
    runs = list(collect(model, tensors, feeds))
    return {
        name: np.mean([run[tensor].reshape(*run[tensor].shape[:2], -1).mean((0, 2)) for run in runs], axis=0)
        for name, tensor in zip(names, tensors, strict=True)
    }


def test_depths_of_a_residual_net(image_graphs):
    depths = product_depths(onnx.load(image_graphs["resnet"] / "model.onnx").graph)
    # stem; first, second; first beside the shortcut, second; head behind the longest way
    assert list(depths.values()) == [0, 1, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("flags", [("avx512_vnni",), ("asimd",)])
def test_means_of_convolutions_agree_afterwards(name, flags, int8_pair, image_feeds):
    quantized, original = int8_pair(name, flags)
    names, feeds = list(product_depths(original.graph)), image_feeds(name)
    expected = channel_means(original, names, feeds)
    gaps = [
        max(abs(found[name] - expected[name]).max() for name in names)
        for model in (quantized, correct_bias(quantized, original, feeds))
        for found in [channel_means(model, names, feeds)]
    ]
    assert gaps[1] < 1e-4 < gaps[0] / 10


@pytest.mark.parametrize("per_channel", [True, False])
def test_corrected_convolutions_are_still_computed_in_integers(
    per_channel, int8_pair, image_feeds, executed, tmp_path
):
    quantized, original = int8_pair("resnet", per_channel=per_channel)
    onnx.save(correct_bias(quantized, original, image_feeds("resnet")), tmp_path / "corrected.onnx")
    operators = executed(tmp_path / "corrected.onnx")
    assert (operators["QLinearConv"], operators["QGemm"], operators["Conv"]) == (6, 1, 0)


def test_old_biases_do_not_stay_in_the_file(int8_pair, image_feeds):
    quantized, original = int8_pair("depthwise")
    corrected = correct_bias(quantized, original, image_feeds("depthwise"))
    assert len(corrected.graph.node) == len(quantized.graph.node)
    assert len(corrected.graph.initializer) == len(quantized.graph.initializer)


def without_bias(model, *places):
    """The model without the biases of the convolutions at these places, and what these biases were."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return model, [tensors[convolutions[place].input.pop(2)] for place in places]


def test_a_bias_that_was_lost_is_found_again(image_graphs, image_feeds):
    whole = onnx.load(image_graphs["depthwise"] / "model.onnx")
    bare, (first, third) = without_bias(whole, 0, 2)
    corrected = correct_bias(bare, whole, image_feeds("depthwise"))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in corrected.graph.initializer}
    found = [tensors[node.input[2]] for node in corrected.graph.node if node.op_type == "Conv"]
    np.testing.assert_allclose(found[0], first, atol=1e-5)
    np.testing.assert_allclose(found[2], third, atol=1e-5)


def test_an_integer_convolution_without_a_bias_gets_one(
    image_graphs, image_checkpoints, image_splits_folder, image_feeds, executed, tmp_path
):
    bare, _ = without_bias(onnx.load(image_graphs["depthwise"] / "model.onnx"), 0, 2)
    onnx.save(bare, tmp_path / "model.onnx")
    folders = tmp_path, image_checkpoints["depthwise"], image_splits_folder, tmp_path
    quantized, original = calibrated(Int8Static(examples=12), ("avx512_vnni",), *folders)
    feeds = image_feeds("depthwise")
    corrected = correct_bias(quantized, original, feeds)
    convolutions = [node for node in corrected.graph.node if node.op_type == "Conv"]
    assert [len(node.input) for node in convolutions] == [3] * 5
    names = [node.output[0] for node in convolutions]
    found, expected = (channel_means(model, names, feeds) for model in (corrected, original))
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
    onnx.save(corrected, tmp_path / "corrected.onnx")
    assert executed(tmp_path / "corrected.onnx")["QLinearConv"] == 5


def test_it_brings_the_answers_of_an_uneven_net_nearer(
    uneven, image_checkpoints, image_splits_folder, image_splits, tmp_path
):
    model = tasks.load(image_checkpoints["depthwise"])
    images = model.inputs(image_splits.test.images)["pixel_values"].numpy()

    def logits(path):
        return onnxruntime.InferenceSession(path).run(None, {"pixel_values": images})[0]

    dense, errors = logits(uneven["depthwise"] / "model.onnx"), []
    for on in (False, True):
        out = tmp_path / str(on)
        out.mkdir()
        config = Int8Static(bias_correction=on, per_channel=False, examples=12, min_sqnr_db=-100)
        folders = uneven["depthwise"], image_checkpoints["depthwise"], image_splits_folder, out
        quantize(config, ("avx512_vnni",), *folders)
        errors.append(np.abs((logits(out / "model.onnx") - dense).mean(0)).max())
    assert errors[1] < errors[0] / 2

"""ONNX graphs in torch: every operator beside onnx's own evaluator, rounding beside onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from compress.config.quantize import Int8Static
from compress.errors import ModelError
from compress.quantize.kernels import resolve, weight_limits
from compress.quantize.static import calibrated
from compress.quantize.torch_graph import TorchGraph, fake_quantize, write_back
from compress.tasks import load

X = np.random.default_rng(3).normal(size=(2, 4, 9, 7)).astype(np.float32)


def toy(body, **shapes):
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        toy (float[n, 4, 9, 7] x) => (float[] y) {{ {body} }}"""
    )
    rng = np.random.default_rng(1)
    for name, shape in shapes.items():
        value = np.float32(shape) if isinstance(shape, float) else rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


OPERATORS = {
    "plain": ("y = Conv(x, w)", {"w": (3, 4, 3, 3)}),
    "bias, padding, stride": (
        "y = Conv<pads = [1, 2, 1, 2], strides = [2, 1], kernel_shape = [3, 3]>(x, w, b)",
        {"w": (3, 4, 3, 3), "b": (3,)},
    ),
    "groups, dilation": ("y = Conv<group = 2, dilations = [2, 1]>(x, w)", {"w": (6, 2, 3, 3)}),
    "depthwise": ("y = Conv<group = 4>(x, w, b)", {"w": (4, 1, 3, 3), "b": (4,)}),
    "flatten, gemm": ("f = Flatten(x) y = Gemm<transB = 1>(f, w, b)", {"w": (5, 252), "b": (5,)}),
    "gemm": ("f = Flatten<axis = 1>(x) y = Gemm(f, w)", {"w": (252, 5)}),
    "relu": ("y = Relu(x)", {}),
    "clip": ("y = Clip(x, low, high)", {"low": -0.5, "high": 0.75}),
    "clip above": ("y = Clip(x, , high)", {"high": 0.75}),
    "add": ("a = Relu(x) y = Add(a, x)", {}),
    "concat": ("a = Relu(x) y = Concat<axis = 1>(a, x)", {}),
    "max pool": ("y = MaxPool<kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 0]>(x)", {}),
    "average pool": ("y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)", {}),
    "average pool over the padding": (
        "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(x)",
        {},
    ),
    "global pool": ("y = GlobalAveragePool(x)", {}),
    "identity": ("y = Identity(x)", {}),
}


@pytest.mark.parametrize("kind", list(OPERATORS))
def test_an_operator_in_float(kind):
    body, shapes = OPERATORS[kind]
    model = toy(body, **shapes)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": X})
    net = TorchGraph(model, model)
    assert not list(net.parameters())
    np.testing.assert_allclose(net(torch.from_numpy(X)).numpy(), expected, rtol=1e-4, atol=1e-5)


REFUSED = {
    "Sigmoid": ("s = Sigmoid(x) y = Relu(s)", {}),
    "MatMul": ("y = MatMul(x, w)", {"w": (7, 3)}),
    "pads=": ("y = Conv<pads = [0, 0, 1, 1]>(x, w)", {"w": (3, 4, 3, 3)}),
    "auto_pad=": ('y = Conv<auto_pad = "SAME_UPPER">(x, w)', {"w": (3, 4, 3, 3)}),
    "ceil_mode=1": ("y = MaxPool<kernel_shape = [2, 2], ceil_mode = 1>(x)", {}),
    "dilations=": ("y = MaxPool<kernel_shape = [2, 2], dilations = [2, 2]>(x)", {}),
    "alpha=": ("f = Flatten(x) y = Gemm<alpha = 0.5>(f, w)", {"w": (252, 5)}),
    "axis=2": ("y = Flatten<axis = 2>(x)", {}),
}


@pytest.mark.parametrize("found", list(REFUSED))
def test_what_it_does_not_compute_is_refused(found):
    body, shapes = REFUSED[found]
    model = toy(body, **shapes)
    with pytest.raises(
        ModelError, match=rf"int8_qat cannot train this net\n  found:   .*{found}.*\n  allowed: "
    ):
        TorchGraph(model, model)


def test_a_rounded_constant_that_is_no_weight_is_refused():
    model = toy("d = DequantizeLinear(q, s, z) y = Add(x, d)", s=0.5)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.uint8), name)
        for name, value in (("q", [[[[3]]]]), ("z", 1))
    )
    with pytest.raises(ModelError, match="DequantizeLinear"):
        TorchGraph(model, model)


# ---------------------------------------------------------------- rounding


def test_rounding_by_hand():
    values = torch.tensor([-9.0, -0.75, 0.25, 0.26, 0.75, 1.24, 9.0])
    found = fake_quantize(values, torch.tensor(0.5), -2, 3)
    assert found.tolist() == [-1.0, -1.0, 0.0, 0.5, 1.0, 1.0, 1.5]  # halves go to the even step


def test_gradients_are_those_of_the_paper():
    """Esser et al. 2020: 1 within and 0 beyond for values; round(v/s) - v/s, -Q_N and Q_P for the step."""
    values = torch.tensor([-9.0, -0.8, 0.3, 9.0], requires_grad=True)
    for index, expected in enumerate([-2.0, -2 + 1.6, 1 - 0.6, 3.0]):
        step = torch.tensor(0.5, requires_grad=True)
        values.grad = None
        fake_quantize(values, step, -2, 3)[index].backward()
        assert float(step.grad) == pytest.approx(expected, abs=1e-6)
        assert values.grad.tolist() == [float(index == i and index in (1, 2)) for i in range(4)]


FLAGS = {
    "vnni": (("avx512_vnni",), {}),
    "arm": (("asimd",), {}),
    "7 bits": (("avx2",), {}),
    "a tensor a scale": (("avx512_vnni",), {"per_channel": False}),
    "unsigned weights": (("avx512_vnni",), {"weight_type": "uint8", "per_channel": False}),
}


@pytest.fixture
def pair(image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    def make(name, flags=("avx512_vnni",), **changes):
        from compress.config.quantize import WeightType

        if "weight_type" in changes:
            changes["weight_type"] = WeightType[changes["weight_type"]]
        config = Int8Static(examples=12, **changes)
        folders = image_graphs[name], image_checkpoints[name], image_splits_folder, tmp_path
        limits = weight_limits(resolve(flags, config.weight_type, config.reduce_range))
        return *calibrated(config, flags, *folders), limits

    return make


@pytest.fixture
def pixels(image_checkpoints, image_splits):
    return load(image_checkpoints["resnet"]).inputs(image_splits.test.images)["pixel_values"]


def logits(model, images):
    """As the file says, by onnxruntime without its integer kernels: the rounding of those of x86 without
    VNNI saturates on this machine."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(["logits"], {"pixel_values": images.numpy()})[0]


@pytest.mark.parametrize("kind", list(FLAGS))
@pytest.mark.parametrize("name", ["depthwise", "resnet"])
def test_it_rounds_as_the_file_does_before_and_after_training(name, kind, pair, pixels):
    flags, changes = FLAGS[kind]
    quantized, reference, limits = pair(name, flags, **changes)
    net = TorchGraph(quantized, reference, limits)
    step = net.result_step()
    with torch.no_grad():
        before = net(pixels).numpy()
        np.testing.assert_allclose(before, logits(quantized, pixels), atol=1.01 * step)
        for index, parameter in enumerate(net.parameters()):  # as if it had learned
            generator = torch.Generator().manual_seed(index)
            parameter += 4 * torch.randn(parameter.shape, generator=generator)
        after = net(pixels).numpy()
        written, floats = write_back(net, quantized, reference)
        np.testing.assert_allclose(after, logits(written, pixels), atol=1.01 * net.result_step())
    assert np.abs(after - before).max() > 5 * step
    assert_twins(written, floats, limits)


def assert_twins(written, floats, limits):
    """Integer weights are the float ones to the nearest step, unless they are at the end of the grid."""
    tensors = {t.name: numpy_helper.to_array(t) for m in (written, floats) for t in m.graph.initializer}
    makers = {node.output[0]: node for node in written.graph.node}
    originals = {node.name: node for node in floats.graph.node}
    layers = [node for node in written.graph.node if node.op_type in ("Conv", "Gemm")]
    for node in layers:
        integers, scale, zero = (tensors[name].astype(float) for name in makers[node.input[1]].input)
        weight = tensors[originals[node.name].input[1]]
        each = (-1, *[1] * (weight.ndim - 1))
        steps = weight / scale.reshape(each if scale.ndim else ()) + zero.reshape(each if zero.ndim else ())
        assert integers.min() >= limits[0]
        assert integers.max() <= limits[1]
        np.testing.assert_allclose(integers, steps.clip(*limits), atol=0.501)
    assert len(layers) > 5


def test_without_training_the_file_stays_as_it_was(pair):
    quantized, reference, limits = pair("resnet")
    written, floats = write_back(TorchGraph(quantized, reference, limits), quantized, reference)
    old, new = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (quantized, written))
    assert old.keys() == new.keys()
    for name, value in old.items():
        np.testing.assert_array_equal(new[name], value, err_msg=name)
    assert quantized.graph.node == written.graph.node
    for node, twin in zip(reference.graph.node, floats.graph.node, strict=True):
        constants = [
            {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
            for model in (reference, floats)
        ]
        for name, other in zip(node.input, twin.input, strict=True):
            if name in constants[0]:
                np.testing.assert_array_equal(constants[0][name], constants[1][other])


def test_layers_in_float_do_not_learn(pair):
    quantized, reference, limits = pair("depthwise", exclude=["body.2.*Conv"], min_coverage=0.1)
    net = TorchGraph(quantized, reference, limits)
    whole = TorchGraph(*pair("depthwise")[:2])
    assert len(whole.constants) - len(net.constants) == 2
    assert not any("body.2" in constant.layer for constant in net.constants.values())


def test_weights_stay_within_their_bits(pair):
    quantized, reference, limits = pair("depthwise", ("avx2",))
    assert limits == (-64, 64)
    net = TorchGraph(quantized, reference, limits)
    with torch.no_grad():
        for constant in net.constants.values():
            constant.shift += 40.0
    written, _ = write_back(net, quantized, reference)
    weights = [numpy_helper.to_array(t) for t in written.graph.initializer if len(t.dims) > 1]
    assert max(weight.max() for weight in weights) == 64

"""SmoothQuant: the same function in float, evener activations, less lost in integers."""

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper

from compress.config.quantize import Int8Dynamic, Int8Static
from compress.quantize.activations import calibration_feeds, collect
from compress.quantize.smoothing import factors, smooth
from compress.schema.quantization import Coverage
from compress.stages.result import read_result

magnitudes = arrays(np.float64, 4, elements=st.floats(1e-3, 1e3))


def test_factors_by_hand():
    found = factors(np.array([16.0, 1.0]), np.array([4.0, 0.25]), 0.5)
    np.testing.assert_allclose(found, [2.0, 2.0])
    np.testing.assert_allclose(
        factors(np.array([8.0]), np.array([2.0]), 1 / 3), [2 / 2 ** (2 / 3)], rtol=1e-6
    )


@given(magnitudes, magnitudes)
def test_the_ends_and_the_middle(x, w):
    np.testing.assert_allclose(x / factors(x, w, 1.0), 1, rtol=1e-5)  # activations become even
    np.testing.assert_allclose(w * factors(x, w, 0.0), 1, rtol=1e-5)  # weights become even
    half = factors(x, w, 0.5)
    np.testing.assert_allclose(x / half, w * half, rtol=1e-5)  # both are as hard


def test_a_dead_channel_gets_a_finite_factor():
    zero = np.zeros(2)
    assert np.isfinite(factors(zero, zero, 0.0)).all()
    assert (factors(zero, zero, 1.0) > 0).all()


def results(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, feed)[0] for feed in feeds]


def assert_same(
    smoothed: onnx.ModelProto, model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]
) -> None:
    for found, expected in zip(results(smoothed, feeds), results(model, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def feeds(checkpoints, splits_folder):
    return lambda name, texts=9: calibration_feeds(checkpoints[name], splits_folder, texts)


@pytest.mark.parametrize(
    ("name", "fuse", "alpha", "multiplied"),
    [("bert", True, 0.6, 6), ("bert", True, 0.0, 6), ("mpnet", True, 1.0, 8), ("bert", False, 1.0, 8)],
)
def test_the_same_function(name, fuse, alpha, multiplied, graphs, feeds):
    model = onnx.load(graphs(name, fuse) / "model.onnx")
    before = model.SerializeToString()
    smoothed = smooth(model, feeds(name), alpha)
    assert model.SerializeToString() == before
    onnx.checker.check_model(smoothed)
    assert_same(smoothed, model, feeds(name, 20)[9:])  # not only the texts that the factors are from
    # a Mul a group, but where Attention lets the values' projection take the factors
    assert len(smoothed.graph.node) - len(model.graph.node) == multiplied
    assert len(smoothed.graph.initializer) - len(model.graph.initializer) == multiplied


def test_activations_become_even(graphs, feeds):
    model = onnx.load(graphs() / "model.onnx")
    smoothed = smooth(model, feeds("bert"), 1.0)
    weights = {tensor.name for tensor in smoothed.graph.initializer}
    read = {n.input[0] for n in smoothed.graph.node if n.op_type == "MatMul" and n.input[1] in weights}
    assert len(read) == 8
    values = list(collect(smoothed, sorted(read), feeds("bert")))
    for name in read:
        largest = np.max([np.abs(value[name]).max((0, 1)) for value in values], axis=0)
        np.testing.assert_allclose(largest, 1, rtol=1e-3)


def test_what_is_excluded_keeps_its_weights_and_input(graphs, feeds):
    model = onnx.load(graphs() / "model.onnx")
    products = {node.name: node for node in model.graph.node if node.op_type == "MatMul"}
    kept = next(name for name in products if "query" in name)
    smoothed = smooth(model, feeds("bert"), 0.5, [kept])
    after = {node.name: node for node in smoothed.graph.node if node.op_type == "MatMul"}
    changed = {name for name in products if list(products[name].input) != list(after[name].input)}
    assert kept not in changed
    assert any("key" in name for name in changed)
    assert_same(smoothed, model, feeds("bert"))


def normalized(residual: bool) -> onnx.ModelProto:
    """Two products behind a normalisation, whose output a residual sum may read too."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        toy (float[1, n, 3] x) => (float[1, n, 3] y) {{
            h = LayerNormalization <axis = -1> (x, scale, shift)
            a = MatMul(h, wa)
            b = MatMul(h, wb)
            ab = Mul(a, b)
            y = Add(ab, {"h" if residual else "x"})
        }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"scale": 3, "shift": 3, "wa": (3, 3), "wb": (3, 3)}.items():
        value = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


@pytest.mark.parametrize("residual", [True, False])
def test_a_normalisation_takes_the_factors_where_only_products_read_it(residual):
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 7, 3)).astype(np.float32)} for _ in range(3)]
    model = normalized(residual)
    smoothed = smooth(model, feeds, 0.7)
    assert [node.op_type for node in smoothed.graph.node].count("Mul") == 1 + residual
    assert (list(smoothed.graph.node[0].input) == list(model.graph.node[0].input)) == residual
    assert_same(smoothed, model, feeds)


@pytest.mark.parametrize(
    "config",
    [
        Int8Dynamic(smooth=0.8, bias_correction=True),
        Int8Static(smooth=0.8, bias_correction=True, examples=16),
    ],
)
def test_quantized_it_is_integer_and_the_same_bytes_every_time(config, quantized, cosine, executed):
    first, second = (quantized(config, out=out) / "model.onnx" for out in "ab")
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in (first, second)]
    assert digests[0] == digests[1]
    assert read_result(first.parent).fact("coverage", Coverage).coverage_macs == 1.0
    assert cosine(first) > 0.99
    operators = executed(first)
    assert operators["DynamicQuantizeMatMul"] + operators["MatMulIntegerToFloat"] == 12


def test_outliers_hurt_less(graphs, feeds, checkpoints, splits_folder, tmp_path, cosine):
    """A channel of the input 40 times as large, and weights that undo it: the float model is the same."""
    from compress.quantize import quantize

    model = onnx.load(graphs() / "model.onnx")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    norm = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    scale = np.ones(32, np.float32)
    scale[5] = 40

    def scaled(node: onnx.NodeProto, index: int, by: np.ndarray) -> None:  # weights alike are stored once
        name = f"{node.output[0]}_{index}"
        model.graph.initializer.append(numpy_helper.from_array(weights[node.input[index]] * by, name))
        node.input[index] = name

    scaled(norm, 1, scale)
    scaled(norm, 2, scale)
    for node in [node for node in model.graph.node if norm.output[0] in node.input]:
        if node.op_type == "MatMul":
            scaled(node, 1, 1 / scale[:, None])
        else:
            node.input[list(node.input).index(norm.output[0])] = "undone"
    model.graph.initializer.append(numpy_helper.from_array(1 / scale, "inverse"))
    undo = onnx.helper.make_node("Mul", [norm.output[0], "inverse"], ["undone"], name="undo")
    model.graph.node.insert(list(model.graph.node).index(norm) + 1, undo)
    source = tmp_path / "source"
    source.mkdir()
    onnx.save(model, source / "model.onnx")
    assert cosine(source / "model.onnx") > 0.99999
    found = []
    for alpha in (None, 0.8):
        out = tmp_path / str(alpha)
        out.mkdir()
        quantize(Int8Dynamic(smooth=alpha), ["avx512_vnni"], source, checkpoints["bert"], splits_folder, out)
        found.append(1 - cosine(out / "model.onnx"))
    assert found[1] < found[0] / 3

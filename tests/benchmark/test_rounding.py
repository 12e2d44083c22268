"""What rounding moves, which right kernels may do otherwise."""

import numpy as np
import onnx
import onnx.parser
import pytest

from compress.benchmark.agreement import ROUNDING, differences
from compress.benchmark.rounding import noise
from compress.graph.session import open_session


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_what_rounding_moves_is_found_for_weights_of_each_type(kind, tmp_path):
    """A product that is rounded to integers behind it moves by a step: no fault of a kernel's."""
    random = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["": 19]> g (float[n, 64] x) => (float[n, 64] y) {
        a = CastLike (x, w)
        b = MatMul (a, w)
        c = Cast <to = 1> (b)
        q, s, z = DynamicQuantizeLinear (c)
        y = DequantizeLinear (q, s, z)
    }"""
    model = onnx.parser.parse_model(text)
    weights = (random.standard_normal((64, 64)) / 8).astype(kind)
    weights[0, 0] = np.finfo(kind).max  # a mask's, which has no larger one
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    x = random.standard_normal((32, 64)).astype(np.float32)
    x[:, 0] = 0
    [output] = onnx.load(path).graph.output
    ours = [dict(zip(["y"], open_session(path).run(["y"], {"x": x}), strict=True))]
    found = noise(path, [{"x": x}], ours, ROUNDING["f16"])[output.name]
    assert 1 / 255 < found.relative < 0.05
    assert 0 < 1 - found.cosine < 1e-2


def test_what_an_operator_rounds_inside_itself_counts(tmp_path):
    """A product with 4-bit blocks that rounds its input to 8 bits, beside onnxruntime's own two ways."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (64, 2, 16), np.uint8)
    scales = np.full((64 * 2,), 0.05, np.float32)

    def model(level):
        text = f"""<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]>
        g (float[n, 64] x) => (float[n, 64] y) {{
            y = com.microsoft.MatMulNBits
                <K = 64, N = 64, bits = 4, block_size = 32, accuracy_level = {level}> (x, w, s)
        }}"""
        made = onnx.parser.parse_model(text)
        for name, each in (("w", blocks), ("s", scales)):
            made.graph.initializer.append(onnx.numpy_helper.from_array(each, name))
        path = tmp_path / f"{level}.onnx"
        onnx.save(made, path)
        return path

    x = random.standard_normal((32, 64)).astype(np.float32)
    rounded, exact = ([{"y": open_session(model(level)).run(["y"], {"x": x})[0]}] for level in (4, 1))
    apart = differences(rounded, exact)["y"].relative
    assert 1e-3 < apart < 2e-2
    for level, ours in ((4, rounded), (1, exact)):
        found = noise(model(level), [{"x": x}], ours, ROUNDING["f32"])["y"].relative
        assert apart / 2 < found < 4 * apart


def test_what_a_sum_alone_reads_may_stay_unrounded(tmp_path):
    """As OpenVINO adds a branch to what a convolution gives; what others read, too, is rounded for all."""
    random = np.random.default_rng(0)

    def model(more):
        text = f"""<ir_version: 8, opset_import: ["": 19]> g (float[n, 64] x) => (float[n, 64] y) {{
            step = Constant <value_float = 0.05> ()
            q = QuantizeLinear (x, step)
            a = DequantizeLinear (q, step)
            y = Add (a, {more})
        }}"""
        path = tmp_path / "m.onnx"
        onnx.save(onnx.parser.parse_model(text), path)
        x = random.standard_normal((32, 64)).astype(np.float32)
        ours = [dict(zip(["y"], open_session(path).run(["y"], {"x": x}), strict=True))]
        return noise(path, [{"x": x}], ours, ROUNDING["f32"])["y"].relative

    assert 0.003 < model("x") < 0.01  # half a step, of a largest sum of about 6; what is cut off counts not
    assert model("a") < 1e-6

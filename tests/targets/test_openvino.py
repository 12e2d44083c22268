"""What only OpenVINO does. Skipped without the extra: pip install '.[openvino]'."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from compress.benchmark import limits, timing
from compress.benchmark.parity import check, check_inputs
from compress.benchmark.profile import load_profiles, profile_model
from compress.benchmark.timing import time_models
from compress.config.benchmark import BenchmarkConfig
from compress.config.quantize import Int8Static
from compress.config.target import OpenvinoTarget, Precision
from compress.data import load_splits
from compress.errors import BenchmarkError, ConfigError
from compress.graph import named_graphs
from compress.graph.session import open_session
from compress.quantize import quantize
from compress.schema.speed import FLOAT, INTEGER
from compress.targets import open_target
from compress.targets.openvino import check_precision
from compress.targets.outputs import outputs
from compress.tasks import open_processor

pytest.importorskip("openvino")


@pytest.fixture
def target():
    return open_target(OpenvinoTarget(threads=1))


def save(path: Path, text: str, **weights: np.ndarray) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> {text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(each, name) for name, each in weights.items())
    onnx.save(model, path)
    return path


def product(path: Path, nodes: str, kind: str = "int8") -> Path:
    """512 wide: of smaller products that stand in a row OpenVINO makes one kernel."""
    weights = np.random.default_rng(0).integers(-100, 100, (512, 512)).astype(kind)
    return save(path, f"g (float[n, 512] x) => (float[n, 512] y) {{ {nodes} }}", w=weights)


FLOATS = "y = MatMul (x, w)"
QDQ = """
    step = Constant <value_float = 0.02> ()
    zero = Constant <value = uint8 {128}> ()
    q = QuantizeLinear (x, step, zero)
    a = DequantizeLinear (q, step, zero)
    b = DequantizeLinear (w, step)
    y = MatMul (a, b)
"""
DYNAMIC = """
    q, step, zero = DynamicQuantizeLinear (x)
    i = MatMulInteger (q, w, zero)
    f = Cast <to = 1> (i)
    y = Mul (f, step)
"""


@pytest.mark.parametrize(
    ("nodes", "of", "kind"), [(FLOATS, "float32", FLOAT), (QDQ, "int8", INTEGER), (DYNAMIC, "int8", FLOAT)]
)
def test_the_profile_tells_what_a_product_is_computed_in(tmp_path, target, nodes, of, kind):
    """MatMulInteger is read, and multiplied in floats."""
    model = product(tmp_path / "m.onnx", nodes, of)
    profile_model(target, "m", model, {"w": {"x": np.ones((64, 512), np.float32)}}, tmp_path)
    products = [each for each in load_profiles(tmp_path)["w"].operators if each.macs]
    assert [(each.kind, each.nodes, each.macs) for each in products] == [(kind, 1, 64 * 512 * 512)]
    assert products[0].ms > 0


def test_answers_are_those_of_onnxruntime(tmp_path, target):
    random = np.random.default_rng(1)
    batches = [{"x": random.uniform(-2, 2, (size, 512)).astype(np.float32)} for size in (1, 64)]
    for name, nodes, of in (("f", FLOATS, "float32"), ("q", QDQ, "int8"), ("d", DYNAMIC, "int8")):
        model = product(tmp_path / f"{name}.onnx", nodes, of)
        session = open_session(model)
        for batch, given in zip(batches, outputs(target, model, batches), strict=True):
            np.testing.assert_allclose(given["y"], session.run(None, batch)[0], rtol=1e-3, atol=1e-2)


def test_names_of_inputs_and_outputs_are_those_of_the_file(tmp_path, target):
    """OpenVINO gives one tensor all of its names where nodes hand it on."""
    nodes = "a = Identity (x) y = Sub (a, k) z = Identity (y)"
    text = f"g (float[2] x, float[2] k) => (float[2] z, float[2] y) {{ {nodes} }}"
    feeds = {"k": np.ones(2, np.float32), "x": np.full(2, 5, np.float32)}
    [given] = outputs(target, save(tmp_path / "m.onnx", text), [feeds])
    assert list(given) == ["z", "y"]
    assert given["y"].tolist() == given["z"].tolist() == [4, 4]


def test_integers_reach_more_than_floats_where_they_are_timed_in_the_format_that_it_multiplies(
    target, monkeypatch
):
    monkeypatch.setitem(target.facts(), "cache_bytes", 2**20)
    monkeypatch.setattr(limits, "CALLS", 5)
    found = limits.calibrate(target)
    flags = target.cpu_flags()
    assert set(found.integer_gops) == {"int8", "uint8"}
    if "avx512_vnni" in flags or "avx_vnni" in flags:
        assert found.integer_gops["int8"] > 1.3 * found.float32_gflops


def test_an_operator_that_it_lacks_is_named(tmp_path, target):
    text = "g (float[2] x) => (float[2] y) { z = com.microsoft.Bar (x) y = Neg (z) }"
    model = save(tmp_path / "m.onnx", text)
    with pytest.raises(BenchmarkError, match=r"no operator com\.microsoft\.Bar(.|\n)*export=torch"):
        list(outputs(target, model, [{"x": np.ones(2, np.float32)}]))


def test_a_precision_that_the_cpu_lacks_is_refused():
    runtime = {"capabilities": ["FP32", "FP16", "INT8"], "device": "a CPU"}
    with pytest.raises(ConfigError, match=r"found:   target\.precision=bf16 on a CPU\n  allowed: f32, f16"):
        check_precision(Precision.bf16, runtime)
    check_precision(Precision.f16, runtime)


def test_what_floats_are_multiplied_in_is_what_was_asked_for(tmp_path, target):
    """Left to itself OpenVINO takes bf16 where the CPU has it."""
    model = product(tmp_path / "m.onnx", FLOATS, "float32")
    x = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    [wanted] = open_session(model).run(None, {"x": x})
    error = {}
    for precision in ("f32", *(["bf16"] if "BF16" in target.facts()["runtime"]["capabilities"] else [])):
        [given] = outputs(open_target(OpenvinoTarget(precision=Precision(precision))), model, [{"x": x}])
        error[precision] = np.abs(given["y"] - wanted).max() / np.abs(wanted).max()
    assert error["f32"] < 1e-5
    assert error.get("bf16", 1e-3) > 1e-4  # 8 bits of mantissa


@pytest.mark.parametrize("fixed", [False, True])
def test_the_code_of_a_card_computes_what_the_target_does(tmp_path, fixed, monkeypatch):
    target = open_target(OpenvinoTarget(threads=1, fixed_shapes=fixed))
    model = product(tmp_path / "m.onnx", QDQ)
    random, names = np.random.default_rng(3), {}
    batches = [{"x": random.uniform(-2, 2, (size, 512)).astype(np.float32)} for size in (8, 3, 8)]
    monkeypatch.chdir(tmp_path)
    exec(target.opening(model.name, generates=False), names)
    assert names["input_names"] == ["x"]
    for feeds, wanted in zip(batches, outputs(target, model, batches), strict=True):
        np.testing.assert_array_equal(names["run"](feeds)["y"], wanted["y"])
    assert not fixed or len(names["compiled"]) == 2


def test_fixed_shapes_are_compiled_before_anything_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0.05)
    model, target = product(tmp_path / "m.onnx", QDQ), OpenvinoTarget(threads=1, fixed_shapes=True)
    workloads = {str(size): {"x": np.ones((size, 512), np.float32)} for size in (1, 8)}
    short = BenchmarkConfig(max_seconds=1.0)
    speed = time_models(open_target(target), short, {"m": model}, workloads, tmp_path / "out")
    session = speed.machine["session"]
    assert session["fixed_shapes"]
    assert session["computes_in"] == {"u8": 2}  # a product for each shape
    assert session["precision"] == "f32"


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "compress.runner.with_openvino", None)
    with pytest.raises(ConfigError, match=r"target=openvino needs(.|\n)*compress-toolkit\[openvino\]"):
        open_target(OpenvinoTarget()).facts()


def test_sums_of_a_quantized_net_pass_parity(image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    """OpenVINO does not round to integers what a convolution adds a branch to."""
    static = tmp_path / "static"
    static.mkdir()
    images, checkpoint = image_splits_folder, image_checkpoints["resnet"]
    quantize(
        Int8Static(), ["avx2", "avx512f", "avx512_vnni"], image_graphs["resnet"], checkpoint, images, static
    )
    examples = load_splits(images).calibration.examples
    feeds = check_inputs(open_processor(checkpoint), examples, ["1x8"])
    target = open_target(OpenvinoTarget(threads=1))
    [gate] = check(target, named_graphs(static), feeds, "int8")
    assert gate.numbers["operators_alone"] > 5
    assert gate.numbers["largest_relative_difference"] > 1e-3

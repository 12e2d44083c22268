"""Static int8 of the tiny encoders, on plain and fused graphs, by every calibrator."""

import hashlib

import numpy as np
import onnx
import pytest

from compress.config.quantize import Calibrator, Int8Static
from compress.errors import ConfigError, GateError
from compress.quantize.static import FeedReader
from compress.schema.quantization import Coverage
from compress.stages.result import read_result
from compress.tasks import open_processor

CASES = [("bert", True), ("bert", False), ("mpnet", True)]  # all others: tests/contract
INTEGER = ("MatMulIntegerToFloat", "QLinearMatMul", "DynamicQuantizeMatMul", "QGemm")


@pytest.mark.parametrize(("name", "fuse"), CASES)
def test_near_to_float_and_integer_when_it_runs(name, fuse, quantized, cosine, executed):
    out = quantized(Int8Static(), name, fuse)
    found = read_result(out).fact("coverage", Coverage)
    assert found.coverage_macs == 1.0
    assert found.coverage_bytes > 0.7
    assert {skipped.reason for skipped in found.skipped} == {"both inputs are activations"}
    assert len(found.skipped) == (2 if name != "mpnet" else 4)
    assert cosine(out / "model.onnx", name) > 0.99
    operators = executed(out / "model.onnx")
    assert sum(operators[kind] for kind in INTEGER) == 12
    assert sorted(path.name for path in out.iterdir()) == ["model.onnx", "stage.json"]


@pytest.mark.parametrize("fuse", [True, False])
def test_only_what_goes_into_products_with_weights_is_quantized(fuse, quantized):
    graph = onnx.load(quantized(Int8Static(embeddings=False), fuse=fuse) / "model.onnx").graph
    producers = {output: node for node in graph.node for output in node.output}
    rounded = {o for node in graph.node if node.op_type == "DequantizeLinear" for o in node.output}
    for node in graph.node:
        used = [name for name in node.input if name in rounded]
        if used:
            assert node.op_type == "MatMul", node.name
            assert len(used) == 2, node.name
    for node in graph.node:
        if node.op_type == "MatMul" and not rounded & set(node.input):
            assert {producers[name].op_type for name in node.input} <= {"Mul", "Transpose", "Softmax"}


@pytest.mark.parametrize("calibrator", list(Calibrator))
@pytest.mark.parametrize("flags", [("avx512_vnni",), ("asimd",)])
def test_every_calibrator_takes_texts_of_all_lengths(calibrator, flags, quantized, cosine):
    out = quantized(Int8Static(calibrator=calibrator, examples=17), flags=flags)
    assert read_result(out).fact("coverage", Coverage).coverage_macs == 1.0
    assert cosine(out / "model.onnx") > 0.97


def test_a_tight_percentile_clips_more(quantized, cosine):
    close, far = (
        cosine(
            quantized(Int8Static(calibrator=Calibrator.percentile, percentile=p), out=str(p)) / "model.onnx"
        )
        for p in (99.99, 80.0)
    )
    assert far < close - 0.01


def test_scales_are_those_of_the_calibration_texts(quantized, graphs, checkpoints, splits, tmp_path):
    """min-max, by hand: the range of what the first texts put into the last product."""
    import onnxruntime

    out = quantized(Int8Static(examples=9, embeddings=False), fuse=False)
    model = onnx.load(graphs("bert", False) / "model.onnx")
    name = next(
        node.input[0]
        for node in model.graph.node
        if node.op_type == "MatMul" and "layer.1/output/dense" in node.name
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "probe.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "probe.onnx", providers=["CPUExecutionProvider"])
    low = high = 0.0
    for batch in open_processor(checkpoints["bert"]).batches(splits.calibration.texts[:9], 1):
        (seen,) = session.run([name], batch)
        low, high = min(low, seen.min()), max(high, seen.max())
    graph = onnx.load(out / "model.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.output[0]]
    last = next(
        node
        for node in quantizers
        if any(
            "layer.1/output/dense" in reader.name
            for dq in graph.node
            if dq.input and dq.input[0] == node.output[0]
            for reader in graph.node
            if dq.output[0] in reader.input
        )
    )
    assert constants[last.input[1]] == pytest.approx((high - low) / 255, rel=1e-5)
    assert constants[last.input[2]] == pytest.approx(-low / (high - low) * 255, abs=0.51)


@pytest.mark.parametrize(("flags", "kind"), [(["avx512_vnni"], "uint8"), (["asimd"], "int8")])
def test_activation_type_follows_the_cpu(flags, kind, quantized):
    graph = onnx.load(quantized(Int8Static(examples=5), flags=flags) / "model.onnx").graph
    zeros = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    found = [zeros[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {zero.dtype.name for zero in found} == {kind}
    if kind == "int8":
        assert not np.any(found)


def test_reduced_range_without_exact_products(quantized):
    graph = onnx.load(
        quantized(Int8Static(examples=5, embeddings=False), flags=["avx2"]) / "model.onnx"
    ).graph
    stored = [onnx.numpy_helper.to_array(t) for t in graph.initializer if len(t.dims) == 2]
    integers = [w.astype(int) for w in stored if w.dtype.name == "int8"]
    assert len(integers) == 12
    assert max(abs(w).max() for w in integers) <= 64


def test_twice_the_same_bytes(quantized):
    first, second = (
        hashlib.sha256((quantized(Int8Static(examples=9), out=out) / "model.onnx").read_bytes()).digest()
        for out in "ab"
    )
    assert first == second


def test_what_is_excluded_stays_float_and_is_told(quantized):
    found = read_result(
        quantized(Int8Static(examples=9, exclude=[r"layer\.1/output"], min_coverage=0.5))
    ).fact("coverage", Coverage)
    assert found.coverage_macs == 1 - 2048 / 16384
    assert [s.reason for s in found.skipped if "activations" not in s.reason] == [
        "excluded by quantize.exclude"
    ]


def test_below_the_floor(quantized):
    with pytest.raises(
        GateError, match=r"87\.5% of .*excluded by quantize\.exclude.*\n  allowed: at least 90\.0%"
    ):
        quantized(Int8Static(examples=9, exclude=[r"layer\.1/output"]))


def test_a_pattern_that_matches_nothing(quantized):
    with pytest.raises(ConfigError, match=r"matches no node\n  found:   layer\.7"):
        quantized(Int8Static(exclude=["layer.7"]))


def test_it_keeps_quiet(quantized, capfd):
    quantized(Int8Static(calibrator=Calibrator.entropy, examples=5))
    assert capfd.readouterr().out == ""


def test_the_reader_gives_each_text_once_and_alone(checkpoints, splits):
    reader = FeedReader(open_processor(checkpoints["bert"]), splits.calibration.texts[:6])
    rows = [batch["input_ids"] for batch in iter(reader.get_next, None)]
    assert len(rows) == len(reader) == 6
    assert {len(row) for row in rows} == {1}
    assert not any((row == 1).any() for row in rows)  # no padding
    reader.set_range(2, 3)
    assert [batch["input_ids"].shape[0] for batch in iter(reader.get_next, None)] == [1]

"""Dynamic int8 of the tiny encoders: near, covered, and integer when it runs."""

import hashlib
import logging

import onnx
import pytest

from compress.config.quantize import Int8Dynamic, WeightType
from compress.errors import ConfigError, GateError
from compress.schema.quantization import Coverage
from compress.stages.result import read_result

CASES = [("bert", True), ("bert", False), ("mpnet", True)]  # all others: tests/contract


def weights(path):
    """Initializers that go into integer products."""
    graph = onnx.load(path).graph
    names = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
    return [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name in names]


@pytest.mark.parametrize(("name", "fuse"), CASES)
def test_near_to_float_and_integer_when_it_runs(name, fuse, quantized, cosine, executed):
    out = quantized(Int8Dynamic(), name, fuse)
    found = read_result(out).fact("coverage", Coverage)
    assert found.coverage_macs == 1.0
    assert found.coverage_bytes > 0.7
    assert {skipped.reason for skipped in found.skipped} == {"both inputs are activations"}
    assert cosine(out / "model.onnx", name) > 0.995
    operators = executed(out / "model.onnx")
    assert operators["DynamicQuantizeMatMul"] + operators["MatMulIntegerToFloat"] == 12
    assert sorted(path.name for path in out.iterdir()) == ["model.onnx", "stage.json"]


def test_smaller_with_embeddings(quantized, graphs):
    sizes = [
        (quantized(Int8Dynamic(embeddings=on), out=str(on)) / "model.onnx").stat().st_size
        for on in (True, False)
    ]
    assert sizes[0] < sizes[1] < (graphs() / "model.onnx").stat().st_size


def test_types_follow_the_cpu(quantized):
    exact = weights(quantized(Int8Dynamic(), flags=["avx512_vnni"], out="vnni") / "model.onnx")
    reduced = weights(quantized(Int8Dynamic(), flags=["avx2"], out="avx2") / "model.onnx")
    unsigned = weights(quantized(Int8Dynamic(weight_type=WeightType.uint8), out="uint8") / "model.onnx")
    assert len(exact) == len(reduced) == len(unsigned) == 12
    assert {w.dtype.name for w in (*exact, *reduced)} == {"int8"}
    assert {w.dtype.name for w in unsigned} == {"uint8"}
    assert max(abs(w.astype(int)).max() for w in exact) == 127
    assert max(abs(w.astype(int)).max() for w in reduced) <= 64


def test_twice_the_same_bytes(quantized):
    first, second = (
        hashlib.sha256((quantized(Int8Dynamic(), out=out) / "model.onnx").read_bytes()).digest()
        for out in "ab"
    )
    assert first == second


def test_what_is_excluded_stays_float_and_is_told(quantized, cosine):
    out = quantized(Int8Dynamic(exclude=[r"layer\.1/output"], min_coverage=0.5))
    found = read_result(out).fact("coverage", Coverage)
    assert found.coverage_macs == 1 - 2048 / 16384
    (skipped,) = (s for s in found.skipped if "exclude" in s.reason)
    assert "layer.1/output" in skipped.node
    assert cosine(out / "model.onnx") > 0.995


def test_below_the_floor(quantized):
    with pytest.raises(
        GateError, match=r"87\.5% of .*excluded by quantize\.exclude.*\n  allowed: at least 95\.0%"
    ):
        quantized(Int8Dynamic(exclude=[r"layer\.1/output"]))


def test_a_pattern_that_matches_nothing(quantized):
    with pytest.raises(ConfigError, match=r"matches no node\n  found:   layer\.7\n  allowed: .*MatMul"):
        quantized(Int8Dynamic(exclude=["layer.7"]))


def test_it_keeps_quiet_and_leaves_logging_as_it_was(quantized, capfd, caplog):
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    with caplog.at_level(logging.INFO):
        quantized(Int8Dynamic())
        assert root.level == logging.INFO
    assert (root.level, list(root.handlers)) == before
    assert [record for record in caplog.records if record.name == "root"] == []
    assert capfd.readouterr().out == ""

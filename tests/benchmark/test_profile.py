import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from compress.benchmark import limits, profile
from compress.benchmark.profile import kind_of, load_profiles, multiply_accumulates, operators, profile_model
from compress.config.target import LocalTarget
from compress.errors import BenchmarkError
from compress.judge.explain import explain
from compress.schema.estimates import Estimate, Latency
from compress.schema.report import Variant
from compress.schema.speed import ATTENTION, FLOAT, INTEGER, KINDS, ROUNDING, SUMS, Limits
from compress.targets import open_target

LIMITS = Limits(
    threads=1,
    bandwidth_gb_per_s=10.0,
    float32_gflops=100.0,
    integer_gops={"int8": 400.0, "uint8": 100.0},
    cache_bytes=2**20,
)


def test_attention_counts_the_keys_that_each_token_sees():
    """3 new tokens behind 5: 6 + 7 + 8 keys, twice (scores and values) 16 numbers each."""
    given, made = [(1, 3, 32), (1, 1, 8, 8), (1, 1, 8, 8), (1,), (1,)], [(1, 3, 16), (1, 1, 8, 8)]
    assert multiply_accumulates("GroupQueryAttention", given, made) == 2 * 16 * (6 + 7 + 8)


def node(name, ts, dur, op_type="Add", given=((2, 3),), made=((2, 3),)):
    shapes = [[{"float": list(shape)} for shape in shapes] for shapes in (given, made)]
    args = {"op_name": op_type, "input_type_shape": shapes[0], "output_type_shape": shapes[1]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts, *nodes):
    return [*nodes, {"cat": "Session", "name": "model_run", "ts": ts, "dur": 100}]


def test_times_are_medians_over_the_calls_of_sums_within_a_call():
    events = [{"cat": "Session", "name": "session_initialization", "ts": 1, "dur": 9}]
    for i, micros in enumerate([9000, 1000, 3000, 2000, 7000]):  # the first call is skipped
        ts = 1000 * (i + 1)
        product = node("p", ts + 3, 10, "MatMul", [(1, 128, 32)], [(1, 128, 64)])
        loop = node("l", ts + 4, 10**6, "Loop")
        events += run(ts, node("a", ts + 1, micros), node("b", ts + 2, 500), product, loop)
    (found,) = operators(events, [(1, 4)])
    assert [(each.op_type, each.nodes, each.ms) for each in found] == [("Add", 2, 3.0), ("MatMul", 1, 0.01)]
    assert (found[1].kind, found[1].macs, found[1].weight_bytes) == (FLOAT, 128 * 32 * 64, 4 * 32 * 64)
    first, second = operators(events, [(0, 1), (1, 1)])
    assert (first[0].ms, second[0].ms) == (9.5, 3.5)


def test_nodes_that_another_provider_ran_are_counted_once():
    events = []
    for ts in (1000, 2000):
        ours, theirs = node("a", ts + 1, 5), node("b", ts + 2, 5)
        ours["args"]["provider"], theirs["args"]["provider"] = "X", "CPUExecutionProvider"
        events += run(ts, ours, theirs)
    assert profile.fallback_nodes(events, "X") == 1
    assert profile.fallback_nodes(events, "CPUExecutionProvider") == 1
    assert profile.fallback_nodes(events[:0], "X") == 0


@pytest.mark.parametrize(
    ("op_type", "given", "made", "kind", "macs"),
    [
        ("DynamicQuantizeMatMul", [(2, 5, 8), (3,)], (2, 5, 3), INTEGER, 2 * 5 * 8 * 3),
        ("Gemm", [(5, 8), (3, 8)], (5, 3), FLOAT, 5 * 8 * 3),
        ("MatMul", [(1, 4, 5, 8), (1, 4, 8, 6)], (1, 4, 5, 6), ATTENTION, 4 * 5 * 8 * 6),
        # 2 heads of 4 channels, 5 queries, 6 keys: q k and weights v
        ("Attention", [(1, 5, 8), (1, 6, 8), (1, 6, 8), (1, 1, 5, 6)], (1, 5, 8), ATTENTION, 2 * 5 * 6 * 8),
        ("Attention", [(1, 5, 8), (8, 24), (24,)], (1, 5, 8), ATTENTION, 3 * 5 * 8 * 8 + 2 * 5 * 5 * 8),
        ("QLinearConv", [(1, 3, 9, 9), (), (), (16, 3, 2, 2)], (1, 16, 8, 8), INTEGER, 16 * 64 * 12),
        ("Softmax", [(1, 4, 5, 6)], (1, 4, 5, 6), ATTENTION, 0),
        ("QuantizeLinear", [(2, 5, 8)], (2, 5, 8), ROUNDING, 0),
        ("NoSuchOperator", [()], (), "other", 0),
        ("Add", [], (2,), SUMS, 0),
    ],
)
def test_class_and_products_follow_from_the_shapes(op_type, given, made, kind, macs):
    assert kind_of(op_type, given) == kind
    assert kind in KINDS
    assert multiply_accumulates(op_type, given, [made]) == macs


def test_the_floor_by_hand():
    from compress.schema.speed import Operator, Profile

    def of(kind, macs, size=0):
        return Operator(op_type="x", kind=kind, nodes=1, ms=1.0, macs=macs, weight_bytes=size)

    # 2e9 operations at 400 G a second, 0.2e9 at 100 G; 1 MB stays in the cache, 200 MB at 10 GB/s do not
    small = limits.floor(Profile(operators=(of(INTEGER, 10**9), of(ATTENTION, 10**8, 10**6))), LIMITS)
    assert (small.memory_ms, small.integer_ms, small.float_ms, small.ms) == pytest.approx((0, 5, 2, 7))
    large = limits.floor(Profile(operators=(of(FLOAT, 10**8, 2 * 10**8),)), LIMITS)
    assert (large.memory_ms, large.integer_ms, large.float_ms, large.ms) == pytest.approx((20, 0, 2, 20))


def test_calibration_measures_what_numpy_measures(monkeypatch):
    import time

    target = open_target(LocalTarget(threads=1))
    monkeypatch.setitem(target.facts(), "cache_bytes", 2**22)
    found = limits.calibrate(target)
    assert (found.threads, found.cache_bytes) == (1, 2**22)
    x, w = np.ones((512, 1024), np.float32), np.ones((1024, 1024), np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        x @ w
        times.append(time.perf_counter() - start)
    rate = 2 * 512 * 1024 * 1024 / min(times) / 1e9
    # the machine is shared while tests run: this finds wrong units and wrong counts, no more
    assert rate / 20 < found.float32_gflops < rate * 20
    assert 0.05 < found.node_us < 500
    assert 0.1 < found.bandwidth_gb_per_s < 1000
    assert all(1 < each < 10**5 for each in found.integer_gops.values())


# ---- through onnxruntime


def residual(path, adds, width=512, rounded=False):
    """A product with a weight, then `adds` additions of the input; `rounded`: to 8 bits after each."""
    weight = np.random.default_rng(0).standard_normal((width, width)).astype(np.float32) / width**0.5
    constants = {"w": weight, "scale": np.float32(0.1), "zero": np.uint8(128)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0"], "product")]
    for i in range(adds):
        nodes.append(helper.make_node("Add", [f"y{i}", "x"], [f"sum{i}" if rounded else f"y{i + 1}"]))
        if rounded:
            nodes.append(helper.make_node("QuantizeLinear", [f"sum{i}", "scale", "zero"], [f"q{i}"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"y{i + 1}"]))
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", f"y{adds}")
    )
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(profile, "SECONDS", 0.05)
    monkeypatch.setattr(profile, "WARMUP_SECONDS", 0.05)


def profiled(path, feeds):
    profile_model(open_target(LocalTarget(threads=1)), path.stem, path, {"w": feeds}, path.parent)
    return load_profiles(path.parent)


def named(name, found, ratio):
    p50 = sum(each.ms for each in found.operators)
    return Variant(
        **{
            "name": name,
            "stage": "s",
            "path": "p",
            "sha256": "0",
            "size_bytes": 1,
            "parameters": 1,
            "macs": None,
        },
        profile={"w": found},
        latency_ms={"w": Latency(p50=p50, p90=p50, p99=p50, ci95=(p50, p50), samples=1)},
        speedup={"w": Estimate(value=ratio, ci95=(ratio, ratio))},
    )


def test_rounding_around_every_addition_is_found(tmp_path, quick):
    """As a static quantizer leaves it that takes every Add but not what the sums meet there."""
    feeds = {"x": np.random.default_rng(1).standard_normal((64, 512)).astype(np.float32)}
    dense = residual(tmp_path / "dense.onnx", 12)
    small = residual(tmp_path / "int8.onnx", 12, rounded=True)
    profiles = {name: profiled(path, feeds) for name, path in (("dense", dense), ("int8", small))}
    before, after = profiles["dense"]["w"], profiles["int8"]["w"]
    assert {each.kind for each in before.operators if each.macs} == {FLOAT}
    assert sum(each.macs for each in before.operators) == 64 * 512 * 512
    assert {each.op_type: each.nodes for each in after.operators if each.kind == ROUNDING} == {
        "QuantizeLinear": 12,
        "DequantizeLinear": 12,
    }
    why = explain(named("dense", before, 1.0), named("int8", after, 0.5), "w", LIMITS, ("avx512_vnni",))
    assert any(each.startswith("rounding to integers and back takes") for each in why)


def test_unsigned_weights_are_found(tmp_path, quick):
    feeds = {"x": np.ones((64, 512), np.float32)}
    dense, small = residual(tmp_path / "dense.onnx", 0), tmp_path / "int8.onnx"
    quantize_dynamic(dense, small, weight_type=QuantType.QUInt8)
    profiles = {name: profiled(path, feeds) for name, path in (("dense", dense), ("int8", small))}
    after = profiles["int8"]["w"]
    assert (profiles["dense"]["w"].weight_types, after.weight_types) == ((), ("uint8",))
    assert [each.macs for each in after.operators if each.kind == INTEGER] == [64 * 512 * 512]
    why = explain(
        named("dense", profiles["dense"]["w"], 1.0), named("int8", after, 0.5), "w", LIMITS, ("amx_int8",)
    )
    assert any(each.startswith("the weights are uint8") for each in why)


def test_errors_name_the_model(tmp_path, quick):
    (tmp_path / "b.onnx").write_bytes(b"no model")
    with pytest.raises(BenchmarkError, match="model 'b'"):
        profiled(tmp_path / "b.onnx", {"x": np.ones(1)})
    with pytest.raises(BenchmarkError, match=r"cannot read .*profile\.json"):
        load_profiles(tmp_path)
    (tmp_path / "profile.json").write_text(json.dumps({"w": None}))
    with pytest.raises(BenchmarkError, match=r"cannot read .*profile\.json"):
        load_profiles(tmp_path)


def test_limits_come_back_as_they_were_saved(tmp_path):
    limits.save_limits(LIMITS, tmp_path)
    assert limits.load_limits(tmp_path) == LIMITS
    (tmp_path / "limits.json").write_text("{}")
    with pytest.raises(BenchmarkError, match=r"cannot read .*limits\.json"):
        limits.load_limits(tmp_path)

"""Language models in the benchmark: prefill and decode, the cache extended in place."""

import os

import numpy as np
import onnx
import pytest

from compress.benchmark import caches, timing
from compress.benchmark.profile import block_bytes, load_profiles, profile_model
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import LocalTarget
from compress.graph.gates import check_operators
from compress.runner.attention import SWITCH
from compress.runner.with_onnxruntime import OnnxruntimeModel
from compress.targets import open_target

SHARED = {f"past_key_values.0.{kind}": f"present.0.{kind}" for kind in ("key", "value")}


@pytest.fixture
def model(tmp_path, tiny_lm):
    return tiny_lm.write(tmp_path / "model.onnx")


def test_which_memory_is_shared_is_read_from_the_graph(model, make_chain, tmp_path):
    assert caches.shared_cache(model) == SHARED
    assert caches.shared_cache(make_chain(tmp_path / "a.onnx", 8, 1)) == {}
    graph = onnx.load(model)
    graph.graph.node[-3].op_type = "Attention"  # whatever it computes: no operator that extends a cache
    onnx.save(graph, tmp_path / "plain.onnx")
    assert caches.shared_cache(tmp_path / "plain.onnx") == {}


def test_sizes(tiny_lm):
    prompt, step = (tiny_lm.feeds(np.ones(shape), past) for shape, past in (((2, 65), 0), ((3, 1), 64)))
    assert [caches.capacity(each) for each in (prompt, step)] == [128, 128]
    assert caches.capacity(tiny_lm.feeds(np.ones((1, 1)), 63)) == 64
    assert [caches.items(each) for each in (prompt, step)] == [130, 3]
    assert caches.scores({"prompts": prompt, "steps": step, "x": {"x": prompt["input_ids"]}}) == {
        "prompts": 2 * 65 * 128,
        "steps": 3 * 1 * 128,
    }
    assert caches.items({"x": np.ones((7, 3))}) == 7
    assert caches.is_language_model(step)
    assert not caches.is_language_model({"input_ids": 0})


def test_every_call_writes_behind_the_same_old_tokens(model, tiny_lm, tmp_path):
    """Old keys and values are given, so the logits must be those of the whole text, in every call."""
    ids = np.arange(2, 9)
    key, value = (tiny_lm.embedding[ids[:6]] @ each for each in tiny_lm.projections[1:])
    feeds = tiny_lm.feeds(ids[None, 6:], past=6)
    feeds |= {"past_key_values.0.key": key[None, None], "past_key_values.0.value": value[None, None]}
    np.savez(tmp_path / "step.npz", **feeds)
    request = {"path": str(model), "workloads": {"w": str(tmp_path / "step.npz")}, "threads": 1}
    timed = OnnxruntimeModel({**request, "caches": SHARED, "capacity": {"w": 64}, "scores": {"w": 64}})
    timed.first_run("w")
    assert os.environ[SWITCH] == timed.facts[SWITCH] == "1"
    assert len(timed.calls("w", 3)) == 3
    [binding] = timed.steps["w"][0].args
    logits = binding.copy_outputs_to_cpu()[-1]
    np.testing.assert_allclose(logits[0, 0], tiny_lm.logits(ids)[-1], rtol=1e-4, atol=1e-4)
    buffer = timed.feeds["w"][0][
        "past_key_values.0.key"
    ]  # the new key lies behind the old ones, nothing else
    assert buffer.shape == (1, 1, 64, 8)
    np.testing.assert_array_equal(buffer[0, 0, :6], key)
    np.testing.assert_allclose(
        buffer[0, 0, 6], tiny_lm.embedding[ids[6]] @ tiny_lm.projections[1], rtol=1e-5, atol=1e-5
    )
    assert not buffer[0, 0, 7:].any()


def test_tokens_a_second_of_prefill_and_decode(model, tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0.05)
    monkeypatch.setattr(timing, "BLOCK_MS", 1.0)
    workloads = {"1x20": tiny_lm.feeds(np.ones((1, 20))), "2x1+20": tiny_lm.feeds(np.ones((2, 1)), 20)}
    target = open_target(LocalTarget(threads=1))
    speed = timing.time_models(target, BenchmarkConfig(max_seconds=1.0), {"a": model}, workloads, tmp_path)
    assert speed.tokens == {"1x20": 20, "2x1+20": 2}
    for name, tokens in speed.tokens.items():
        p50 = speed.latency_ms["a"][name].p50
        assert speed.throughput_per_second["a"][name] == pytest.approx(1e3 * tokens / p50)


def test_the_profile_of_a_step(model, tiny_lm, tmp_path):
    check_operators(onnx.load(model, load_external_data=False))
    (tmp_path / "out").mkdir()
    profile_model(
        open_target(LocalTarget(threads=1)),
        "a",
        model,
        {"1x1+20": tiny_lm.feeds(np.ones((1, 1)), 20)},
        tmp_path / "out",
    )
    found = {each.op_type: each for each in load_profiles(tmp_path / "out")["1x1+20"].operators}
    products = 16 * (16 + 8 + 8 + len(tiny_lm.embedding))
    assert found["MatMul"].macs == products
    assert found["MatMul"].weight_bytes == 4 * products
    assert found["GroupQueryAttention"].macs == 2 * 16 * 64  # every key that the buffer has room for


def test_weights_in_blocks_count_their_scales_too(tmp_path):
    """64 x 3 weights of 4 bits in blocks of 32: 96 bytes, 6 scales of 4 bytes, 3 bytes of zero points."""
    arrays = {
        "w": np.zeros((3, 2, 16), np.uint8),
        "scales": np.ones((3, 2), np.float32),
        "zero": np.full(3, 0x88, np.uint8),
    }
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", *arrays], ["y"], "n", domain="com.microsoft", K=64, N=3, bits=4, block_size=32
    )
    same = onnx.helper.make_node("Identity", ["stored"], ["w"])
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, size])
        for name, size in (("x", 64), ("y", 3))
    ]
    names = {"w": "stored"}
    weights = [onnx.numpy_helper.from_array(each, names.get(name, name)) for name, each in arrays.items()]
    graph = onnx.helper.make_graph([same, node], "g", values[:1], values[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    assert block_bytes(onnx.load(path).graph) == {"n": 96 + 24 + 3}
    (tmp_path / "out").mkdir()
    feeds = {"w": {"x": np.ones((2, 64), np.float32)}}
    profile_model(open_target(LocalTarget(threads=1)), "a", path, feeds, tmp_path / "out")
    [product] = load_profiles(tmp_path / "out")["w"].operators
    assert (product.op_type, product.macs, product.weight_bytes) == ("MatMulNBits", 2 * 64 * 3, 123)

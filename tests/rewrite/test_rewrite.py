"""Every rewriting gives in onnxruntime what the graph gave before, for shapes, masks, weights at random."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings, strategies
from onnx import TensorProto, helper, numpy_helper

from compress.benchmark.agreement import WHOLE, difference
from compress.config.target import Rewrite
from compress.graph.session import open_session
from compress.rewrite import INEXACT, REWRITES, Rewriting, can_be_rewritten, rewrite, rewritten
from compress.stages.result import read_result, write_result

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
SHAPES = {"batch": strategies.integers(1, 3), "tokens": strategies.integers(1, 5)}
seeds = strategies.integers(0, 2**31)


def model(nodes, inputs, initializers):
    """Inputs: name -> (type, shape with names for open axes)."""
    rank = 2 if "ids" in inputs else len(next(iter(inputs.values()))[1])  # of what it gives
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info("out", FLOAT, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def run(made, feeds):
    return open_session(made.SerializeToString()).run(None, feeds)[0]


def both(made, which, feeds, expected=1):
    """What the graph gives, and what it gives rewritten."""
    before = run(made, feeds)
    assert REWRITES[which](made) == expected
    onnx.checker.check_model(made)
    return before, run(made, feeds)


def ops(made):
    return [node.op_type for node in made.graph.node]


@settings(max_examples=25, deadline=None)
@given(
    **SHAPES,
    seed=seeds,
    heads=strategies.sampled_from([0, 1, 4]),
    mask=strategies.sampled_from([None, BOOL, FLOAT]),
)
def test_attention(batch, tokens, seed, heads, mask):
    random, size = np.random.default_rng(seed), 8
    shape = (batch, tokens, heads * size) if heads else (batch, 2, tokens, size)
    names = ["q", "k", "v", *(["mask"] if mask else [])]
    inputs = {name: (FLOAT, [None] * len(shape)) for name in "qkv"}
    feeds = {name: random.normal(size=shape).astype(np.float32) for name in "qkv"}
    if mask:
        inputs["mask"] = (mask, [None] * 4)
        seen = random.random((batch, 1, tokens, tokens)) < 0.6
        seen[..., 0] |= ~seen.any(-1)  # what sees nothing has no answer to compare
        feeds["mask"] = seen if mask == BOOL else np.where(seen, 0, -5).astype(np.float32)
    with_heads = {"q_num_heads": heads, "kv_num_heads": heads} if heads else {}
    node = helper.make_node("Attention", names, ["out"], scale=0.3, **with_heads)
    made = model([node], inputs, {})
    before, after = both(made, Rewrite.plain_attention, feeds)
    assert "Attention" not in ops(made)
    assert WHOLE["f32"].holds(difference(before, after))


@pytest.mark.parametrize(
    "more",
    [{"is_causal": 1}, {"softcap": 2.0}, {"kv_num_heads": 2}, {"scale": None}, {"softmax_precision": 1}],
)
def test_attention_that_does_more_stays(more):
    has = {"q_num_heads": 4, "kv_num_heads": 4, "scale": 0.3, **more}
    node = helper.make_node("Attention", [*"qkv"], ["out"], **{k: v for k, v in has.items() if v is not None})
    made = model([node], {name: (FLOAT, [None] * 3) for name in "qkv"}, {})
    assert REWRITES[Rewrite.plain_attention](made) == 0
    assert ops(made) == ["Attention"]


@settings(max_examples=25, deadline=None)
@given(**SHAPES, seed=seeds, size=strategies.sampled_from([1, 7, 32]), bias=strategies.booleans())
def test_norms(batch, tokens, seed, size, bias):
    random = np.random.default_rng(seed)
    constants = {"w": random.normal(size=size).astype(np.float32)}
    if bias:
        constants["b"] = random.normal(size=size).astype(np.float32)
    node = helper.make_node("LayerNormalization", ["x", *constants], ["out"], axis=-1, epsilon=1e-3)
    x = (10 * random.normal(size=(batch, tokens, size)) + 3).astype(np.float32)
    made = model([node], {"x": (FLOAT, [None, None, size])}, constants)
    before, after = both(made, Rewrite.plain_norms, {"x": x})
    assert "LayerNormalization" not in ops(made)
    assert WHOLE["f32"].holds(difference(before, after))


def test_a_norm_over_two_axes_stays():
    node = helper.make_node("LayerNormalization", ["x", "w"], ["out"], axis=1)
    made = model([node], {"x": (FLOAT, [None, 2, 3])}, {"w": np.ones((2, 3), np.float32)})
    assert REWRITES[Rewrite.plain_norms](made) == 0


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_gelu_by_tanh_is_within_5e_4(seed):
    x = np.random.default_rng(seed).uniform(-8, 8, (1, 1000)).astype(np.float32)
    made = model([helper.make_node("Gelu", ["x"], ["out"])], {"x": (FLOAT, [None, None])}, {})
    before, after = both(made, Rewrite.gelu_tanh, {"x": x})
    assert 1e-6 < np.abs(before - after).max() < 5e-4
    assert REWRITES[Rewrite.gelu_tanh](made) == 0
    assert {Rewrite.gelu_tanh} == INEXACT


def dynamic(weights, zero):
    """x -> its integers times those of `weights`, as `quantize_dynamic` writes it."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "scale", "a_zero"]),
        helper.make_node(
            "MatMulInteger", ["a", "w", "a_zero", *(["w_zero"] if zero is not None else [])], ["i"]
        ),
        helper.make_node("Cast", ["i"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["out"]),
    ]
    return model(
        nodes,
        {"x": (FLOAT, [None, weights.shape[0]])},
        {"w": weights} | ({} if zero is None else {"w_zero": zero}),
    )


def static(weights, zero):
    """The same in QDQ format, a scale a column."""
    columns = weights.shape[1]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "a_zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "a_zero"], ["xq"]),
        helper.make_node(
            "DequantizeLinear", ["w", "ws", *(["w_zero"] if zero is not None else [])], ["wq"], axis=1
        ),
        helper.make_node("MatMul", ["xq", "wq"], ["out"]),
    ]
    constants = {
        "s": np.array(0.05, np.float32), "a_zero": np.array(128, np.uint8), "w": weights,
        "ws": np.linspace(0.01, 0.02, columns).astype(np.float32),
    }  # fmt: skip
    if zero is not None:
        constants["w_zero"] = np.full(columns, zero)
    return model(nodes, {"x": (FLOAT, [None, weights.shape[0]])}, constants)


@settings(max_examples=25, deadline=None)
@given(
    seed=seeds,
    rows=strategies.integers(1, 40),
    columns=strategies.integers(1, 20),
    zero=strategies.sampled_from([None, 0, 3]),
    made_by=strategies.sampled_from([dynamic, static]),
)
def test_weights_signed_or_not_are_the_same_to_the_bit(seed, rows, columns, zero, made_by):
    random = np.random.default_rng(seed)
    weights = random.integers(-64, 64, (rows, columns)).astype(np.int8)  # no kernel saturates
    made = made_by(weights, None if zero is None else np.array(zero, np.int8))
    x = random.normal(size=(3, rows)).astype(np.float32)
    before, after = both(made, Rewrite.unsigned_weights, {"x": x})
    shifted = [t for t in made.graph.initializer if t.data_type == TensorProto.UINT8 and len(t.dims) == 2]
    np.testing.assert_array_equal(numpy_helper.to_array(shifted[0]), weights.astype(int) + 128)
    np.testing.assert_array_equal(before, after)
    again, back = both(made, Rewrite.signed_weights, {"x": x})
    np.testing.assert_array_equal(again, back)
    signed = [t for t in made.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 2]
    np.testing.assert_array_equal(numpy_helper.to_array(signed[0]), weights)


def test_weights_that_an_embedding_reads_too_stay():
    weights = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wq"]),
        helper.make_node("Gather", ["wq", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "wq"], ["out"]),
    ]
    made = model(nodes, {"ids": (TensorProto.INT64, [None])}, {"w": weights, "s": np.array(0.1, np.float32)})
    assert REWRITES[Rewrite.unsigned_weights](made) == 0


@pytest.mark.parametrize("which", list(REWRITES))
def test_an_encoder_in_integers(which, quantized, tmp_path):
    """The stage: facts and gates of the variant stay, what ships does, and how many nodes it says."""
    from compress.config.quantize import Int8Dynamic, WeightType

    of_type = WeightType.uint8 if which is Rewrite.signed_weights else WeightType.int8
    small = quantized(Int8Dynamic(weight_type=of_type))
    write_result(small, facts={"coverage": {"coverage_macs": 1.0, "coverage_bytes": 0.9}})
    (tmp_path / "out").mkdir()
    assert can_be_rewritten(small)
    rewrite(Rewriting((which,)), small, tmp_path / "out")
    before, after = read_result(small), read_result(tmp_path / "out")
    assert after.facts["coverage"] == before.facts["coverage"]
    assert (after.gates, after.ships) == (before.gates, before.ships)
    counts = {Rewrite.gelu_tanh: 2, Rewrite.plain_norms: 5, Rewrite.plain_attention: 2}
    assert rewritten(tmp_path / "out") == counts.get(which, 12)

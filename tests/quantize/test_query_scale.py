"""The factor of attention in the weights of the queries: the same scores, keys that stay."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.graph.session import open_session
from compress.graph.surgery import attributes
from compress.graph.weights import Weights
from compress.quantize.blocks import in_blocks, pack
from compress.quantize.query_scale import scale_queries

WIDTH, HEADS, KV, TOKENS, PAST = 32, 3, 1, 5, 7


def graph(size: int, norms: bool = False) -> onnx.ModelProto:
    """Tokens (1, tokens, WIDTH) -> a packed product in 8-bit blocks -> attention with a cache."""
    rows = (HEADS + 2 * KV) * size
    blocks = in_blocks(torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(0)), 8, WIDTH)
    names = ["codes", "scales", "zeros"]
    constants = [
        numpy_helper.from_array(value, name) for name, value in zip(names, pack(blocks), strict=True)
    ]
    product = helper.make_node(
        "MatMulNBits",
        ["x", *names],
        ["qkv"],
        domain="com.microsoft",
        K=WIDTH,
        N=rows,
        bits=8,
        block_size=WIDTH,
        accuracy_level=0,
    )
    extra = [""] * 7 + ["norm", "norm"] if norms else []
    if norms:
        constants.append(numpy_helper.from_array(np.ones(size, np.float32), "norm"))
    attention = helper.make_node(
        "GroupQueryAttention",
        ["qkv", "", "", "past_k", "past_v", "last", "total", *extra],
        ["y", "k", "v"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV,
        scale=size**-0.5,
    )

    def value(name, shape, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, shape)

    cache = [1, KV, None, size]
    inputs = [value("x", [1, None, WIDTH]), value("past_k", cache), value("past_v", cache)]
    inputs += [value("last", [1], TensorProto.INT32), value("total", [], TensorProto.INT32)]
    outputs = [value("y", [1, None, HEADS * size]), value("k", cache), value("v", cache)]
    made = helper.make_graph([product, attention], "g", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def computed(model: onnx.ModelProto, size: int, tokens: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    cache = [rng.normal(size=(1, KV, PAST, size)).astype(np.float32) for _ in range(2)]
    feeds = {
        "x": rng.normal(size=(1, tokens, WIDTH)).astype(np.float32),
        "past_k": cache[0],
        "past_v": cache[1],
        "last": np.array([PAST + tokens - 1], np.int32),
        "total": np.array(PAST + tokens, np.int32),
    }
    return open_session(model.SerializeToString()).run(None, feeds)


@pytest.mark.parametrize("tokens", [1, TOKENS])
@pytest.mark.parametrize("size", [64, 32])  # 1 / 8, and no power of two
def test_attention_computes_the_same_and_keys_stay(size, tokens):
    model = graph(size)
    before = computed(model, size, tokens)
    assert scale_queries(model.graph, Weights(model.graph, "/scaled")) == 1
    assert attributes(model.graph.node[1])["scale"] == 1.0
    after = computed(model, size, tokens)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-5, atol=2e-5)
    for old, new in zip(before[1:], after[1:], strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("size", [64])
def test_the_scaled_queries_give_what_numpy_gives(size):
    model = graph(size)
    scale_queries(model.graph, Weights(model.graph, "/scaled"))
    plain = graph(size)  # weights of before
    codes, scales, zeros = (numpy_helper.to_array(each) for each in plain.graph.initializer)
    weight = (codes[:, 0].astype(np.float64) - zeros) * scales
    rng = np.random.default_rng(1)
    keys, values = (rng.normal(size=(PAST, size)).astype(np.float32) for _ in range(2))
    x = rng.normal(size=(1, 1, WIDTH)).astype(np.float32)
    q, k, v = np.split(x[0, 0] @ weight.T, [HEADS * size, (HEADS + 1) * size])
    scores = q.reshape(HEADS, size) @ np.vstack([keys, k]).T / np.sqrt(size)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    wanted = shares / shares.sum(1, keepdims=True) @ np.vstack([values, v])
    np.testing.assert_allclose(computed(model, size, 1)[0].reshape(HEADS, size), wanted, atol=1e-5)


def test_normed_queries_are_left_alone():
    model = graph(64, norms=True)
    assert scale_queries(model.graph, Weights(model.graph, "/scaled")) == 0
    assert attributes(model.graph.node[1])["scale"] == 0.125

"""Blocks as onnxruntime's MatMulNBits and GatherBlockQuantized read them."""

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compress.quantize.blocks import Blocks, block_bytes, block_grid, in_blocks, pack, rounded, stacked

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 70), st.sampled_from([4, 8]), st.sampled_from([16, 32]))


def made(shape, seed=0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32)) * scale


def run(node, inputs, weights, shape):
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def unpack(
    codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray, bits: int, size: int, columns: int
) -> Blocks:
    rows, count = scales.shape

    def split(packed: np.ndarray) -> np.ndarray:
        return packed if bits == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)

    return Blocks(
        codes=torch.from_numpy(split(codes.reshape(rows, -1))[:, : count * size].copy()),
        scales=torch.from_numpy(scales),
        zeros=torch.from_numpy(split(zeros)[:, :count].copy()),
        bits=bits,
        size=size,
        columns=columns,
    )


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 99))
def test_packing_is_undone_by_unpacking(shape, seed):
    rows, columns, bits, size = shape
    blocks = in_blocks(made((rows, columns), seed), bits, size)
    packed = pack(blocks)
    again = unpack(*packed, bits, size, columns)
    for name in ("codes", "scales", "zeros"):
        assert torch.equal(getattr(blocks, name), getattr(again, name))
    assert sum(part.nbytes for part in packed) == block_bytes(rows, columns, bits, size)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 99))
def test_onnxruntime_multiplies_by_the_same_weights(shape, seed):
    rows, columns, bits, size = shape
    blocks = in_blocks(made((rows, columns), seed), bits, size)
    x = made((3, columns), seed + 1).numpy()
    codes, scales, zeros = pack(blocks)
    node = helper.make_node(
        "MatMulNBits", ["x", "b", "s", "z"], ["y"], domain="com.microsoft",
        K=columns, N=rows, bits=bits, block_size=size,
    )  # fmt: skip
    found = run(node, {"x": x}, {"b": codes, "s": scales, "z": zeros}, [3, rows])
    np.testing.assert_allclose(found, x @ blocks.weight().numpy().T, atol=2e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_onnxruntime_looks_up_the_same_rows(bits):
    blocks = in_blocks(made((7, 96)), bits, 32)  # three blocks: an odd number of 4-bit zero points
    codes, scales, zeros = pack(blocks)
    weights = {"b": codes.reshape(7, -1), "s": scales, "z": zeros}
    node = helper.make_node(
        "GatherBlockQuantized", ["b", "i", "s", "z"], ["y"], domain="com.microsoft",
        bits=bits, block_size=32, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    found = run(node, {"i": np.array([[6, 0, 3]])}, weights, [1, 3, 96])
    np.testing.assert_array_equal(found[0], blocks.weight().numpy()[[6, 0, 3]])


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 99), st.floats(1e-3, 1e3))
def test_without_a_clip_the_error_is_half_a_step_at_most(shape, seed, scale):
    rows, columns, bits, size = shape
    weight = made((rows, columns), seed, scale)
    blocks = in_blocks(weight, bits, size)
    steps = blocks.scales.repeat_interleave(size, 1)[:, :columns]
    # the zero point is rounded too: the ends of the range may lie another half step outside
    assert bool(((blocks.weight() - weight).abs() <= steps * 1.001).all())


def test_grid_by_hand():
    """-1 to 2 in 15 steps of 0.2: zero is code 5."""
    scale, zero = block_grid(torch.tensor([[-1.0, 0.5, 2.0, 0.0]]), 4)
    assert scale.item() == pytest.approx(0.2)
    assert zero.item() == 5
    blocks = in_blocks(torch.tensor([[-1.0, 0.5, 2.0, 0.0] * 4]), 4, 16)
    assert blocks.codes[0, :4].tolist() == [0, 8, 15, 5]  # 0.5 / 0.2 = 2.5 goes to the even 2 or up by float


def test_a_clip_has_no_larger_error_than_without_and_weighs_it():
    weight, importance = made((64, 64)) ** 3, torch.rand(64) ** 4
    plain, mse = (in_blocks(weight, 4, 32, clip).weight() for clip in (False, True))
    weighted = in_blocks(weight, 4, 32, True, importance).weight()

    def error(found, by=1.0):
        return float(((found - weight).square() * by).sum())

    assert error(mse) < error(plain)
    assert error(weighted, importance) < error(mse, importance)
    assert error(mse) < error(weighted)


def test_a_block_of_zeros_stays_zero():
    assert not in_blocks(torch.zeros(2, 32), 4, 32, clip=True).weight().any()


def test_stacked_matrices_are_one():
    one, two = made((3, 32)), made((5, 32), 1)
    whole = stacked([in_blocks(one, 4, 16), in_blocks(two, 4, 16)])
    assert torch.equal(whole.weight(), in_blocks(torch.cat([one, two]), 4, 16).weight())


@pytest.mark.parametrize("bits", [4, 8])
def test_a_few_rows_at_a_time_are_all_of_them(bits, monkeypatch):
    weight, importance = made((5, 40)), torch.rand(40)
    whole = in_blocks(weight, bits, 16, True, importance)
    monkeypatch.setattr("compress.quantize.blocks._ROWS", 2)
    parts = in_blocks(weight, bits, 16, True, importance)
    assert torch.equal(parts.codes, whole.codes)
    assert torch.equal(parts.weight(), whole.weight())


def test_rounding_a_rounded_weight_changes_nothing():
    weight = made((4, 32))
    scale, zero = block_grid(weight, 4)
    once = rounded(weight, scale, zero, 4)
    assert torch.equal(rounded(once, scale, zero, 4), once)

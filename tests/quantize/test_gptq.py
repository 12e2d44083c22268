"""GPTQ beside the method written down naively: one column at a time, the inverse computed anew."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.config import Clip
from compress.quantize.blocks import in_blocks
from compress.quantize.gptq import gptq


def inputs(columns, seed, tokens=400):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(columns, columns)) * rng.uniform(0.1, 2, columns)
    return torch.from_numpy(rng.normal(size=(tokens, columns)) @ mixing).float()


def moment(x):
    return x.T @ x / len(x)


def naive(weight, h, size, damp=0.01):
    """Optimal brain quantization in the order of the columns; every step inverts what is left of H."""
    w, h = weight.double().numpy().copy(), h.double().numpy()
    h = h + damp * np.diag(h).mean() * np.eye(len(h))
    result = np.zeros_like(w)
    for i in range(w.shape[1]):
        if i % size == 0:
            block = w[:, i : i + size].astype(np.float32)
            low, high = np.minimum(block.min(1), 0), np.maximum(block.max(1), 0)
            scale = (high - low) / 15
            zero = np.round(-low / scale)
        code = np.clip(np.round(w[:, i] / scale + zero), 0, 15)
        result[:, i] = (code - zero) * scale
        inverse = np.linalg.inv(h[i:, i:])
        w[:, i:] -= np.outer((w[:, i] - result[:, i]) / inverse[0, 0], inverse[0])
    return result


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(48, 16), (160, 32)]))
def test_it_is_what_the_naive_method_gives(seed, shape):
    columns, size = shape  # 160: more than one lazy batch
    x = inputs(columns, seed)
    weight = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(6, columns))).float()
    found = gptq(weight, moment(x), 4, size, Clip.none).weight().numpy()
    expected = naive(weight, moment(x), size)
    # a code on the edge may fall to the other side in float32, and the columns after it follow
    assert np.mean(np.abs(found - expected) < 1e-4) > 0.9

    def error(result):
        return float((x @ torch.from_numpy(result - weight.numpy()).float().T).square().sum())

    assert error(found) == pytest.approx(error(expected), rel=0.1)


@pytest.mark.parametrize("clip", list(Clip))
def test_outputs_are_nearer_than_by_rounding_to_nearest(clip):
    x, weight = inputs(128, 3), torch.randn(32, 128, generator=torch.Generator().manual_seed(0))
    found = gptq(weight, moment(x), 4, 32, clip).weight()
    nearest = in_blocks(weight, 4, 32).weight()
    assert (x @ (found - weight).T).norm() < 0.8 * (x @ (nearest - weight).T).norm()


def test_uncorrelated_inputs_leave_nothing_to_make_up_for():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    found = gptq(weight, torch.eye(64) * 3, 4, 32, Clip.none)
    assert torch.equal(found.codes, in_blocks(weight, 4, 32).codes)


def test_an_input_that_is_always_zero_does_no_harm():
    x = inputs(64, 5)
    x[:, 7] = 0
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    found = gptq(weight, moment(x), 4, 32).weight()
    assert torch.isfinite(found).all()


def test_columns_are_filled_up_to_whole_blocks():
    x, weight = inputs(40, 6), torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
    found = gptq(weight, moment(x), 4, 32)
    assert found.codes.shape == (4, 64)
    assert found.weight().shape == (4, 40)
    assert (found.weight() - weight).abs().max() < 2

"""GPTQ beside the method written down naively: one column at a time, the inverse computed anew."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.config.quantize import Clip
from compress.quantize.blocks import in_blocks
from compress.quantize.gptq import gptq


def inputs(columns, seed, tokens=400):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(columns, columns)) * rng.uniform(0.1, 2, columns)
    return torch.from_numpy(rng.normal(size=(tokens, columns)) @ mixing).float()


def moment(x):
    return x.T @ x / len(x)


def naive(weight, h, size, damp=0.01):
    """Optimal brain quantization, largest inputs first; every step inverts what is left of H."""
    w, h = weight.double().numpy().copy(), h.double().numpy()
    h = h + damp * np.diag(h).mean() * np.eye(len(h))
    blocks = weight.numpy().reshape(len(w), -1, size)
    low, high = np.minimum(blocks.min(2), 0), np.maximum(blocks.max(2), 0)
    scales = (high - low) / 15
    zeros = np.round(-low / scales)
    result = np.zeros_like(w)
    left = list(np.argsort(-np.diag(h), kind="stable"))
    while left:
        i = left[0]
        scale, zero = scales[:, i // size], zeros[:, i // size]
        code = np.clip(np.round(w[:, i] / scale + zero), 0, 15)
        result[:, i] = (code - zero) * scale
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        w[:, left] -= np.outer((w[:, i] - result[:, i]) / inverse[0, 0], inverse[0])
        left = left[1:]
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

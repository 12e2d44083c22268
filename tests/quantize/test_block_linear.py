"""Linear layers whose scales learn: by hand, and against autograd through stock torch."""

import pytest
import torch

from compress.quantize.block_linear import BlockLinear, Gain
from compress.quantize.blocks import Blocks, in_blocks


@pytest.fixture
def by_hand():
    """Steps 1, -2 at a scale of 0.5 and 3, 0 at one of 2."""
    return Blocks(
        codes=torch.tensor([[8, 5, 10, 7]], dtype=torch.uint8),
        scales=torch.tensor([[0.5, 2.0]]),
        zeros=torch.tensor([[7, 7]], dtype=torch.uint8),
        bits=4,
        size=2,
        columns=4,
    )


def test_outputs_and_gradients_by_hand(by_hand):
    layer, x = BlockLinear(by_hand, torch.tensor([0.25])), torch.tensor([[1.0, 2, 3, 4]], requires_grad=True)
    y = layer(x)
    y.backward()
    assert y.item() == 0.5 * (1 - 4) + 2 * 9 + 0.25
    assert layer.shares.grad.tolist() == [[-1.5, 18.0]]  # each scale times its block's share of the product
    assert x.grad.tolist() == [[0.5, -1.0, 6.0, 0.0]]


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_are_autograds(bits):
    torch.manual_seed(0)
    blocks = in_blocks(torch.randn(6, 64), bits, 16)
    layer, x = BlockLinear(blocks, None), torch.randn(2, 5, 64, requires_grad=True)
    scales = blocks.scales.clone().requires_grad_()
    steps = blocks.codes.view(6, 4, 16).float() - blocks.zeros[..., None].float()
    expected = torch.nn.functional.linear(x, (steps * scales[..., None]).flatten(1))
    weights = torch.randn_like(expected)
    of_x, of_scales = torch.autograd.grad((expected * weights).sum(), [x, scales])
    found = layer(x)
    torch.testing.assert_close(found, expected)
    (found * weights).sum().backward()
    torch.testing.assert_close(x.grad, of_x)
    torch.testing.assert_close(layer.shares.grad, of_scales * blocks.scales)


def test_bfloat16_where_it_is_asked_for(by_hand):
    layer = BlockLinear(by_hand, None)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.tensor([[1.0, 2, 3, 4]]))
    assert y.dtype == torch.bfloat16
    assert y.item() == 16.5
    y.backward()
    assert layer.shares.grad.tolist() == [[-1.5, 18.0]]


def test_what_learned_is_all_of_the_state(by_hand):
    layer = BlockLinear(by_hand, torch.zeros(1))
    assert set(layer.state_dict()) == {"shares"}
    layer.shares.data = torch.tensor([[2.0, 0.5]])
    assert layer.learned().tolist() == [[1.0, 1.0]]


def test_a_gain_is_for_all_that_read_it(by_hand):
    layers = [BlockLinear(by_hand, None), torch.nn.Linear(4, 2, bias=False)]
    gain, x = Gain(layers, torch.tensor([1.0, 2, 1, 1])), torch.tensor([[1.0, 2, 3, 4]])
    gain.shares.data = torch.tensor([1.0, 1, 0.5, 3])
    multiplied = torch.tensor([[1.0, 4, 1.5, 12]])
    assert layers[0](x).item() == 0.5 * (1 - 8) + 2 * 4.5
    torch.testing.assert_close(layers[1](x), multiplied @ layers[1].weight.T)
    assert gain.learned().tolist() == [1.0, 2, 0.5, 3]

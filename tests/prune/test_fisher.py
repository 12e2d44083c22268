"""Fisher information of channels: against gates in front of them, and where it must be nothing."""

import pytest
import torch
from torch import nn

from compress.prune.fisher import information
from compress.tasks.language_modeling import calibration
from compress.tasks.language_modeling.calibration import Windows
from compress.tasks.language_modeling.model import CausalLM


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(calibration, "wants_bfloat16", lambda *_: False)


def tokens(model, windows=3, size=12):
    return torch.randint(
        5, model.config.vocab_size, (windows, size), generator=torch.Generator().manual_seed(1)
    )


def readers_of(model):
    return [part for layer in model.stack.layers() for part in (layer.attention_output, layer.ffn_out)]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "phi3"])
def test_it_is_the_squared_slope_of_a_gate_at_each_token(name, language_checkpoints, exact):
    model = CausalLM.open(language_checkpoints[name])
    windows = tokens(model)
    found = information(readers_of(model), Windows(model, windows).losses())
    random = torch.Generator().manual_seed(0)
    for linear in readers_of(model):
        expected, draws = 0, torch.Generator().set_state(random.get_state())
        for window in windows:
            gate = torch.ones(1, len(window), linear.in_features, requires_grad=True)
            hook = linear.register_forward_pre_hook(lambda _, args, gate=gate: (args[0] * gate,))
            logits = model.module(input_ids=window[None], use_cache=False).logits[0]
            hook.remove()
            drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=draws)[:, 0]
            nn.functional.cross_entropy(logits, drawn, reduction="sum").backward()
            expected = expected + gate.grad[0].square().sum(0)
        torch.testing.assert_close(found[linear].float(), expected / windows.numel(), rtol=1e-3, atol=1e-9)
        assert expected.max() > 0


def test_a_silent_channel_tells_nothing_and_weights_keep_no_gradients(language_checkpoints, exact):
    model = CausalLM.open(language_checkpoints["llama"])
    with torch.no_grad():
        model.module.model.layers[1].mlp.up_proj.weight[3] = 0
    found = information(readers_of(model), Windows(model, tokens(model)).losses())[readers_of(model)[-1]]
    assert found[3] == 0
    assert (found > 0).sum() == len(found) - 1
    assert all(weight.grad is None for weight in model.module.parameters())

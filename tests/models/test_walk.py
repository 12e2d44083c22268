"""A walk over layers against whole models, with hidden states and inputs of stock transformers."""

import pytest
import torch

from compress.models.walk import Walk
from compress.tasks.language_modeling.model import CausalLM

NAMES = ("llama", "qwen2", "gemma3_text", "smollm3", "phi3", "olmo3", "granite", "ministral3")


@pytest.fixture(params=NAMES)
def opened(request, language_checkpoints, splits):
    """A model and six windows of 24 tokens."""
    model = CausalLM.open(language_checkpoints[request.param])
    return model, model.windows(splits.calibration.texts, 24)[:6]


@torch.no_grad()
def test_states_and_logits_are_those_of_the_whole_model(opened):
    model, windows = opened
    whole = model.module(input_ids=windows, use_cache=False, output_hidden_states=True)
    walk = Walk(model, windows)
    for index in range(len(walk)):
        torch.testing.assert_close(walk.states, whole.hidden_states[index])
        behind = walk.behind(index) * getattr(model.config, "logits_scaling", 1.0)
        torch.testing.assert_close(behind, whole.hidden_states[-1])  # stock: after the norm
        walk.advance(index)
    torch.testing.assert_close(walk.logits(walk.states), whole.logits)


def test_a_cap_on_the_logits_is_kept(language_checkpoints):
    model = CausalLM.open(language_checkpoints["gemma3_text"])
    model.config.final_logit_softcapping = 0.5
    windows = torch.arange(5, 17).view(1, 12)
    walk = Walk(model, windows)
    for index in range(len(walk)):
        walk.advance(index)
    logits = walk.logits(walk.states)
    assert logits.abs().max() <= 0.5
    torch.testing.assert_close(logits, model.run({"input_ids": windows}).detach())


def test_layers_that_read_one_tensor_are_found(opened):
    model, windows = opened
    names = [shared.names for shared in Walk(model, windows).inputs(1)]
    fused = model.config.model_type == "phi3"
    attention = ("qkv_proj",) if fused else ("q_proj", "k_proj", "v_proj")
    feed_forward = ("gate_up_proj",) if fused else ("gate_proj", "up_proj")
    parts = [("self_attn", attention), ("self_attn", ("o_proj",)), ("mlp", feed_forward)]
    expected = [tuple(f"model.layers.1.{part}.{name}" for name in group) for part, group in parts]
    assert names == [*expected, ("model.layers.1.mlp.down_proj",)]


@torch.no_grad()
def test_moments_inputs_and_outputs_are_those_of_the_whole_model(opened):
    model, windows = opened
    seen = {}
    linear = model.stack.layers()[1].ffn_out
    hook = linear.register_forward_hook(lambda _, args, output: seen.update(x=args[0], y=output))
    model.module(input_ids=windows, use_cache=False)
    hook.remove()
    walk = Walk(model, windows)
    walk.advance(0)
    x, y = walk.outputs(1)["model.layers.1.mlp.down_proj"]
    torch.testing.assert_close(x, seen["x"])
    torch.testing.assert_close(y, seen["y"])
    flat = x.flatten(0, 1).double()
    expected = (flat.T @ flat / len(flat)).float()
    torch.testing.assert_close(walk.second_moments(1)[-1].moment, expected)


@torch.no_grad()
def test_outputs_are_of_the_inputs_also_when_the_states_went_on(opened):
    model, windows = opened
    walk = Walk(model, windows)
    seen = walk.outputs(0)
    walk.advance(0)
    for name, (x, y) in seen.items():
        torch.testing.assert_close(model.linears()[name](x), y)


def test_no_hook_stays(opened):
    model, windows = opened
    walk = Walk(model, windows)
    walk.second_moments(0)
    walk.outputs(0, 2)
    with pytest.raises(ZeroDivisionError):
        walk.visit(0, lambda shared, x: 1 / 0)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.module.modules())

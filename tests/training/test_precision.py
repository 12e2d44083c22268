"""Weights in another type, and rotations by angles that stay exact."""

import torch
import transformers

from compress.training.precision import cast_weights


def test_weights_are_cast_and_rotations_are_not():
    sizes = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8}
    sizes["rope_parameters"] = {"rope_type": "default", "rope_theta": 100000.0}  # SmolLM2's
    model = transformers.LlamaModel(transformers.LlamaConfig(**sizes, intermediate_size=8))
    positions = torch.arange(512)[None]
    expected = model.rotary_emb(torch.zeros(1), positions)
    cast_weights(model, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(model.rotary_emb(torch.zeros(1), positions), expected, atol=0, rtol=0)
    rounded = model.to(torch.bfloat16).rotary_emb(torch.zeros(1), positions)
    assert (rounded[0] - expected[0]).abs().max() > 0.3  # what else would come of it

"""Layers left out, dropped and noted, in text encoders and in classifiers of images."""

from collections import ChainMap

import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from compress import tasks
from compress.config.prune import Keep, Scope, TransformerPrune
from compress.errors import ModelError
from tests.conftest import ARCHITECTURES, LANGUAGE
from tests.prune.cuts import cut_heads, texts_of


def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(params=["bert", "distilbert", "vit"])
def opened(request, checkpoints, image_checkpoints, splits):
    """A model and something to run it on."""
    model = tasks.load(ChainMap(checkpoints, image_checkpoints)[request.param])
    examples = images() if request.param == "vit" else splits.test.texts[:6]
    return model, next(model.batches(examples, 6))


def outputs(opened):
    model, inputs = opened
    with torch.no_grad():
        return model.run(inputs)


def test_widths(opened):
    model, _ = opened
    ffn = 32 if model.facts.task == "image_classification" else 64
    assert model.widths() == model.stack.widths() == {"ffn": (ffn, ffn), "heads": (4, 4)}


def test_a_layer_is_left_out_only_within_the_context(opened):
    model, _ = opened
    before = outputs(opened)
    with model.stack.without_layer(0):
        assert len(model.stack.layers()) == 1
        assert not torch.allclose(outputs(opened), before)
    assert torch.equal(outputs(opened), before)


def test_a_dropped_layer_is_dropped_from_the_config(opened, tmp_path):
    model, _ = opened
    with model.stack.without_layer(0):
        expected = outputs(opened)
    model.stack.drop_layer(0)
    (tmp_path / "small").mkdir()
    model.save(tmp_path / "small", model.facts)
    small = tasks.load(tmp_path / "small")
    assert len(small.stack.layers()) == 1
    assert torch.equal(outputs((small, opened[1])), expected)


def test_a_layer_keeps_its_heads_when_another_is_dropped(checkpoints, splits, tmp_path):
    encoder, texts = tasks.load(checkpoints["bert"]), splits.test.texts[:6]
    with torch.no_grad():  # for the layers to be cut unequally
        encoder.stack.layers()[0].attention_output.weight[:, :24] *= 0.01
        encoder.stack.layers()[1].attention_output.weight[:, :8] *= 0.01
    cut_heads(texts_of(encoder, texts), TransformerPrune(keep=Keep(heads=0.5), scope=Scope["global"]))
    of_first, of_second = encoder.widths()["heads"]
    assert of_first < of_second
    encoder.stack.drop_layer(0)
    encoder.save(tmp_path / "small", encoder.facts)
    small, inputs = tasks.load(tmp_path / "small"), encoder.tokenize(texts)
    assert small.widths()["heads"] == (of_second,)
    torch.testing.assert_close(outputs((small, inputs)), outputs((encoder, inputs)), atol=1e-6, rtol=0)


def test_a_net_that_is_no_transformer_has_no_stack(image_checkpoints):
    with pytest.raises(ModelError, match=r"image_nets:resnet, a net without.*\n.*\n  next: +prune=channels"):
        _ = tasks.load(image_checkpoints["resnet"]).stack


# ---------------------------------------------------------------- the table


@pytest.fixture(params=[*ARCHITECTURES, "vit", *LANGUAGE])
def seen(request, checkpoints, image_checkpoints, language_checkpoints, splits):
    """A model and what each of its modules last read and gave."""
    model = tasks.load(ChainMap(checkpoints, image_checkpoints, language_checkpoints)[request.param])
    examples = images() if request.param == "vit" else splits.test.texts[:6]
    read, given = {}, {}

    def note(module, args, output):
        read[module], given[module] = args[0] if args else None, output

    hooks = [module.register_forward_hook(note) for module in model.module.modules()]
    with torch.no_grad():
        model.run(next(model.batches(examples, 6)))
    for hook in hooks:
        hook.remove()
    return model, read, given


def test_the_table_names_the_parts(seen):
    """Which reads what which gives, in every layer."""
    model, read, given = seen
    a = model.stack.architecture
    for layer in model.stack.layers():
        if a.attention_norm is not None:
            assert torch.equal(read[layer.query], given[layer.block.get_submodule(a.attention_norm)])
        assert torch.equal(read[layer.query], read[layer.key])
        assert torch.equal(read[layer.query], read[layer.value])
        if a.ffn_norm is not None:
            assert torch.equal(read[layer.ffn_in], given[layer.block.get_submodule(a.ffn_norm)])
        parts = [part for w, count in layer.channel_writers() for part in given[w].chunk(count, -1)]
        assert {part.shape[-1] for part in parts} == {layer.ffn_width}
        config = model.stack.config
        named = ("hidden_act", "hidden_activation", "activation")
        activation = ACT2FN[next(getattr(config, name) for name in named if hasattr(config, name))]
        product = activation(parts[0]) if layer.gate is None else activation(parts[0]) * parts[1]
        torch.testing.assert_close(read[layer.ffn_out], product)
        assert layer.attention_output.in_features == model.stack.widths()["heads"][0] * model.stack.head_size
    last = given[model.stack.blocks[-1]]
    norm = model.stack.final_norm
    assert isinstance(norm, torch.nn.Identity) or torch.equal(
        read[norm], last[0] if isinstance(last, tuple) else last
    )

"""Layers of different widths in a checkpoint of one: what is padded gives what it gave, and is cut again."""

import json

import pytest
import torch
import transformers

from compress import tasks
from compress.config.model import CausalLMModel
from compress.config.prune import Keep, Scope, TransformerPrune
from compress.errors import ModelError
from compress.models.layers import Stack
from compress.models.padding import cut_padding, padded
from compress.tasks import import_model
from compress.tasks.language_modeling.model import CausalLM
from tests.prune.cuts import cut_heads, texts_of

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture
def ragged(language_checkpoints, copy_of, request):
    """A model of two layers, 24 and 40 channels of 64, of which the others are left out."""
    folder = language_checkpoints[request.param]
    model = CausalLM.open(with_biases(folder, copy_of(folder)) if request.param == "mistral" else folder)
    with torch.no_grad():
        for layer, width in zip(model.module.model.layers, (24, 40), strict=True):
            layer.mlp.down_proj.weight[:, width:] = 0
            rows = [*range(width, 64)]
            if layer.mlp.down_proj.bias is not None:
                layer.mlp.gate_proj.bias[rows] = layer.mlp.up_proj.bias[rows] = 0
            if request.param == "phi3":
                layer.mlp.gate_up_proj.weight[rows + [64 + row for row in rows]] = 0
            else:
                layer.mlp.gate_proj.weight[rows] = 0
                layer.mlp.up_proj.weight[rows] = 0
        wanted = model.run({"input_ids": IDS})
    cut_padding(model.stack, {"ffn_widths": [24, 40]})
    return model, wanted


def with_biases(source, folder):
    """A Llama whose products all have biases, and a head of its own."""
    config = transformers.AutoConfig.from_pretrained(source)
    described = {**config.to_dict(), "mlp_bias": True, "attention_bias": True, "tie_word_embeddings": False}
    for name in ("model_type", "architectures", "layer_types"):
        described.pop(name, None)
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**described))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    module.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("ragged", ["llama", "mistral", "gemma3_text", "phi3"], indirect=True)
@torch.no_grad()
def test_stock_transformers_opens_what_was_saved(ragged, tmp_path):
    model, wanted = ragged
    assert model.widths()["ffn"] == (24, 40)
    torch.testing.assert_close(model.run({"input_ids": IDS}), wanted)
    model.save(tmp_path, model.facts)
    described = json.loads((tmp_path / "config.json").read_text())
    assert (described["intermediate_size"], described["ffn_widths"]) == (40, [24, 40])
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).eval()
    torch.testing.assert_close(stock(IDS).logits, wanted)
    again = tmp_path / "again"  # as a published folder, with nothing of ours
    (tmp_path / "compress.json").unlink()
    again.mkdir()
    import_model(CausalLMModel(source=f"path:{tmp_path}"), again)
    opened = CausalLM.open(again)
    assert opened.widths()["ffn"] == (24, 40)
    assert getattr(opened.module.model.layers[0].mlp, "intermediate_size", 24) == 24
    assert opened.parameters() == model.parameters() < sum(p.numel() for p in stock.parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(*(m.module.parameters() for m in (model, opened)), strict=True)
    )


@pytest.mark.parametrize("ragged", ["qwen2"], indirect=True)
def test_padding_gets_no_gradient(ragged, tmp_path):
    """So that training the padded checkpoint elsewhere leaves it a model of ours."""
    model, _ = ragged
    model.save(tmp_path, model.facts)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    stock(IDS, labels=IDS).loss.backward()
    mlp = stock.model.layers[0].mlp
    assert not mlp.down_proj.weight.grad[:, 24:].any()
    assert not mlp.gate_proj.weight.grad[24:].any()
    assert not mlp.up_proj.weight.grad[24:].any()
    assert mlp.up_proj.weight.grad[:24].any()


@pytest.mark.parametrize("name", ["distilbert", "eurobert"])
def test_heads_are_padded_at_their_end(name, checkpoints, splits, tmp_path):
    """Of EuroBERT two heads share keys and values, and go together."""
    encoder = tasks.load(checkpoints[name])
    with torch.no_grad():  # for the layers to be cut unequally
        encoder.stack.layers()[0].attention_output.weight[:, :16] *= 0.01
        encoder.stack.layers()[1].attention_output.weight[:, :8] *= 0.01
    chosen = TransformerPrune(keep=Keep(heads=0.75), scope=Scope["global"])
    cut_heads(texts_of(encoder, splits.calibration.texts), chosen)
    counts = encoder.widths()["heads"]
    assert min(counts) < 4
    encoder.save(tmp_path, encoder.facts)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["head_counts"] == list(counts)
    inputs = encoder.tokenize(splits.test.texts[:6])
    stock = transformers.AutoModel.from_pretrained(tmp_path, local_files_only=True)
    states = [m(**inputs).last_hidden_state for m in (stock, encoder.module.backbone)]
    torch.testing.assert_close(*states, atol=2e-6, rtol=0)
    states[0].pow(3).sum().backward()
    padded, left = Stack(stock, encoder.architecture), tasks.load(tmp_path).stack
    assert left.widths() == encoder.widths()
    for whole, part in zip(padded.layers(), left.layers(), strict=True):
        for linear in ("query", "key", "value"):
            rows = getattr(part, linear).out_features
            assert getattr(whole, linear).weight.grad[:rows].any()
            assert not getattr(whole, linear).weight[rows:].any()
            assert not getattr(whole, linear).weight.grad[rows:].any()
        columns = part.attention_output.in_features
        assert not whole.attention_output.weight.grad[:, columns:].any()


def test_head_counts_that_do_not_fit_are_refused(checkpoints):
    stack = tasks.load(checkpoints["eurobert"]).stack
    with pytest.raises(ModelError, match=r"head_counts in config.json(.|\n)*from 2 to 4 in steps of 2"):
        cut_padding(stack, {"head_counts": [3, 4]})
    with pytest.raises(ModelError, match="heads of layer 0 behind its 2 are not zero"):
        cut_padding(stack, {"head_counts": [2, 4]})


def test_layers_of_one_width_are_left_alone(language_checkpoints):
    assert "ffn_widths" not in json.loads((language_checkpoints["llama"] / "config.json").read_text())
    model = CausalLM.open(language_checkpoints["llama"])
    found = padded(model.module, model.stack)
    assert all(torch.equal(value, found[name]) for name, value in model.module.state_dict().items())


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ((24,), "not those of the layers"),
        ((24, 100), "not those of the layers"),
        ((24, 0), "not those of the layers"),
        ((24, "40"), "not those of the layers"),
        (24, "not those of the layers"),
        ((24, 64), "ffn of layer 0 behind its 24 are not zero"),
    ],
)
def test_widths_that_do_not_fit_the_weights(widths, said, language_checkpoints):
    with pytest.raises(ModelError, match=said):
        cut_padding(CausalLM.open(language_checkpoints["llama"]).stack, {"ffn_widths": widths})

"""Scales and norms fitted to the float model's answers: what is learned, and what reaches the graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.config.model import CausalLMModel
from compress.config.quantize import Clip, Int4Blocks, Rounding
from compress.data import load_texts
from compress.graph.decoder import Decoder
from compress.quantize import quantize, weight_only
from compress.quantize.blocks import in_blocks
from compress.quantize.fidelity import windows_of
from compress.quantize.fit import Learner
from compress.quantize.language_layers import HEAD, embedding_of
from compress.quantize.layerwise import Recipe, Rounded, round_layers
from compress.stages.result import read_result
from compress.tasks import import_model
from compress.tasks.language_modeling.model import CausalLM

IDS = torch.arange(2, 14)[None]
QUICK = {"block_size": 16, "windows": 4, "max_kl": 100.0, "min_sqnr_db": 0.0, "accuracy_level": 0}


def rounded_layers(checkpoint, splits_folder, awq=False) -> list[Rounded]:
    model, done = CausalLM.open(checkpoint), []
    windows = windows_of(model, load_texts(splits_folder).calibration.texts, 4)
    bits = {name: 8 if name == HEAD else 4 for name in model.linears()}
    recipe = Recipe(bits=bits, size=16, method=Rounding.gptq, clip=Clip.hessian, awq=awq)
    round_layers(model, windows, recipe, None, done.append)
    return done


def stock_logits(checkpoint, done, table=None) -> np.ndarray:
    """What stock transformers computes with these blocks for weights, factors taken out of them."""
    model = CausalLM.open(checkpoint)
    factors = {name: each for one in done for names, each in one.factors.items() for name in names}
    blocks = {name: each for one in done for name, each in one.blocks.items()}
    embedding_of(model).data = (table or blocks[HEAD]).weight()
    for name, linear in model.linears().items():
        linear.weight = torch.nn.Parameter(blocks[name].weight() / factors.get(name, 1))
    with torch.no_grad():
        return model.module(input_ids=IDS).logits[0].numpy()


@pytest.mark.parametrize("awq", [False, True])
def test_what_was_learned_is_what_the_student_computes(awq, language_checkpoints, splits_folder):
    checkpoint = language_checkpoints["llama"]
    done = rounded_layers(checkpoint, splits_folder, awq)
    student = CausalLM.open(checkpoint)
    learner = Learner(student, done, None)
    torch.manual_seed(0)
    for shares in learner.parameters():
        shares.data += 0.1 * torch.randn_like(shares)
    with torch.no_grad():
        expected = student.module(input_ids=IDS).logits[0].numpy()
    learned = learner.learned(done)
    np.testing.assert_allclose(stock_logits(checkpoint, learned), expected, atol=1e-4)
    assert np.abs(stock_logits(checkpoint, done) - expected).max() > 0.01
    before, after = ({n: b for one in each for n, b in one.blocks.items()} for each in (done, learned))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].codes, after[name].codes) for name in before)


def test_scales_and_factors_reach_the_graph(
    monkeypatch, language_graphs, language_checkpoints, splits_folder, tmp_path
):
    """Whatever was learned: other scales everywhere, and factors of every norm."""
    made = []

    def learned(config, checkpoint, splits, rounded, table, out):
        generator = torch.Generator().manual_seed(0)

        def near_one(like):
            return 1 + 0.1 * torch.randn(like.shape, generator=generator)

        for one in rounded:
            blocks = {
                n: b if n == HEAD else replace(b, scales=b.scales * near_one(b.scales))
                for n, b in one.blocks.items()
            }
            made.append(Rounded(blocks=blocks))
        made.append(Rounded(factors={names: near_one(torch.empty(32)) for names in groups}))
        return made, None

    checkpoint = language_checkpoints["llama"]
    layer = "model.layers.{}.{}".format
    groups = [(HEAD,)]
    for i in (0, 1):
        groups.append(tuple(layer(i, f"self_attn.{which}_proj") for which in "qkv"))
        groups.append(tuple(layer(i, f"mlp.{which}_proj") for which in ("gate", "up")))
    monkeypatch.setattr(weight_only, "fit", learned)
    config = Int4Blocks(fit_steps=1, **QUICK)
    quantize(config, (), language_graphs("llama"), checkpoint, splits_folder, tmp_path)
    found = Decoder(tmp_path / "model.onnx", capacity=32).run(IDS[0].numpy())
    np.testing.assert_allclose(found, stock_logits(checkpoint, made), atol=2e-3)


def test_it_comes_nearer_to_the_float_model(language_graphs, language_checkpoints, splits_folder, tmp_path):
    found, checkpoint = {}, language_checkpoints["llama"]
    for steps in (0, 8):
        (out := tmp_path / str(steps)).mkdir()
        config = Int4Blocks(fit_steps=steps, fit_learning_rate=0.01, **QUICK)
        quantize(config, (), language_graphs("llama"), checkpoint, splits_folder, out)
        found[steps] = read_result(out).facts["blocks"]
    told = found[8]["fit"]
    assert told["steps"] == 8
    assert min(told["select_loss"]) < 0.95 * told["select_loss"][0]
    assert found[8]["kl"] < found[0]["kl"]
    assert found[0]["fit"] is None


def test_an_untied_model_reads_its_table(write_language, language_texts, splits_folder, tmp_path):
    published, checkpoint = tmp_path / "published", tmp_path / "checkpoint"
    for folder in (published, checkpoint):
        folder.mkdir()
    write_language(published, "llama", language_texts, tie_word_embeddings=False)
    import_model(CausalLMModel(source=f"path:{published}"), checkpoint)
    done = rounded_layers(checkpoint, splits_folder)
    student = CausalLM.open(checkpoint)
    table = in_blocks(embedding_of(student).detach(), 8, 16)
    learner = Learner(student, done, table)
    with torch.no_grad():
        found = student.module(input_ids=IDS).logits[0].numpy()
    learned = learner.learned(done)
    np.testing.assert_allclose(found, stock_logits(checkpoint, learned, table), atol=1e-4)

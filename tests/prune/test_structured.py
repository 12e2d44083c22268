"""What pruning does to a model: the right rows go, the rest computes what it should."""

import copy

import pytest
import torch
import transformers

from compress import models, tasks
from compress.errors import ConfigError, ModelError
from compress.prune import prune, transformer
from compress.prune.selection import best
from compress.stages.result import read_result
from tests.prune.cuts import config, cut_channels, cut_heads, drop, heads_left, moments_of, texts_of

ARCHITECTURES = ("bert", "roberta", "distilbert", "mpnet")
HEADED = ("bert", "roberta", "distilbert")


@pytest.fixture(autouse=True)
def no_fresh_process(monkeypatch):
    """test_reload.py is about it; it takes seconds."""
    monkeypatch.setattr(transformer, "check_reload", lambda encoder, out: None)


@pytest.fixture
def texts(splits):
    return splits.calibration.texts


def embed(encoder, texts):
    with torch.no_grad():
        return encoder.module(**encoder.tokenize(texts))["sentence_embedding"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_keeping_everything_changes_no_bit(name, checkpoints, splits_folder, texts, tmp_path):
    prune(config(), checkpoints[name], splits_folder, tmp_path)
    assert torch.equal(embed(tasks.load(tmp_path), texts), embed(tasks.load(checkpoints[name]), texts))
    summary = read_result(tmp_path).facts["pruning"]
    assert summary["before"] == summary["after"] == {"ffn": [64, 64], "heads": [4, 4]}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
def test_ffn_is_cut_to_the_channels_chosen(name, importance, checkpoints, texts):
    """Without repair, the small layer equals the large one with the other channels silenced."""
    dense, small = tasks.load(checkpoints[name]), tasks.load(checkpoints[name])
    cut_channels(texts_of(small, texts), config(importance, ffn=0.5, repair=False))
    assert small.widths() == {"ffn": (32, 32), "heads": (4, 4)}
    for before, after in zip(dense.stack.layers(), small.stack.layers(), strict=True):
        rows = [
            next(i for i in range(64) if torch.equal(before.ffn_in.weight[i], row))
            for row in after.ffn_in.weight
        ]
        assert rows == sorted(set(rows))
        gone = [i for i in range(64) if i not in rows]
        assert torch.equal(before.ffn_in.bias[rows], after.ffn_in.bias)
        assert torch.equal(before.ffn_out.weight[:, rows], after.ffn_out.weight)
        assert torch.equal(before.ffn_out.bias, after.ffn_out.bias)
        with torch.no_grad():
            before.ffn_out.weight[:, gone] = 0
    torch.testing.assert_close(embed(small, texts), embed(dense, texts), atol=2e-6, rtol=0)


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
def test_repair_lowers_the_error_of_the_layer_on_calibration_texts(importance, checkpoints, texts):
    dense = tasks.load(checkpoints["bert"])
    dense.module.requires_grad_(False)
    reader = dense.stack.layers()[0].ffn_out
    moments = moments_of(texts_of(dense, texts), [reader])[reader]
    errors = {}
    for repair in (False, True):
        small = tasks.load(checkpoints["bert"])
        cut_channels(texts_of(small, texts), config(importance, ffn=0.5, repair=repair))
        layer = small.stack.layers()[0]
        kept = [
            next(i for i in range(64) if torch.equal(dense.stack.layers()[0].ffn_in.weight[i], row))
            for row in layer.ffn_in.weight
        ]
        layer.ffn_out.requires_grad_(False)
        change = reader.weight.double()
        change[:, kept] -= layer.ffn_out.weight.double()
        shift = change @ moments.mean() + reader.bias.double() - layer.ffn_out.bias.double()
        errors[repair] = float((change @ moments.covariance() @ change.T).trace() + shift.pow(2).sum())
    assert errors[True] < 0.6 * errors[False]


def test_repair_keeps_the_embeddings_closer(checkpoints, splits):
    dense = tasks.load(checkpoints["bert"])
    target, cosines = embed(dense, splits.test.texts), {}
    for repair in (False, True):
        small = tasks.load(checkpoints["bert"])
        cut_channels(texts_of(small, splits.calibration.texts), config(ffn=0.5, repair=repair))
        cosines[repair] = float((embed(small, splits.test.texts) * target).sum(1).mean())
    assert cosines[False] < cosines[True] < 1


def test_a_channel_nothing_reads_goes_first(checkpoints, texts):
    silent = [3, 40]
    for repair in (False, True):
        encoder = tasks.load(checkpoints["bert"])
        with torch.no_grad():
            for layer in encoder.stack.layers():
                layer.ffn_out.weight[:, silent] = 0
        first = encoder.stack.layers()[0].ffn_in.weight.detach().clone()
        before = embed(encoder, texts)
        cut_channels(texts_of(encoder, texts), config(ffn=62 / 64, round_to=1, repair=repair))
        kept = [i for i in range(64) if i not in silent]
        assert torch.equal(encoder.stack.layers()[0].ffn_in.weight, first[kept])
        torch.testing.assert_close(embed(encoder, texts), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", HEADED)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_heads_go_whole_and_give_what_the_others_give_without_them(name, scope, checkpoints, texts):
    encoder = tasks.load(checkpoints[name])
    with torch.no_grad():  # for the global scope to cut the layers unequally
        encoder.stack.layers()[0].attention_output.weight[:, :24] *= 0.01
        encoder.stack.layers()[1].attention_output.weight[:, :8] *= 0.01
    dense = copy.deepcopy(encoder)
    cut_heads(texts_of(encoder, texts), config(heads=0.5, scope=scope))
    left = heads_left(dense.stack, encoder.stack)
    assert sum(map(len, left)) == 4
    assert (len(left[0]) < len(left[1])) == (scope == "global")
    torch.testing.assert_close(embed(encoder, texts), embed(dense, texts), atol=1e-6, rtol=0)


def test_the_heads_that_go_are_those_of_the_least_summed_importance(checkpoints, texts):
    dense, encoder = tasks.load(checkpoints["bert"]), tasks.load(checkpoints["bert"])
    layer = encoder.stack.layers()[1]
    moments = moments_of(texts_of(encoder, texts), [layer.attention_output])[layer.attention_output]
    squares = layer.attention_output.weight.detach().double().pow(2).sum(0)
    scores = (moments.covariance().diagonal() * squares).view(4, 8).sum(1)
    cut_heads(texts_of(encoder, texts), config(heads=0.5))
    assert heads_left(dense.stack, encoder.stack)[1] == best(scores, 2).tolist()


def test_heads_of_mpnet_are_refused(checkpoints, splits_folder, tmp_path):
    with pytest.raises(
        ModelError, match=r"heads of a mpnet model.*\n.*one table.*\n  allowed: prune\.keep\.heads=1\.0"
    ):
        prune(config(heads=0.5), checkpoints["mpnet"], splits_folder, tmp_path)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "modernbert", "eurobert"])
def test_a_ragged_checkpoint_reloads_with_equal_outputs(name, checkpoints, splits_folder, texts, tmp_path):
    heads = 0.75 if name in HEADED else 1.0
    chosen = config(scope="global", ffn=0.6, heads=heads, round_to=1)
    source = tasks.load(checkpoints[name])
    with torch.no_grad():  # many channels of one layer hardly matter
        source.stack.layers()[0].ffn_out.weight[:, :50] *= 0.01
    source.save(tmp_path / "uneven", source.facts)
    (tmp_path / "out").mkdir()
    prune(chosen, tmp_path / "uneven", splits_folder, tmp_path / "out")
    small = tasks.load(tmp_path / "out")
    assert len(set(small.widths()["ffn"])) > 1
    assert sum(small.widths()["ffn"]) == pytest.approx(0.6 * sum(source.widths()["ffn"]), abs=1)
    if heads < 1:
        cut_heads(texts_of(source, texts), chosen)
    cut_channels(texts_of(source, texts), chosen)
    assert torch.equal(embed(source, texts), embed(small, texts))
    stock = transformers.AutoModel.from_pretrained(tmp_path / "out", local_files_only=True)
    inputs = small.tokenize(texts)
    found, wanted = (m(**inputs).last_hidden_state for m in (stock, small.module.backbone))
    torch.testing.assert_close(found, wanted, atol=2e-6 if name in ARCHITECTURES else 1e-5, rtol=0)
    eager = tasks.load(tmp_path / "out", attention="eager")
    assert eager.module.config._attn_implementation == "eager"
    torch.testing.assert_close(embed(eager, texts), embed(small, texts), atol=1e-6, rtol=0)


def test_layers_are_dropped_by_what_their_absence_changes(checkpoints, texts):
    encoder = tasks.load(checkpoints["bert"])
    dense, cosines = embed(encoder, texts), []
    for index in range(2):
        with encoder.stack.without_layer(index):
            cosines.append(float((embed(encoder, texts) * dense).sum(1).mean()))
    dropped = drop(texts_of(encoder, texts, 16), 0.5)
    assert dropped == [cosines.index(max(cosines))]
    assert float((embed(encoder, texts) * dense).sum(1).mean()) == pytest.approx(max(cosines), abs=1e-6)
    assert encoder.module.config.num_hidden_layers == 1


def test_at_least_one_layer_stays(checkpoints, texts):
    encoder = tasks.load(checkpoints["distilbert"])
    assert len(drop(texts_of(encoder, texts, 32), 0.01)) == 1
    assert len(encoder.stack.layers()) == 1


def test_the_first_layer_of_modernbert_stays(checkpoints, splits_folder, tmp_path):
    """It alone has no norm in front of attention, so that no other could take its place in a checkpoint."""
    prune(config(layers=0.25), checkpoints["modernbert"], splits_folder, tmp_path)
    assert models.read_facts(tmp_path).kept_layers == (0,)
    with pytest.raises(ConfigError, match=r"more layers than may go\n.*3 of 4\n.*at most 1: the first 1 and"):
        prune(config(layers=0.25, protect_last=2), checkpoints["modernbert"], splits_folder, tmp_path)


def test_facts_of_a_dropped_layer(checkpoints, splits_folder, tmp_path):
    prune(config(layers=0.5, ffn=0.5), checkpoints["bert"], splits_folder, tmp_path)
    facts = models.read_facts(tmp_path)
    (dropped,) = read_result(tmp_path).facts["pruning"]["dropped_layers"]
    assert facts.kept_layers == (1 - dropped,)
    names = models.read_summary(tmp_path).layer_names
    assert names == {"ffn": (f"layer {1 - dropped}",), "heads": (f"layer {1 - dropped}",)}
    assert facts.lineage == ("pruned (activation, local, least squares): ffn 64 to 32, layers 2 to 1",)


def test_the_same_call_gives_the_same_bytes(checkpoints, splits_folder, tmp_path):
    written = []
    for out in ("first", "second"):
        (tmp_path / out).mkdir()
        prune(config("taylor", ffn=0.5, heads=0.5), checkpoints["bert"], splits_folder, tmp_path / out)
        written.append((tmp_path / out / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_taylor_prunes_heads_then_channels_without_gradients_left(checkpoints, texts):
    encoder = tasks.load(checkpoints["bert"])
    chosen = config("taylor", heads=0.5, ffn=0.5)
    cut_heads(texts_of(encoder, texts), chosen)
    cut_channels(texts_of(encoder, texts), chosen)
    assert all(parameter.grad is None for parameter in encoder.module.parameters())
    assert not encoder.module.training
    assert encoder.widths() == {"ffn": (32, 32), "heads": (2, 2)}


def test_taylor_needs_more_than_one_text_a_batch(checkpoints, texts):
    with pytest.raises(ConfigError, match="batch_size=1"):
        cut_channels(texts_of(tasks.load(checkpoints["bert"]), texts, 1), config("taylor", ffn=0.5))

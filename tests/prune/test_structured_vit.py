"""What structured pruning does to a ViT: as to an encoder, judged by labels and answers."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers
from scipy.stats import entropy

from compress import models, tasks
from compress.config.prune import Keep
from compress.errors import ConfigError, ModelError
from compress.models.checkpoint import Facts
from compress.prune import prune, transformer
from compress.stages.result import read_result
from compress.tasks.image_classification.calibration import kl_divergence
from compress.tasks.image_classification.model import ImageClassifier
from tests.prune.cuts import (
    channel_scores,
    config,
    cut_channels,
    cut_heads,
    drop,
    heads_left,
    images_of,
    moments_of,
)

CLASSES = {
    "vit": (transformers.ViTConfig, transformers.ViTForImageClassification),
    "deit": (transformers.DeiTConfig, transformers.DeiTForImageClassification),
}


@pytest.fixture(autouse=True)
def no_fresh_process(monkeypatch):
    """test_reload.py is about it; it takes seconds."""
    monkeypatch.setattr(transformer, "check_reload", lambda model, out: None)


@pytest.fixture
def some(image_splits):
    return image_splits.calibration


@pytest.fixture
def vit(image_checkpoints):
    return tasks.load(image_checkpoints["vit"])


def logits(model, images):
    with torch.no_grad():
        return model.run(model.inputs(images))


def stock_logits(folder, inputs):
    stock = transformers.AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        return stock.eval()(**inputs).logits


def test_keeping_everything_changes_no_bit(vit, image_checkpoints, image_splits_folder, some, tmp_path):
    prune(config(), image_checkpoints["vit"], image_splits_folder, tmp_path)
    assert torch.equal(logits(tasks.load(tmp_path), some.images), logits(vit, some.images))


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
def test_ffn_is_cut_to_the_channels_chosen(importance, vit, some):
    """Without repair, the small layer equals the large one with the other channels silenced."""
    small = copy.copy(vit)
    small.module = copy.deepcopy(vit.module)
    cut_channels(images_of(small, some), config(importance, ffn=0.5, repair=False))
    assert small.widths() == {"ffn": (16, 16), "heads": (4, 4)}
    for before, after in zip(vit.stack.layers(), small.stack.layers(), strict=True):
        rows = [
            next(i for i in range(32) if torch.equal(before.ffn_in.weight[i], row))
            for row in after.ffn_in.weight
        ]
        assert torch.equal(before.ffn_in.bias[rows], after.ffn_in.bias)
        assert torch.equal(before.ffn_out.weight[:, rows], after.ffn_out.weight)
        with torch.no_grad():
            before.ffn_out.weight[:, [i for i in range(32) if i not in rows]] = 0
    torch.testing.assert_close(logits(small, some.images), logits(vit, some.images), atol=1e-5, rtol=0)


def test_repair_keeps_the_answers_closer(image_checkpoints, vit, some, image_splits):
    dense, off = logits(vit, image_splits.test.images), {}
    for repair in (False, True):
        small = tasks.load(image_checkpoints["vit"])
        cut_channels(images_of(small, some), config(ffn=0.5, repair=repair))
        off[repair] = float((logits(small, image_splits.test.images) - dense).pow(2).mean())
    assert 0 < off[True] < 0.7 * off[False]


def test_taylor_is_the_coupled_weight_times_gradient_of_the_labels_loss(vit, some):
    layer = vit.stack.layers()[0]
    loss = torch.nn.functional.cross_entropy(
        vit.run(vit.inputs(some.images)), torch.from_numpy(some.labels), reduction="sum"
    )
    parts = (layer.ffn_in.weight, layer.ffn_out.weight)
    first, second = torch.autograd.grad(loss, parts)
    coupled = (parts[0] * first).abs().sum(1) + (parts[1] * second).abs().sum(0)
    scores, _ = channel_scores(images_of(vit, some), config("taylor"))
    torch.testing.assert_close(
        (scores / scores.sum()).float(), (coupled / coupled.sum()).detach(), atol=1e-5, rtol=1e-3
    )
    assert all(parameter.grad is None for parameter in vit.module.parameters())


@pytest.mark.parametrize("scope", ["local", "global"])
def test_heads_go_whole_and_give_what_the_others_give_without_them(scope, vit, some):
    with torch.no_grad():  # for the global scope to cut the layers unequally
        vit.stack.layers()[0].attention_output.weight[:, :12] *= 0.01
        vit.stack.layers()[1].attention_output.weight[:, :4] *= 0.01
    dense = copy.deepcopy(vit)
    cut_heads(images_of(vit, some), config(heads=0.5, scope=scope))
    left = heads_left(dense.stack, vit.stack)
    assert [len(heads) for heads in left] == ([2, 2] if scope == "local" else [1, 3])
    torch.testing.assert_close(logits(vit, some.images), logits(dense, some.images), atol=2e-6, rtol=0)


def test_heads_by_activation_are_those_of_the_least_summed_importance(vit, some):
    dense = copy.deepcopy(vit)
    layer = vit.stack.layers()[1]
    moments = moments_of(images_of(vit, some), [layer.attention_output])[layer.attention_output]
    squares = layer.attention_output.weight.detach().double().pow(2).sum(0)
    scores = (moments.covariance().diagonal() * squares).view(4, 4).sum(1)
    cut_heads(images_of(vit, some), config(heads=0.5))
    assert heads_left(dense.stack, vit.stack)[1] == sorted(scores.argsort()[2:].tolist())


def test_layers_are_dropped_by_what_their_absence_does_to_the_answers(vit, some):
    def kl():
        return entropy(dense, logits(vit, some.images).double().softmax(1).numpy(), axis=1).mean()

    dense, divergences = logits(vit, some.images).double().softmax(1).numpy(), []
    for index in range(2):
        with vit.stack.without_layer(index):
            divergences.append(kl())
    dropped = drop(images_of(vit, some, 8), 0.5)
    assert dropped == [int(np.argmin(divergences))]
    assert kl() == pytest.approx(min(divergences), rel=1e-4)
    assert vit.stack.config.num_hidden_layers == 1


def test_the_divergence_is_scipys():
    found, dense = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    expected = entropy(dense.double().softmax(1), found.double().softmax(1), axis=1)
    np.testing.assert_allclose(kl_divergence(found, dense), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_stock_transformers_gives_equal_logits(kind, image_splits_folder, some, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config_class, net_class = CLASSES[kind]
        sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16, "num_labels": 3}
        layers = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}
        net = net_class(config_class(**sizes, **layers, initializer_range=0.25))
    facts = Facts(task="image_classification", source="made", base_model=kind, license="mit")
    prepared = {"size": {"height": 8, "width": 8}, "image_mean": [0.4], "image_std": [0.3]}
    for folder in ("dense", "out"):
        (tmp_path / folder).mkdir()
    described = json.loads(net.config.to_json_string())
    ImageClassifier(net, described, prepared, facts, []).save(tmp_path / "dense", facts)
    chosen = config(ffn=0.5, heads=0.5, layers=0.67)
    prune(chosen, tmp_path / "dense", image_splits_folder, tmp_path / "out")
    small = tasks.load(tmp_path / "out")
    assert small.widths() == {"ffn": (16, 16), "heads": (2, 2)}
    inputs = small.inputs(some.images)
    torch.testing.assert_close(
        stock_logits(tmp_path / "out", inputs), logits(small, some.images), atol=1e-6, rtol=0
    )
    assert models.read_summary(tmp_path / "out").keeps_checkpoint
    assert small.facts.lineage == (
        "pruned (activation, local, least squares): ffn 32 to 16, heads 4 to 2, layers 3 to 2",
    )
    (dropped,) = read_result(tmp_path / "out").facts["pruning"]["dropped_layers"]
    assert small.facts.kept_layers == tuple(i for i in range(3) if i != dropped)
    names = tuple(f"layer {i}" for i in small.facts.kept_layers)
    assert models.read_summary(tmp_path / "out").layer_names == {"ffn": names, "heads": names}


def test_a_ragged_checkpoint_reloads_with_equal_logits(vit, image_splits_folder, some, tmp_path):
    with torch.no_grad():  # many channels of one layer hardly matter
        vit.stack.layers()[0].ffn_out.weight[:, :25] *= 0.01
    for folder in ("uneven", "out"):
        (tmp_path / folder).mkdir()
    vit.save(tmp_path / "uneven", vit.facts)
    chosen = config(scope="global", ffn=0.6, heads=0.75, round_to=1)
    prune(chosen, tmp_path / "uneven", image_splits_folder, tmp_path / "out")
    small = tasks.load(tmp_path / "out")
    assert len(set(small.widths()["ffn"])) == 2
    cut_heads(images_of(vit, some), chosen)
    cut_channels(images_of(vit, some), chosen)
    assert torch.equal(logits(vit, some.images), logits(small, some.images))
    found = stock_logits(tmp_path / "out", small.inputs(some.images))
    torch.testing.assert_close(found, logits(small, some.images), atol=2e-6, rtol=0)
    assert models.read_summary(tmp_path / "out").keeps_checkpoint


def test_a_pruned_checkpoint_is_pruned_again(image_checkpoints, image_splits_folder, some, tmp_path):
    for folder in ("once", "twice"):
        (tmp_path / folder).mkdir()
    source = image_checkpoints["vit"]
    prune(config(heads=0.75, ffn=0.75), source, image_splits_folder, tmp_path / "once")
    prune(config(heads=0.67, ffn=0.67), tmp_path / "once", image_splits_folder, tmp_path / "twice")
    small = tasks.load(tmp_path / "twice")
    assert small.widths() == {"ffn": (16, 16), "heads": (2, 2)}
    found = stock_logits(tmp_path / "twice", small.inputs(some.images))
    torch.testing.assert_close(found, logits(small, some.images), atol=2e-6, rtol=0)


def test_a_convolutional_net_is_refused(image_checkpoints, image_splits_folder, tmp_path):
    with pytest.raises(ModelError, match=r"next: +prune=channels"):
        prune(config(ffn=0.5), image_checkpoints["resnet"], image_splits_folder, tmp_path)


@pytest.mark.parametrize(
    ("kind", "share", "least"), [("heads", 0.12, "0.125"), ("layers", 0.2, "0.25"), ("ffn", 0.01, "0.0156")]
)
def test_shares_that_leave_nothing(kind, share, least, image_checkpoints, image_splits_folder, tmp_path):
    with pytest.raises(ConfigError, match=rf"keep\.{kind} leaves nothing(.|\n)*at least {least}, which"):
        prune(config(**{kind: share}), image_checkpoints["vit"], image_splits_folder, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["heads", "layers", "ffn"])
@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_shares_that_are_none(kind, share):
    with pytest.raises(ConfigError, match=f"{kind} is out of range"):
        Keep(**{kind: share})

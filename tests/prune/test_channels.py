"""Fewer channels: the widths that were asked for, a checkpoint that opens, importances that are right."""

import json

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from compress import models, tasks
from compress.config.model import ImageClassifierModel
from compress.config.prune import ChannelImportance, ChannelPrune, ChannelScope
from compress.errors import ConfigError, ModelError
from compress.prune import channels, prune
from compress.prune.batch_norm import reestimate
from compress.prune.channel_importance import mean_activations, prepare
from compress.prune.sparse import train_sparse
from compress.stages.result import read_result
from tests.prune.cuts import images_of

SCOPES = ("local", "global", "isomorphic")


def config(**changes):
    usual = {"round_to": 2, "images": 30, "batch_norm_images": 150, "keep": 0.5}
    return ChannelPrune(**{**usual, **changes})


@pytest.fixture
def pruned(image_checkpoints, image_splits_folder, tmp_path):
    def call(name="resnet", folder="out", **changes):
        (tmp_path / folder).mkdir(exist_ok=True)
        prune(config(**changes), image_checkpoints[name], image_splits_folder, tmp_path / folder)
        return tmp_path / folder

    return call


@pytest.fixture
def some(image_splits):
    return image_splits.calibration


@pytest.mark.parametrize("name", ["resnet", "depthwise"])
@pytest.mark.parametrize("kind", list(ChannelImportance))
def test_every_importance_cuts_and_the_checkpoint_opens(name, kind, pruned, image_checkpoints):
    out = pruned(name, importance=kind)
    dense, small = tasks.load(image_checkpoints[name]), tasks.load(out)
    assert small.widths()["conv2d"] == tuple(width // 2 for width in dense.widths()["conv2d"])
    assert small.widths()["linear"] == (3,)
    assert read_result(out).gates[0].numbers["max_abs_diff"] < 1e-4
    assert small.facts.lineage[-1].startswith(f"pruned ({kind.value}, local)")
    assert models.read_summary(out).macs == small.macs() < 0.5 * dense.macs()


STOCK = {
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "mobilenet_v2": {"image_size": 8, "depth_multiplier": 0.25},
    "convnext": {"image_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
}


@pytest.mark.parametrize("name", STOCK)
def test_nets_of_transformers_are_cut_and_open_again(name, image_checkpoints, image_splits_folder, tmp_path):
    """Twice: the second time what was cut before has to be opened first."""
    published, dense, once, twice = (tmp_path / folder for folder in ("published", "dense", "once", "twice"))
    for folder in (published, dense, once, twice):
        folder.mkdir()
    described = transformers.AutoConfig.for_model(name, num_channels=1, num_labels=3, **STOCK[name])
    transformers.AutoModelForImageClassification.from_config(described).save_pretrained(published)
    prepared = json.loads((image_checkpoints["resnet"] / "preprocessor_config.json").read_text())
    prepared["image_processor_type"] = "ViTImageProcessor"
    (published / "preprocessor_config.json").write_text(json.dumps(prepared))
    tasks.import_model(ImageClassifierModel(source=f"path:{published}"), dense)
    for before, after in ((dense, once), (once, twice)):
        prune(config(), before, image_splits_folder, after)
        assert read_result(after).gates[0].numbers["max_abs_diff"] < 1e-4
        assert models.read_summary(after).macs < 0.7 * models.read_summary(before).macs
        assert not models.read_summary(after).keeps_checkpoint
    assert models.read_summary(dense).keeps_checkpoint


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("goal", [0.3, 0.6])
def test_products_come_near_what_was_asked_for(scope, goal, pruned, image_checkpoints):
    out = pruned(scope=ChannelScope[scope], macs=goal, round_to=1)
    whole = tasks.load(image_checkpoints["resnet"]).macs()
    assert tasks.load(out).macs() / whole == pytest.approx(goal, abs=0.1)


def test_rounds_end_where_one_does(pruned, image_checkpoints):
    one, three = pruned(folder="one"), pruned(folder="three", steps=3, round_to=1)
    pairs = zip(tasks.load(three).widths()["conv2d"], tasks.load(one).widths()["conv2d"], strict=True)
    assert all(abs(after_three - after_one) <= 1 for after_three, after_one in pairs)  # of 8 and 12


def test_a_pruned_checkpoint_is_pruned_again(pruned, image_splits_folder, tmp_path):
    once = pruned(folder="once")
    (tmp_path / "twice").mkdir()
    prune(config(), once, image_splits_folder, tmp_path / "twice")
    assert tasks.load(tmp_path / "twice").widths()["conv2d"][0] == 2


def test_channels_without_effect_go_first(image_checkpoints, some):
    """Half of the channels of a layer give zero: an importance by weights or data finds them."""
    for kind in (ChannelImportance.magnitude, ChannelImportance.taylor, ChannelImportance.activation):
        model = tasks.load(image_checkpoints["resnet"])
        block = model.module.net.body[2]
        dead = [1, 2, 5, 7]
        with torch.no_grad():
            block.first[1].bias.fill_(1.0)  # all others are alive
            block.first[0].weight[dead] = 0
            block.first[1].weight[dead] = 0
            block.first[1].bias[dead] = -1.0  # and the relu after it gives zero
            block.second[0].weight[:, dead] = 0
        activations = prepare(kind, model, images_of(model, some))
        history = channels.cut_once(model, config(importance=kind), activations, 0.5)
        gone = next(indices for name, of_output, indices in history if name == "body.2.first.0")
        assert sorted(gone) == dead, kind


def test_taylor_by_hand(image_checkpoints, some):
    model = tasks.load(image_checkpoints["resnet"])
    prepare(ChannelImportance.taylor, model, images_of(model, some))
    found = model.module.net.head.weight.grad.clone()
    model.module.zero_grad()
    inputs = model.inputs(some.images)
    nn.functional.cross_entropy(
        model.module(**inputs), torch.from_numpy(some.labels), reduction="sum"
    ).backward()
    assert torch.allclose(found, model.module.net.head.weight.grad, rtol=1e-4, atol=1e-5)


def test_hessian_sums_over_images(image_checkpoints, some):
    """torch-pruning's own keeps the last image only."""
    model = tasks.load(image_checkpoints["resnet"])
    prepare(ChannelImportance.hessian, model, images_of(model, some).first(3))
    found = model.module.net.head.weight.grad.clone()
    expected = torch.zeros_like(found)
    for i in range(3):
        model.module.zero_grad()
        logits = model.module(**model.inputs(some.images[i : i + 1]))
        nn.functional.cross_entropy(logits, torch.from_numpy(some.labels[i : i + 1])).backward()
        expected += model.module.net.head.weight.grad**2
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_mean_activations_are_of_all_batches(image_checkpoints, some, monkeypatch):
    from compress.prune import channel_importance

    model = tasks.load(image_checkpoints["resnet"])
    whole = mean_activations(model, images_of(model, some))
    monkeypatch.setattr(channel_importance, "_BATCH", 7)
    for name, means in mean_activations(model, images_of(model, some)).items():
        assert torch.allclose(means, whole[name], rtol=1e-4), name


def test_batch_norm_gets_the_statistics_of_the_data():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).eval()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    images = torch.randn(64, 1, 8, 8) * 3 + 1
    assert reestimate(Wrapped(), [{"x": images[:32]}, {"x": images[32:]}]) == 1
    between = net[0](images)
    assert torch.allclose(net[1].running_mean, between.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(net[1].running_var, between.var((0, 2, 3)), rtol=0.05)
    assert net[1].momentum == 0.1
    assert not net[1].training


def test_batch_norm_matters(image_checkpoints, image_splits_folder, tmp_path):
    outputs = []
    for folder, images in (("with", 150), ("without", 0)):
        (tmp_path / folder).mkdir()
        chosen = config(batch_norm_images=images)
        prune(chosen, image_checkpoints["resnet"], image_splits_folder, tmp_path / folder)
        outputs.append(tasks.load(tmp_path / folder))
    pixels = np.zeros((2, 8, 8, 1), np.uint8)
    first, second = (model.run(model.inputs(pixels)).detach() for model in outputs)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("kind", [ChannelImportance.magnitude, ChannelImportance.bn_scale])
def test_sparse_training_draws_channels_to_zero(kind, image_checkpoints, image_splits, tmp_path):
    """Against the same training without the pull; the weakest channels lose the most."""
    norms = {}
    for strength in (0.0, 0.3):
        model = tasks.load(image_checkpoints["resnet"])
        chosen = config(importance=kind, sparse_epochs=6, sparse_strength=strength)
        train_sparse(model, chosen, image_splits, tmp_path)
        scales = model.module.net.body[2].first[1].weight.detach().abs()
        weights = model.module.net.body[2].first[0].weight.detach().flatten(1).norm(dim=1)
        norms[strength] = (scales if kind is ChannelImportance.bn_scale else weights).sort().values
    left = norms[0.3] / norms[0.0]
    assert left.max() < 0.9
    if kind is ChannelImportance.magnitude:  # the pull on factors is the same for all
        assert left[0] < left[-1]
    assert not list(tmp_path.iterdir())


def test_every_round_is_followed_by_new_statistics(image_checkpoints, some):
    model = tasks.load(image_checkpoints["resnet"])
    seen = []
    channels.cut(
        model, config(steps=3, round_to=1), images_of(model, some), lambda: seen.append(model.macs())
    )
    assert len(seen) == 3
    assert model.macs() == seen[2] < seen[1] < seen[0]


def test_sparse_training_is_part_of_pruning(pruned):
    with_it, without = pruned(folder="with", sparse_epochs=1), pruned(folder="without")
    assert tasks.load(with_it).widths() == tasks.load(without).widths()
    assert (with_it / "model.safetensors").read_bytes() != (without / "model.safetensors").read_bytes()


def pooled(net, images):
    return nn.functional.adaptive_avg_pool2d(net.body(images), 1).flatten(1)


FORWARDS = {
    "detached": (
        lambda net, x: net.head(pooled(net, x).detach()),
        r"found: +6 of 7 layers, e\.g\. body\.0\.0",
    ),
    "through numpy": (
        lambda net, x: net.head(torch.from_numpy(pooled(net, x).detach().numpy())),
        "6 of 7 layers",
    ),
    "a width written down": (lambda net, x: net.head(pooled(net, x).reshape(-1, 12)), "shape '"),
}


@pytest.mark.parametrize("kind", [ChannelImportance.taylor, ChannelImportance.magnitude])
@pytest.mark.parametrize("name", FORWARDS)
def test_a_net_that_cannot_be_traced(
    name, kind, image_checkpoints, image_splits_folder, tmp_path, monkeypatch
):
    """torch-pruning itself would leave such layers whole, or the net broken, without a word."""
    from compress.models import image_nets

    forward, said = FORWARDS[name]
    monkeypatch.setattr(image_nets.Net, "forward", forward)
    refused = "torch-pruning cannot trace|the net breaks at or behind body"
    with pytest.raises(ModelError, match=rf"({refused})(.|\n)*{said}"):
        prune(config(importance=kind), image_checkpoints["resnet"], image_splits_folder, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["resnet", "depthwise"])
@pytest.mark.parametrize("keep", [0.01, 0.1])
def test_a_share_that_would_empty_a_layer(name, keep, image_checkpoints, image_splits_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"left without channels\n  found: +less than one of (8|12) would"):
        prune(config(keep=keep, round_to=1), image_checkpoints[name], image_splits_folder, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scope", SCOPES[1:])
def test_a_ranking_over_layers_leaves_each_of_them_something(scope, pruned):
    """torch-pruning leaves the layer whole that ranks last as a whole."""
    out = pruned(scope=ChannelScope[scope], keep=0.05, round_to=2)
    assert set(tasks.load(out).widths()["conv2d"]) == {2}


def test_rounding_leaves_a_narrow_layer_what_it_rounds_to(pruned):
    out = pruned(keep=0.4, round_to=8)  # 3 of 8 and 4 of 12
    assert tasks.load(out).widths()["conv2d"] == (8,) * 6


def test_an_importance_that_finds_nothing(image_checkpoints, some):
    model = tasks.load(image_checkpoints["resnet"])
    for name, module in list(model.module.net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, last = name.rpartition(".")
            setattr(model.module.net.get_submodule(parent), last, nn.Identity())
    with pytest.raises(ConfigError, match=r"found nothing to cut\n  found: +prune\.importance=bn_scale"):
        channels.cut(
            model, config(importance=ChannelImportance.bn_scale), images_of(model, some), lambda: None
        )


def test_an_encoder_is_refused(checkpoints, splits_folder, tmp_path):
    with pytest.raises(ModelError, match=r"found: +sentence_embedding\n +allowed: image_classification"):
        prune(config(), checkpoints["bert"], splits_folder, tmp_path)


@pytest.mark.parametrize("changes", [{"keep": 0.0}, {"macs": 1.5}, {"steps": 0}, {"images": 1}])
def test_ranges(changes):
    with pytest.raises(ConfigError):
        ChannelPrune(**changes)

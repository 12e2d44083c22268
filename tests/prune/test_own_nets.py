"""Nets of one's own: what must not be cut, weights that two layers share, goals that cannot be reached."""

import json

import pytest
import torch
from safetensors.torch import save_file, save_model

from compress import tasks
from compress.config.model import ImageClassifierModel
from compress.config.prune import ChannelImportance, ChannelPrune
from compress.errors import ConfigError, ModelError
from compress.models.checkpoint import Facts
from compress.prune import channels
from compress.tasks.image_classification.model import ImageClassifier
from tests.prune import own_nets

PREPARED = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
FACTS = Facts(task="image_classification", source="made", base_model="made", license="mit")


def opened(net):
    torch.manual_seed(0)
    described = {"builder": f"tests.prune.own_nets:{net.__class__.__name__}"}
    return ImageClassifier(net, described, PREPARED, FACTS, [])


def cut(model, **changes):
    settings = {"importance": ChannelImportance.magnitude, "batch_norm_images": 0, "round_to": 1}
    return channels.cut(model, ChannelPrune(**{**settings, **changes}), None, lambda: None)


@pytest.mark.parametrize(("kind", "heads"), [("HeadFirst", ["head"]), ("TwoHeads", ["head", "other"])])
def test_what_gives_the_answers_is_not_cut(kind, heads, tmp_path):
    model = opened(getattr(own_nets, kind)())
    named = {layer: name for name, layer in model.layers().items()}
    assert sorted(named[layer] for layer in model.output_layers()) == heads
    model.history = cut(model, keep=0.5)
    model.save(tmp_path, FACTS)
    again = tasks.load(tmp_path)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        answers = again.run({"pixel_values": pixels})
        assert torch.allclose(answers, model.run({"pixel_values": pixels}), atol=1e-6)
    assert answers.shape == (2, 5)
    assert again.widths()["conv2d"] == (8, 8)


def published(net, folder, write):
    folder.mkdir()
    write(net, folder / "model.safetensors")
    described = {"builder": f"tests.prune.own_nets:{type(net).__name__}"}
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    return ImageClassifierModel(source=f"path:{folder}", builder=described["builder"])


def under_both_names(net, path, changed=0.0):
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    weights["again.weight"] += changed
    save_file(weights, path)


@pytest.mark.parametrize("write", [under_both_names, lambda net, path: save_model(net, str(path))])
def test_weights_that_two_layers_share_are_written_once(write, tmp_path):
    net, out = own_nets.Twice(), tmp_path / "out"
    out.mkdir()
    tasks.import_model(published(net, tmp_path / "published", write), out)
    model, pixels = tasks.load(out), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.run({"pixel_values": pixels}), net(pixels))
    assert model.module.net.again is model.module.net.block
    again = tmp_path / "again"
    again.mkdir()
    model.save(again, FACTS)
    with torch.no_grad():
        assert torch.equal(tasks.load(again).run({"pixel_values": pixels}), net(pixels))


def test_shared_weights_of_different_numbers_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    config = published(
        own_nets.Twice(), tmp_path / "published", lambda *of: under_both_names(*of, changed=1.0)
    )
    with pytest.raises(ModelError, match=r"\.weight is shared by two layers, and their numbers differ"):
        tasks.import_model(config, tmp_path / "out")


def test_normalisation_in_groups_keeps_channels(tmp_path):
    """Four channels a group go by one each; by four together none could go, and that is an error."""
    model = opened(own_nets.HeadFirst((4, 4)))
    whole = model.macs()
    cut(model, macs=0.6)
    assert model.macs() / whole == pytest.approx(0.6, abs=channels.MISSED)
    with pytest.raises(
        ConfigError, match=r"cannot be cut to prune\.macs\n  found: +100% stay.*first, second"
    ):
        cut(opened(own_nets.HeadFirst((4, 4))), macs=0.6, round_to=4)


def test_where_a_net_breaks_is_named():
    with pytest.raises(
        ModelError, match=r"breaks at or behind second when channels are cut\n  found: .*8 channels"
    ):
        cut(opened(own_nets.Halves()), keep=0.5)

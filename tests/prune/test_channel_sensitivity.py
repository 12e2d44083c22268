"""Cuts into one group of layers alone: the numbers are those of a net that is cut by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress import tasks
from compress.config.prune import ChannelImportance, ChannelPrune
from compress.prune import prune
from compress.prune.channel_sensitivity import KEPT
from compress.prune.channels import sensitivity
from compress.schema.pruning import PruningSensitivity
from compress.stages.result import read_result
from tests.prune.cuts import images_of


def config(**changes):
    usual = {"importance": ChannelImportance.magnitude, "images": 30, "batch_norm_images": 0}
    return ChannelPrune(**{**usual, **changes})


@pytest.fixture
def model(image_checkpoints):
    return tasks.load(image_checkpoints["resnet"])


@pytest.fixture
def some(image_splits):
    return image_splits.calibration


def cut_by_hand(block, keep):
    """Leave those channels between the two convolutions of a block whose weights have the largest norm."""
    (first, norm), second = block.first, block.second[0]
    norms = (
        first.weight.square().sum((1, 2, 3)) + second.weight.square().sum((0, 2, 3)) + norm.weight.square()
    )
    left = norms.topk(keep).indices.sort().values
    first.weight = nn.Parameter(first.weight[left])
    second.weight = nn.Parameter(second.weight[:, left])
    norm.weight, norm.bias = nn.Parameter(norm.weight[left]), nn.Parameter(norm.bias[left])
    norm.running_mean, norm.running_var = norm.running_mean[left], norm.running_var[left]
    first.out_channels = norm.num_features = second.in_channels = keep


def probabilities(net, model, images):
    with torch.no_grad():
        return net(model.inputs(images)["pixel_values"]).softmax(1).double().numpy()


@pytest.mark.parametrize("keep", KEPT)
def test_a_cut_by_hand_costs_the_same(keep, model, some):
    found = sensitivity(model, config(), images_of(model, some))
    (group,) = [group for group in found.groups if group.layer == "body.2.first.0"]
    assert (group.coupled, group.channels) == ((), 8)
    net = copy.deepcopy(model.module.net)
    cut_by_hand(net.body[2], int(8 * keep))
    expected = probabilities(net, model, some.images)
    (cut,) = [cut for cut in group.cuts if cut.keep == keep]
    assert cut.channels == 8 * keep
    assert cut.accuracy == np.mean(expected.argmax(1) == some.labels)
    picked = expected[np.arange(30), some.labels]
    assert cut.cross_entropy == pytest.approx(-np.log(picked).mean(), rel=1e-5)


def test_the_whole_model_is_the_reference(model, some):
    found = sensitivity(model, config(), images_of(model, some))
    expected = probabilities(model.module.net, model, some.images)
    assert found.images == 30
    assert found.accuracy == np.mean(expected.argmax(1) == some.labels)
    picked = expected[np.arange(30), some.labels]
    assert found.cross_entropy == pytest.approx(-np.log(picked).mean(), rel=1e-5)


def test_every_layer_but_the_last_is_in_one_group(model, some):
    groups = sensitivity(model, config(), images_of(model, some)).groups
    members = [name for group in groups for name in (group.layer, *group.coupled)]
    assert sorted(members) == sorted(set(model.layers()) - {"head"})
    assert groups[0].layer == "body.0.0"
    assert "body.2.second.0" in groups[0].coupled  # which adds to what body.0.0 gives
    assert [[cut.keep for cut in group.cuts] for group in groups] == [list(KEPT)] * len(groups)


@pytest.mark.parametrize("kind", [ChannelImportance.taylor, ChannelImportance.random])
def test_measuring_does_not_change_what_is_cut(kind, image_checkpoints, image_splits_folder, tmp_path):
    """Neither the weights, nor their gradients, nor the random numbers."""
    for name, asked in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        chosen = config(importance=kind, sensitivity=asked, round_to=2, keep=0.5)
        prune(chosen, image_checkpoints["resnet"], image_splits_folder, tmp_path / name)
    for file in ("model.safetensors", "pruning.json"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    assert read_result(tmp_path / "without").fact("pruning_sensitivity", PruningSensitivity) is None
    found = read_result(tmp_path / "with").fact("pruning_sensitivity", PruningSensitivity)
    assert {group.layer for group in found.groups} >= {"body.0.0", "body.2.first.0"}


def test_depthwise_layers_go_with_the_one_before(image_checkpoints, some):
    model = tasks.load(image_checkpoints["depthwise"])
    groups = sensitivity(model, config(), images_of(model, some)).groups
    assert groups[0].layer == "body.0.0"
    assert groups[0].coupled == ("body.2.0",)


def test_a_group_that_would_be_left_without_channels_is_passed_over(image_checkpoints, some):
    model = tasks.load(image_checkpoints["resnet"])
    cut_by_hand(model.module.net.body[2], 2)
    groups = sensitivity(model, config(), images_of(model, some)).groups
    (group,) = [group for group in groups if group.layer == "body.2.first.0"]
    assert [(cut.keep, cut.channels) for cut in group.cuts] == [(0.75, 1), (0.5, 1)]

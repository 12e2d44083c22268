"""The reload gate, in the fresh process it really uses but for what a whole run does as well."""

import json

import pytest
import torch

from compress import models, tasks
from compress.config.prune import Keep, TransformerPrune
from compress.errors import GateError
from compress.prune import prune
from compress.prune.reload import check_reload, check_reopened
from compress.stages.result import read_result


def test_a_pruned_checkpoint_passes(checkpoints, splits_folder, tmp_path, reopened_here):
    keep = Keep(ffn=0.5, heads=0.5, layers=0.5)
    prune(TransformerPrune(keep=keep, round_to=8), checkpoints["bert"], splits_folder, tmp_path)
    assert read_result(tmp_path).gates[0].numbers["max_abs_diff"] < 1e-6


@pytest.mark.slow
def test_a_pruned_classifier_passes(image_checkpoints, image_splits_folder, tmp_path):
    keep = Keep(ffn=0.5, heads=0.5, layers=0.5)
    prune(TransformerPrune(keep=keep, round_to=8), image_checkpoints["vit"], image_splits_folder, tmp_path)
    assert read_result(tmp_path).gates[0].numbers["max_abs_diff"] < 1e-6


def test_a_classifier_opened_again_is_compared(image_checkpoints, copy_of):
    model, folder = tasks.load(image_checkpoints["vit"]), copy_of(image_checkpoints["vit"])
    inputs = {name: torch.from_numpy(each) for name, each in models.read_check_inputs(folder).items()}
    check_reopened(model, folder, inputs)
    assert read_result(folder).gates[-1].numbers["max_abs_diff"] == 0
    with torch.no_grad():
        model.module.net.classifier.bias[0] += 0.5
    with pytest.raises(GateError, match=r"max abs difference 0\.5\d*\n  allowed: 0\.0001"):
        check_reopened(model, folder, inputs)


@pytest.mark.slow
def test_a_changed_classifier_is_caught(image_checkpoints, copy_of):
    model, folder = tasks.load(image_checkpoints["vit"]), copy_of(image_checkpoints["vit"])
    with torch.no_grad():
        model.module.net.classifier.bias[0] += 0.5
    with pytest.raises(GateError, match=r"max abs difference 0\.5\d*; .*\n  allowed: 0\.0001"):
        check_reload(model, folder)
    [of_load] = read_result(folder).gates
    assert of_load.name.startswith("read as")


@pytest.mark.slow
def test_a_changed_checkpoint_is_caught(checkpoints, copy_of):
    encoder, folder = tasks.load(checkpoints["bert"]), copy_of(checkpoints["bert"])
    with torch.no_grad():
        encoder.stack.layers()[1].ffn_out.weight[0, 0] += 0.5
    with pytest.raises(GateError, match=r"max abs difference 0\.\d+.*\n  allowed: 0\.0001"):
        check_reload(encoder, folder)
    [of_load] = read_result(folder).gates
    assert of_load.name.startswith("read as")


@pytest.mark.slow
def test_a_checkpoint_stock_transformers_cannot_load(checkpoints, copy_of):
    folder = copy_of(checkpoints["bert"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(GateError, match=r"max abs difference inf; .*mismatch"):
        check_reload(tasks.load(checkpoints["bert"]), folder)

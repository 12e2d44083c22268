"""The reload gate, in the fresh process it really uses."""

import json

import pytest
import torch

from compress import families
from compress.config import Keep, StructuredPrune
from compress.errors import GateError
from compress.prune import prune
from compress.prune.reload import check_reload


def test_a_pruned_checkpoint_passes(checkpoints, splits_folder, tmp_path):
    keep = Keep(ffn=0.5, heads=0.5, layers=0.5)
    prune(StructuredPrune(keep=keep, round_to=8), checkpoints["bert"], splits_folder, tmp_path)
    assert json.loads((tmp_path / "reload.json").read_text())["max_abs_diff"] < 1e-6


@pytest.mark.slow
def test_a_changed_checkpoint_is_caught(checkpoints, copy_of):
    encoder, folder = families.load(checkpoints["bert"]), copy_of(checkpoints["bert"])
    with torch.no_grad():
        encoder.layers()[1].ffn_out.weight[0, 0] += 0.5
    with pytest.raises(GateError, match=r"max abs difference 0\.\d+.*\n  allowed: 0\.0001"):
        check_reload(encoder, folder)
    assert not (folder / "reload.json").exists()


@pytest.mark.slow
def test_a_checkpoint_stock_transformers_cannot_load(checkpoints, copy_of):
    folder = copy_of(checkpoints["bert"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(GateError, match=r"max abs difference inf; .*mismatch"):
        check_reload(families.load(checkpoints["bert"]), folder)

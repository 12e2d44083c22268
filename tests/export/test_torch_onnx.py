"""Classifiers of images as ONNX: right, for any batch, and the same bytes again."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from compress import tasks
from compress.config.export import TorchExport
from compress.errors import CompressError, GateError
from compress.export import export
from compress.stages.result import read_result
from compress.tasks.image_classification import model as image_classifier


@pytest.mark.parametrize("name", ["resnet", "depthwise", "vit"])
def test_it_computes_what_torch_computes(
    name, image_checkpoints, image_splits, image_splits_folder, tmp_path
):
    export(TorchExport(), image_checkpoints[name], image_splits_folder, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    model = tasks.load(image_checkpoints[name])
    for count in (1, 7):  # the batch is open
        inputs = model.inputs(image_splits.test.images[:count])
        (found,) = session.run(["logits"], {"pixel_values": inputs["pixel_values"].numpy()})
        with torch.no_grad():
            assert np.allclose(found, model.run(inputs).numpy(), atol=1e-4)
    assert read_result(tmp_path).gates[0].numbers["examples"] == 30


def test_the_same_bytes_again(image_checkpoints, image_splits_folder, tmp_path):
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export(TorchExport(), image_checkpoints["resnet"], image_splits_folder, tmp_path / name)
        made.append((tmp_path / name / "model.onnx").read_bytes())
    assert made[0] == made[1]
    assert str(Path(export.__code__.co_filename).parents[2]).encode() not in made[0]
    assert b".py" not in made[0]


def test_the_gate_holds_it_against_torch(image_checkpoints, image_splits_folder, tmp_path):
    with pytest.raises(GateError, match="max abs"):
        export(TorchExport(max_abs_diff=1e-12), image_checkpoints["vit"], image_splits_folder, tmp_path)


def test_an_operator_that_cannot_be_exported(image_checkpoints, image_splits_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        image_classifier.Classifier,
        "forward",
        lambda self, pixel_values: torch.linalg.eigvals(pixel_values).real,
    )
    with pytest.raises(CompressError, match="cannot be exported"):
        export(TorchExport(), image_checkpoints["resnet"], image_splits_folder, tmp_path)

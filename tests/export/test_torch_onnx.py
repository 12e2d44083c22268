"""Classifiers of images as ONNX: right, for any batch, and the same bytes again."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from compress import tasks
from compress.config.export import TorchExport
from compress.config.model import CausalLMModel, EncoderModel
from compress.errors import CompressError, GateError
from compress.export import export
from compress.export.torch_onnx import write
from compress.stages.result import read_result
from compress.tasks import import_model
from compress.tasks.base import Traced
from compress.tasks.image_classification import model as image_classifier
from tests.conftest import write_published


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


LAYER_TYPES = {  # of two kinds, each with its rotation
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16},
    "modernbert": {"layer_types": ["full_attention", "sliding_attention"], "num_hidden_layers": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYER_TYPES)
def test_the_order_in_which_a_set_is_walked_over_is_not_in_the_graph(
    name, write_language, language_texts, monkeypatch, tmp_path
):
    """Stock models rotate for each of `set(config.layer_types)`: other processes, other orders."""
    if name == "modernbert":
        published, config = write_published(tmp_path / name, name, **LAYER_TYPES[name]), EncoderModel
    else:
        published = write_language(tmp_path / name, name, language_texts, **LAYER_TYPES[name])
        config = CausalLMModel
    (tmp_path / "checkpoint").mkdir()
    import_model(config(source=f"path:{published}"), tmp_path / "checkpoint")
    model = tasks.load(tmp_path / "checkpoint")
    stock = sys.modules[type(getattr(model.module, "backbone", model.module)).__module__]
    walked, made = [], []
    for backwards in (False, True):

        def ordered(kinds, backwards=backwards):
            walked.append(kinds)
            return sorted(kinds, reverse=backwards)

        monkeypatch.setattr(stock, "set", ordered, raising=False)
        folder = tmp_path / str(backwards)
        folder.mkdir()
        write(model.traced(language_texts[:2]), folder / "model.onnx", TorchExport())
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert walked
    assert made[0] == made[1]


class Branching(torch.nn.Module):
    def forward(self, numbers):
        return numbers * 2 if numbers.max() > 3 else numbers


def test_what_torch_traced_before_it_failed_is_not_printed(tmp_path, capfd):
    names = {"input_names": ("numbers",), "output_names": ("doubled",)}
    inputs, axes = {"numbers": torch.arange(6).reshape(2, 3)}, {"numbers": {0: "batch"}}
    traced = Traced(module=Branching(), inputs=inputs, axes=axes, **names)
    with pytest.raises(CompressError, match="cannot be exported"):
        write(traced, tmp_path / "model.onnx", TorchExport())
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_cannot_be_exported(image_checkpoints, image_splits_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        image_classifier.Classifier,
        "forward",
        lambda self, pixel_values: torch.linalg.eigvals(pixel_values).real,
    )
    with pytest.raises(CompressError, match="cannot be exported"):
        export(TorchExport(), image_checkpoints["resnet"], image_splits_folder, tmp_path)

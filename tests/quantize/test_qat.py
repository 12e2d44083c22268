"""Training with rounding in place: nearer to the float net than without, and the file is what was trained."""

import hashlib
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from compress.config.quantize import Int8Qat, Int8Static
from compress.errors import GateError, ModelError
from compress.quantize import quantize
from compress.quantize.activations import calibration_feeds
from compress.quantize.qat import check_twins, loss
from compress.quantize.sqnr import measure
from compress.schema.quantization import Coverage, LayerErrors, Sensitivity
from compress.stages.result import read_result
from compress.tasks import load

FLAGS = ("avx512_vnni",)
ROUGH = {"per_channel": False, "examples": 12, "min_sqnr_db": -100.0}  # much is lost
CONFIG = Int8Qat(**ROUGH, epochs=4, batch_size=16, distill=1.0)


@pytest.fixture
def made(learned, image_splits_folder, tmp_path):
    def make(config, out="out", flags=FLAGS):
        (tmp_path / out).mkdir()
        quantize(config, flags, learned[1], learned[0], image_splits_folder, tmp_path / out)
        return tmp_path / out

    return make


@pytest.fixture
def logits(learned, image_splits):
    images = load(learned[0]).inputs(image_splits.test.images)["pixel_values"].numpy()
    return lambda path: onnxruntime.InferenceSession(path).run(None, {"pixel_values": images})[0]


def divergence(found, expected):
    """Mean KL(expected || found)."""
    ours, theirs = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (found, expected))
    return float((np.exp(theirs) * (theirs - ours)).sum(1).mean())


def test_nearer_to_the_float_net_than_without(made, logits, learned):
    static = made(Int8Static(**ROUGH), "static")
    trained = made(CONFIG, "trained")
    dense = logits(learned[1] / "model.onnx")
    lost = [divergence(logits(folder / "model.onnx"), dense) for folder in (static, trained)]
    assert lost[1] < lost[0] / 2
    told = read_result(trained).facts["qat"]
    assert told["best_epoch"] > 0
    assert len(told["train_loss"]) == 4
    assert len(told["select_loss"]) == len(told["select_accuracy"]) == 5
    assert told["select_loss"][told["best_epoch"]] == min(told["select_loss"]) < told["select_loss"][0]
    assert told["agreement"] >= 0.95
    assert read_result(trained).fact("coverage", Coverage).coverage_macs == 1


def test_layers_are_held_against_the_trained_floats(made, learned, image_splits_folder):
    """A weight that went two steps away is not two steps wrong."""
    out = made(replace(CONFIG, learning_rate=0.05, distill=0.0))
    assert read_result(out).facts["qat"]["best_epoch"] > 0
    found = read_result(out).fact("layer_errors", LayerErrors).layers
    feeds = calibration_feeds(learned[0], image_splits_folder, 30)
    beside_the_old = measure(onnx.load(learned[1] / "model.onnx"), onnx.load(out / "model.onnx"), feeds)
    apart = [sum(layer.alone_db for layer in layers) / 6 for layers in (found, beside_the_old)]
    assert len(found) == len(beside_the_old) == 6
    assert apart[0] > apart[1] + 3


def test_the_kernels_are_integer_ones(made, executed):
    operators = executed(made(CONFIG) / "model.onnx")
    assert (operators["QLinearConv"], operators["QGemm"], operators["Conv"]) == (5, 1, 0)


def test_twice_the_same_bytes(made):
    first, second = (
        hashlib.sha256((made(replace(CONFIG, epochs=1), out) / "model.onnx").read_bytes()).digest()
        for out in "ab"
    )
    assert first == second


def test_training_that_harms_is_not_kept(made):
    wild = replace(CONFIG, epochs=1, learning_rate=10.0)
    trained, static = made(wild, "wild"), made(Int8Static(**ROUGH), "static")
    told = read_result(trained).facts["qat"]
    assert told["best_epoch"] == 0
    assert told["select_loss"][1] > told["select_loss"][0]
    weights = [
        {t.name: numpy_helper.to_array(t) for t in onnx.load(out / "model.onnx").graph.initializer}
        for out in (trained, static)
    ]
    for name, value in weights[1].items():
        np.testing.assert_array_equal(weights[0][name], value)


def test_fewer_images_an_epoch(made, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "compress.quantize.qat.loss",
        lambda c, student, *rest: seen.append(len(student)) or loss(c, student, *rest),
    )
    made(replace(CONFIG, epochs=2, images=40))
    assert seen == [60, 16, 16, 8, 60, 16, 16, 8, 60]  # select, train, select, train, select


@pytest.mark.parametrize("flags", [("asimd",), ("avx2",)])
def test_on_other_grids(flags, made):
    """Symmetric activations, or weights of 7 bits, which this machine's kernels multiply all the same."""
    out = made(replace(CONFIG, epochs=1), flags=flags)
    assert read_result(out).facts["qat"]["steps_apart"] <= 8


def test_layers_may_stay_in_float_afterwards(made):
    out = made(replace(CONFIG, min_cosine=0.999999, min_coverage=0.3))
    found = read_result(out).fact("sensitivity", Sensitivity)
    assert any(layer.left_out for layer in found.layers)
    assert found.cosine > found.cosine_all
    assert read_result(out).fact("coverage", Coverage).coverage_macs < 1


def test_the_loss_by_hand():
    """Two classes: cross entropy log 2; the teacher has softened odds of 3 to 1, T = 2."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * np.log(3.0), 0.0]], dtype=torch.float32)
    kl = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    found = loss(Int8Qat(distill=0.25, temperature=2.0), student, teacher, np.array([1]))
    assert float(found) == pytest.approx(0.75 * np.log(2) + 0.25 * 4 * kl, rel=1e-5)


@pytest.mark.parametrize(
    ("agreement", "apart"), [(0.9, 1.0), (1.0, 9.0), (float("nan"), 0.0), (1.0, float("nan"))]
)
def test_a_file_that_does_not_answer_as_torch_did(agreement, apart):
    with pytest.raises(GateError, match=r"does not compute what was trained\n  found: .*equal answers"):
        check_twins(agreement, apart)


def test_a_wrong_scale_in_the_file_is_seen(made, monkeypatch):
    from compress.quantize import qat

    def damaged(net, quantized, reference):
        written, floats = real(net, quantized, reference)
        scale = next(t for t in written.graph.initializer if t.name.endswith("Relu_output_0_scale"))
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.5), scale.name))
        return written, floats

    real = qat.write_back
    monkeypatch.setattr(qat, "write_back", damaged)
    with pytest.raises(GateError, match="does not compute what was trained"):
        made(replace(CONFIG, epochs=1))


def test_a_vit_is_refused(image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    folders = image_graphs["vit"], image_checkpoints["vit"], image_splits_folder, tmp_path
    with pytest.raises(
        ModelError, match=r"cannot train this net\n.*\n  allowed: convolutional nets\n  next: .*int8_static"
    ):
        quantize(Int8Qat(examples=5), FLAGS, *folders)


def test_an_encoder_is_refused(quantized):
    with pytest.raises(ModelError, match=r"cannot train this net\n.*\n  allowed: convolutional nets"):
        quantized(Int8Qat(examples=5))

"""Static int8 of convolutional nets: integers from the first convolution on, and the right ones."""

import numpy as np
import onnx
import onnxruntime
import pytest

from compress import tasks
from compress.config.quantize import Calibrator, Int8Static
from compress.quantize import quantize
from compress.quantize.layers import is_convolutional, positions_of, quantized_layers, restored
from compress.schema.quantization import Coverage, LayerErrors, Sensitivity
from compress.stages.result import read_result

FLAGS = ("avx512_vnni",)


@pytest.fixture
def int8(image_graphs, image_checkpoints, image_splits_folder, tmp_path):
    def make(name, **changes):
        config = Int8Static(examples=30, **changes)
        quantize(config, FLAGS, image_graphs[name], image_checkpoints[name], image_splits_folder, tmp_path)
        return tmp_path

    return make


def logits(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"pixel_values": images})[0]


@pytest.mark.parametrize("name", ["resnet", "depthwise", "vit"])
@pytest.mark.parametrize("calibrator", list(Calibrator))
def test_it_stays_near_the_float_model(name, calibrator, int8, image_graphs, image_checkpoints, image_splits):
    out = int8(name, calibrator=calibrator)
    model = tasks.load(image_checkpoints[name])
    inputs = model.inputs(image_splits.test.images)["pixel_values"].numpy()
    dense, small = (logits(folder / "model.onnx", inputs) for folder in (image_graphs[name], out))
    cosine = (dense * small).sum(1) / np.linalg.norm(dense, axis=1) / np.linalg.norm(small, axis=1)
    assert cosine.mean() > 0.98
    covered = read_result(out).fact("coverage", Coverage).coverage_macs
    assert 0.9 < covered < 1 if name == "vit" else covered == 1  # its first convolution stays in float
    assert read_result(out).fact("layer_errors", LayerErrors).worst_alone_db > 15


@pytest.mark.parametrize("name", ["resnet", "depthwise"])
def test_the_runtime_computes_convolutions_in_integers(name, int8, tmp_path):
    """What onnxruntime makes of the graph has no convolution in float and no rounding between them."""
    out, optimized = int8(name), tmp_path / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(out / "model.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    assert "Conv" not in kinds
    assert "QLinearConv" in kinds
    assert kinds.count("QuantizeLinear") == 1  # of the input
    assert kinds.count("DequantizeLinear") <= 2


def test_layers_with_a_relu_drawn_in_are_found(int8, image_graphs):
    out = int8("resnet")
    reference = onnx.load(image_graphs["resnet"] / "model.onnx")
    layers = quantized_layers(reference, onnx.load(out / "model.onnx"))
    weights = [t for t in reference.graph.initializer if len(t.dims) >= 2]
    assert len(layers) == len(weights)


def test_a_convolution_counts_at_every_place(image_graphs, image_checkpoints):
    reference = onnx.load(image_graphs["resnet"] / "model.onnx")
    assert sorted(set(positions_of(reference).values())) == [1, 16, 64]
    found = sum(
        int(
            np.prod(
                next(t for t in reference.graph.initializer if t.name in node.input and len(t.dims) > 1).dims
            )
        )
        * positions_of(reference).get(node.output[0], 1)
        for node in reference.graph.node
        if node.op_type in ("Conv", "Gemm")
    )
    assert found == tasks.load(image_checkpoints["resnet"]).macs()


def test_restored_layers_compute_in_float_again(int8, image_graphs, image_checkpoints, image_splits):
    out = int8("resnet")
    reference, quantized = (onnx.load(f / "model.onnx") for f in (image_graphs["resnet"], out))
    layers = quantized_layers(reference, quantized)
    again = restored(quantized, reference, [layer.output for layer in layers[:2]])
    assert len(quantized_layers(reference, again)) == len(layers) - 2
    onnx.save(again, out / "again.onnx")
    inputs = tasks.load(image_checkpoints["resnet"]).inputs(image_splits.test.images)["pixel_values"].numpy()
    dense = logits(image_graphs["resnet"] / "model.onnx", inputs)
    errors = [np.abs(logits(out / name, inputs) - dense).mean() for name in ("again.onnx", "model.onnx")]
    assert errors[0] < 1.5 * errors[1]  # a broken graph would be far off


@pytest.mark.parametrize("places", [[0], [2], [4], [1, 2], [0, 1, 2, 3], [6]])
def test_only_what_was_restored_runs_in_float(places, int8, image_graphs, executed):
    """A convolution whose result goes on unrounded would be computed in float, whatever the file says."""
    out = int8("resnet")
    reference, quantized = (onnx.load(f / "model.onnx") for f in (image_graphs["resnet"], out))
    layers = quantized_layers(reference, quantized)
    onnx.save(restored(quantized, reference, [layers[place].output for place in places]), out / "again.onnx")
    operators = executed(out / "again.onnx")
    assert operators["Conv"] + operators["FusedConv"] == sum(place < 6 for place in places)
    assert operators["QLinearConv"] == 6 - sum(place < 6 for place in places)
    assert operators["QGemm"] == (6 not in places)


def test_between_two_restored_layers_nothing_is_rounded(int8, image_graphs):
    out = int8("depthwise")
    reference, quantized = (onnx.load(f / "model.onnx") for f in (image_graphs["depthwise"], out))
    layers = quantized_layers(reference, quantized)
    again = restored(quantized, reference, [layer.output for layer in layers[1:3]])
    between = next(n.output[0] for n in reference.graph.node if n.input[0] == layers[1].output)
    readers = [node for node in again.graph.node if between in node.input]
    assert [node.op_type for node in readers] == ["Conv"]


def test_layers_stay_in_float_by_their_sensitivity(int8, executed):
    out = int8("depthwise", min_cosine=0.999999, min_coverage=0.3, bias_correction=True)
    found, coverage = (
        read_result(out).fact("sensitivity", Sensitivity),
        read_result(out).fact("coverage", Coverage),
    )
    left = {layer.node for layer in found.layers if layer.left_out}
    assert 0 < len(left) < 6
    assert found.cosine > found.cosine_all
    assert coverage.coverage_macs == pytest.approx(1 - found.macs_left_out)
    assert 0.3 <= coverage.coverage_macs < 1
    assert {each.node for each in coverage.skipped} == left
    operators = executed(out / "model.onnx")
    layers = operators["QLinearConv"] + operators["QGemm"]
    assert layers == 6 - len(left)


def test_a_net_that_is_near_enough_stays_whole(int8):
    out = int8("resnet", min_cosine=0.5)
    assert read_result(out).fact("sensitivity", Sensitivity).met
    assert read_result(out).fact("coverage", Coverage).coverage_macs == 1


@pytest.mark.parametrize(("name", "expected"), [("resnet", True), ("depthwise", True), ("vit", False)])
def test_which_nets_are_convolutional(name, expected, image_graphs):
    assert is_convolutional(onnx.load(image_graphs[name] / "model.onnx").graph) is expected

"""SQNR per layer: against numbers by hand, and against layers broken on purpose."""

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from compress.config.quantize import Calibrator, Int8Dynamic, Int8Static
from compress.errors import GateError
from compress.quantize.activations import calibration_feeds, collect
from compress.quantize.layers import quantized_layers
from compress.quantize.sqnr import LIMIT_DB, check, measure, sqnr_db
from compress.schema.quantization import LayerErrors
from compress.stages.result import read_result


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [
        (100.0, 1.0, 20.0), (1.0, 1.0, 0.0), (1.0, 4.0, -6.0206), (1.0, 0.0, LIMIT_DB), (0.0, 0.0, LIMIT_DB),
        (0.0, 1.0, -LIMIT_DB), (1.0, math.nan, -LIMIT_DB), (1.0, math.inf, -LIMIT_DB),
    ],
)  # fmt: skip
def test_by_hand(signal, noise, expected):
    assert sqnr_db(signal, noise) == pytest.approx(expected, abs=1e-4)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(1e-2, 1e2))
def test_a_ratio_and_monotone(signal, noise, scale):
    assert sqnr_db(signal * scale, noise * scale) == pytest.approx(sqnr_db(signal, noise), abs=1e-6)
    assert sqnr_db(signal, noise * 1.01) < sqnr_db(signal, noise)


@pytest.fixture
def pair(graphs, quantized, checkpoints, splits_folder):
    """A float graph, its int8 twin and inputs."""

    def make(config, fuse=True):
        folder = quantized(config, "bert", fuse)
        return (
            onnx.load(graphs("bert", fuse) / "model.onnx"),
            onnx.load(folder / "model.onnx"),
            calibration_feeds(checkpoints["bert"], splits_folder, 8),
        )

    return make


@pytest.mark.parametrize("config", [Int8Dynamic(), Int8Static(examples=9)])
@pytest.mark.parametrize("fuse", [True, False])
def test_every_product_and_table_is_found_and_sound(config, fuse, pair):
    reference, int8, feeds = pair(config, fuse)
    errors = measure(reference, int8, feeds)
    assert len(errors) == 12 + 3
    assert sorted(errors, key=lambda error: error.alone_db) == list(errors)
    assert errors[0].alone_db > 20
    first = next(error for error in errors if "layer.0/attention/self/query" in error.node)
    last = next(error for error in errors if "layer.1/output/dense" in error.node)
    assert last.sqnr_db < last.alone_db  # it also gets what the layers before it lost
    assert first.node != last.node


def test_in_the_whole_graph_it_is_the_plain_difference(pair):
    """By numpy on the two graphs' own outputs."""
    reference, int8, feeds = pair(Int8Dynamic())
    layer = quantized_layers(reference, int8)[-1]
    x, y = (
        np.concatenate([run[layer.output].ravel() for run in collect(graph, [layer.output], feeds)])
        for graph in (reference, int8)
    )
    expected = 10 * np.log10((x.astype(float) ** 2).sum() / ((x.astype(float) - y) ** 2).sum())
    (found,) = (error for error in measure(reference, int8, feeds) if error.node == layer.node)
    assert found.sqnr_db == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("factor", [0.0, 2.0, -1.0])
def test_a_broken_layer_is_the_worst_and_fails_the_gate(factor, pair, tmp_path):
    reference, int8, feeds = pair(Int8Dynamic())
    node = next(
        n for n in int8.graph.node if n.op_type == "MatMulInteger" and "layer.0/intermediate" in n.name
    )
    (scale,) = (t for t in int8.graph.initializer if t.name == node.input[1].replace("_quantized", "_scale"))
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(factor), scale.name))
    errors = measure(reference, int8, feeds)
    assert "layer.0/intermediate" in errors[0].node
    assert errors[0].alone_db < 1
    assert errors[1].alone_db > 20  # the layers after it are sound, alone
    with pytest.raises(
        GateError, match=r"rounding breaks a layer\n  found:   .*layer\.0/intermediate.* dB\n"
    ):
        check(errors, Int8Dynamic().min_sqnr_db, len(feeds), tmp_path)
    assert read_result(tmp_path).facts["layer_errors"]["worst_alone_db"] == errors[0].alone_db


def test_nan_is_told_as_such(pair):
    reference, int8, feeds = pair(Int8Dynamic())
    scale = next(t for t in int8.graph.initializer if t.name.endswith("_scale"))
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32("nan"), scale.name))
    with pytest.raises(GateError, match="gives NaN"):
        measure(reference, int8, feeds)


def test_the_stage_stores_and_enforces_it(quantized, tmp_path):
    stored = read_result(quantized(Int8Dynamic())).fact("layer_errors", LayerErrors)
    assert (stored.floor_db, len(stored.layers)) == (5.0, 15)
    assert stored.worst_alone_db == stored.layers[0].alone_db > 20
    assert stored.worst_db == min(error.sqnr_db for error in stored.layers)
    assert read_result(tmp_path).fact("layer_errors", LayerErrors) is None
    clipped = Int8Static(calibrator=Calibrator.percentile, percentile=80.0, min_sqnr_db=20.0)
    with pytest.raises(GateError, match=r"rounding breaks \d+ layers"):
        quantized(clipped, out="clipped")

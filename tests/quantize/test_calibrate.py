"""Least-squares calibration beside brute force: every grid tried on the values themselves."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxruntime.quantization.quant_utils import compute_scale_zp

from compress.config.quantize import Calibrator, Int8Static
from compress.quantize import quantize
from compress.quantize.calibrate import Grid, Histogram, best_range, histograms, squared_errors
from compress.tasks import load

UNSIGNED, SYMMETRIC = Grid(low=0, high=255), Grid(low=-127, high=127, symmetric=True)


def error(values, scale, zero, grid):
    """What onnx says QuantizeLinear and DequantizeLinear do, summed over the values."""
    integers = np.clip(np.round(values / scale) + zero, grid.low, grid.high)
    return float((((integers - zero) * scale - values) ** 2).sum())


def onnxruntimes(low, high, grid):
    """Scale and zero point of a range."""
    ends = np.float32(low), np.float32(high)
    zero, scale = compute_scale_zp(*ends, np.array(grid.low), np.array(grid.high), grid.symmetric)
    return float(scale), int(zero)


def histogram_of(values):
    values = np.asarray(values, np.float32)
    return histograms([{"x": values}], {"x": (float(values.min()), float(values.max()))})["x"]


@given(
    st.lists(st.integers(0, 9), min_size=8, max_size=8),
    st.floats(-3, 1),
    st.floats(0.05, 2),
    st.sampled_from([Grid(low=0, high=15), Grid(low=-7, high=7, symmetric=True)]),
)
@settings(max_examples=60, deadline=None)
def test_the_integral_is_the_sum_over_values_spread_evenly_in_their_bins(counts, first, step, grid):
    edges = np.linspace(first, first + 4, 9)
    each = 2000  # values a count stands for
    middles = (np.arange(each) + 0.5) / each
    values = np.concatenate([low + 0.5 * middles for low in edges[:-1]])
    shares = np.repeat(np.array(counts, float), each) / each
    found = squared_errors(Histogram(edges=edges, counts=np.array(counts, float)), np.array([step]), grid)[0]
    for zero, integral in zip(grid.zeros(), found, strict=True):
        integers = np.clip(np.round(values / step) + zero, grid.low, grid.high)
        expected = (shares * ((integers - zero) * step - values) ** 2).sum()
        assert integral == pytest.approx(expected, rel=1e-3, abs=1e-3)


VALUES = {
    "heavy tails": lambda rng: rng.standard_t(3, 20_000),
    "relu": lambda rng: np.maximum(rng.standard_t(4, 20_000), 0),
    "below zero": lambda rng: rng.normal(size=20_000) - 5,
    "two outliers": lambda rng: np.concatenate([rng.normal(size=20_000), [40.0, -70.0]]),
    "uniform": lambda rng: rng.uniform(-1, 2, 20_000),
}


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("grid", [Grid(low=0, high=15), Grid(low=-7, high=7, symmetric=True)])
def test_no_grid_does_better(kind, grid):
    """All zero points and 400 steps, on the values themselves."""
    values = VALUES[kind](np.random.default_rng(0)).astype(np.float32)[::10]
    values = np.append(values, [40.0, -70.0]).astype(np.float32) if kind == "two outliers" else values
    found = error(values, *onnxruntimes(*best_range(histogram_of(values), grid), grid), grid)
    width = 2 * np.abs(values).max() if grid.symmetric else max(values.max(), 0) - min(values.min(), 0)
    whole = width / (grid.high - grid.low)
    best = min(
        error(values, whole * share, zero, grid)
        for share in np.linspace(0.02, 1, 400)
        for zero in grid.zeros()
    )
    assert found <= 1.02 * best


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("grid", [UNSIGNED, SYMMETRIC])
def test_never_worse_than_the_extremes_and_onnxruntime_makes_the_same_grid(kind, grid):
    values = VALUES[kind](np.random.default_rng(0)).astype(np.float32)
    histogram = histogram_of(values)
    scale, zero = onnxruntimes(*best_range(histogram, grid), grid)
    extremes = error(values, *onnxruntimes(min(values.min(), 0), max(values.max(), 0), grid), grid)
    found = error(values, scale, zero, grid)
    assert found <= 1.001 * extremes
    promised = squared_errors(histogram, np.array([scale]), grid)[0][int(zero - grid.zeros()[0])]
    assert found == pytest.approx(promised, rel=0.02)


def test_a_coarse_grid_gives_up_what_is_far_out():
    """On 4 bits two outliers would cost all others their places."""
    grid = Grid(low=0, high=15)
    values = np.append(np.random.default_rng(0).normal(size=20_000), [40.0, -70.0]).astype(np.float32)
    low, high = best_range(histogram_of(values), grid)
    assert -20 < low < -1
    assert 1 < high < 20


@pytest.mark.parametrize("grid", [UNSIGNED, SYMMETRIC])
def test_what_is_always_zero_has_a_range(grid):
    assert (
        best_range(histogram_of(np.zeros(9)), grid)[0] <= 0 <= best_range(histogram_of(np.zeros(9)), grid)[1]
    )


def test_histograms_count_all_but_zeros_and_what_another_session_found_a_bit_further_out():
    batches = [np.array([0, 1.0, 1.0]), np.array([[-1.0], [0.0], [3.0000002]])]
    found = histograms([{"x": batch.astype(np.float32)} for batch in batches], {"x": (-1.0, 3.0)})["x"]
    assert (found.edges[0], found.edges[-1]) == (-1.0, 3.0)
    assert found.counts.sum() == 4
    assert (found.counts[0], found.counts[1024], found.counts[-1]) == (1, 2, 1)


@pytest.mark.parametrize("flags", [("avx512_vnni",), ("asimd",)])
def test_the_grids_of_the_file_are_the_best_for_what_flows(
    flags, image_graphs, image_checkpoints, image_splits_folder, image_splits, tmp_path
):
    config = Int8Static(examples=12, calibrator=Calibrator.mse)
    graph, checkpoint = image_graphs["depthwise"], image_checkpoints["depthwise"]
    quantize(config, flags, graph, checkpoint, image_splits_folder, tmp_path)
    made = onnx.load(tmp_path / "model.onnx").graph
    grids = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.initializer}
    names = [node.input[0] for node in made.node if node.op_type == "QuantizeLinear"]
    names = [name for name in names if name.endswith("Relu_output_0")][:3]
    model = onnx.load(graph / "model.onnx")
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = load(checkpoint).inputs(image_splits.calibration.images[:12])["pixel_values"].numpy()
    grid, gained = UNSIGNED if flags == ("avx512_vnni",) else SYMMETRIC, []
    for name, values in zip(names, session.run(names, {"pixel_values": images}), strict=True):
        scale, zero = float(grids[f"{name}_scale"]), int(grids[f"{name}_zero_point"])
        found = error(values, scale, zero, grid)
        whole = values.max() / (grid.high - zero)
        best = min(error(values, whole * share, zero, grid) for share in np.linspace(0.3, 1, 300))
        # A sum over few rounding errors leaps from step to step: the least of 300 is a lucky one.
        assert found <= 1.1 * best
        gained.append(1 - found / error(values, whole, zero, grid))
    assert min(gained) > -0.001
    assert max(gained) > 0.05  # the extremes are not the best for each

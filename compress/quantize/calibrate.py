"""Calibration by least squares: of each tensor the 8-bit grid that loses least of what flows there.

Two passes over the examples: extremes first, then a histogram between them, so that memory stays that of
one example however many there are. What a grid loses is not estimated: it is integrated over the
histogram, rounding and clipping together, for every zero point and a row of steps (cf. Banner et al. 2019,
https://arxiv.org/abs/1810.05723, who have formulas for Gaussian and Laplacian tensors).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from compress.graph.surgery import producers
from compress.quantize.activations import collect

BINS = 2048
STEPS = np.geomspace(1, 1 / 64, 256)  # shares of the step that clips nothing
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Integers from `low` to `high`; symmetric: the zero point is in the middle."""

    low: int
    high: int
    symmetric: bool = False

    def zeros(self) -> Floats:
        """The zero points that there may be."""
        if self.symmetric:
            return np.array([round((self.low + self.high) / 2)], np.float64)
        return np.arange(self.low, self.high + 1, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts between `edges`, evenly apart, of all values but exact zeros, which every grid has."""

    edges: Floats  # [bins + 1]
    counts: Floats  # [bins]

    def below(self, ends: Floats, integral: Callable[[Floats], Floats]) -> Floats:
        """Sum over all values below each of `ends` of the function that `integral` is of.

        Values are taken as even within a bin, so that this is a difference of integrals.
        """
        first, width = self.edges[0], self.edges[1] - self.edges[0]
        density, at_edges = self.counts / width, integral(self.edges)
        whole = np.concatenate([[0.0], np.cumsum(density * np.diff(at_edges))])
        ends = np.clip(ends, first, self.edges[-1])
        bins = np.minimum(((ends - first) / width).astype(int), len(density) - 1)
        return np.asarray(whole[bins] + density[bins] * (integral(ends) - at_edges[bins]))

    def powers_below(self, ends: Floats, power: int) -> Floats:
        """Sum of x^power of all values x below each of `ends`."""
        return self.below(ends, lambda x: np.asarray(x ** (power + 1) / (power + 1)))


def best_range(histogram: Histogram, grid: Grid) -> tuple[float, float]:
    """Smallest and largest number of the grid with the least squared error.

    onnxruntime makes the same step and zero point of them again.
    """
    low, high = min(histogram.edges[0], 0.0), max(histogram.edges[-1], 0.0)
    if not histogram.counts.any():
        return float(low), float(high)
    width = 2 * max(-low, high) if grid.symmetric else high - low
    steps, zeros = width / (grid.high - grid.low) * STEPS, grid.zeros()
    errors = squared_errors(histogram, steps, grid)
    best = np.unravel_index(np.argmin(errors), errors.shape)
    step, zero = float(steps[best[0]]), float(zeros[best[1]])
    return (grid.low - zero) * step, (grid.high - zero) * step


def squared_errors(histogram: Histogram, steps: Floats, grid: Grid) -> Floats:
    """[steps, zero points]: sum of squared differences between values and what each grid makes of them.

    Between the ends of the grid a value goes to the nearest multiple of the step, beyond them to the end.
    """
    firsts, lasts = ((end - grid.zeros()) * steps[:, None] for end in (grid.low, grid.high))

    def rounded(step: float, first: Floats, last: Floats) -> Floats:
        def integral(x: Floats) -> Floats:
            exact = x / step
            nearest = np.round(exact)
            off = exact - nearest
            return step**3 * (nearest / 12 + off * off * off / 3)

        return histogram.below(last, integral) - histogram.below(first, integral)

    inside = np.stack(list(map(rounded, steps, firsts, lasts)))
    beneath = [histogram.powers_below(firsts, power) for power in range(3)]
    above = [
        histogram.powers_below(histogram.edges[-1:], power) - histogram.powers_below(lasts, power)
        for power in range(3)
    ]
    return inside + _distances(firsts, beneath) + _distances(lasts, above)


def _distances(ends: Floats, sums: Sequence[Floats]) -> Floats:
    """Sum of (x - end)^2 from the sums of x^0, x^1 and x^2."""
    return np.asarray(ends**2 * sums[0] - 2 * ends * sums[1] + sums[2])


def histograms(
    values: Iterable[Mapping[str, np.ndarray]], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, Histogram]:
    """Of each tensor named in `ranges`, over all of `values`; a range is (smallest, largest value)."""
    edges = {
        name: np.linspace(low, high if high > low else low + 1, BINS + 1)
        for name, (low, high) in ranges.items()
    }
    counts = {name: np.zeros(BINS) for name in ranges}
    for tensors in values:
        for name in ranges:
            flat = tensors[name].ravel()
            first, last = edges[name][0], edges[name][-1]
            # The extremes may come from another session, which adds in another order.
            flat = np.clip(flat[flat != 0], first, last)
            counts[name] += np.histogram(flat, BINS, (first, last))[0]
    return {name: Histogram(edges=edges[name], counts=counts[name]) for name in ranges}


def least_squares_ranges(
    model: Path, op_types: Sequence[str], examples: Callable[[], CalibrationDataReader], grid: Grid
) -> TensorsData:
    """Ranges of all that nodes of these types read and give, for `quantize_static` as a calibration cache.

    `examples` gives a reader that begins with the first example.
    """
    calibrator = create_calibrator(
        model, op_types, model.with_name("extremes.onnx").as_posix(), CalibrationMethod.MinMax
    )
    calibrator.collect_data(examples())
    extremes = {
        name: (float(np.min(data.range_value[0])), float(np.max(data.range_value[1])))
        for name, data in calibrator.compute_data().items()
    }
    made_by = producers(onnx.load(model).graph.node)
    inner = [name for name in extremes if name in made_by]
    values = (
        {**feed, **inside}
        for feed, inside in zip(_feeds(examples()), collect(model, inner, _feeds(examples())), strict=True)
    )
    ranges = {name: best_range(seen, grid) for name, seen in histograms(values, extremes).items()}
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in ranges.items()
        },
    )


def _feeds(reader: CalibrationDataReader) -> Iterator[dict[str, np.ndarray]]:
    return iter(reader.get_next, None)

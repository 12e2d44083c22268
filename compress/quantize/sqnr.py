"""Float against int8, layer by layer: the signal-to-quantization-noise ratio of what each layer gives.

SQNR = 10 log10(sum x^2 / sum (x - y)^2) in decibels, x in float and y in integers: 20 dB are an error of
10 %, 0 dB one as large as the signal. In the whole graph a layer also gets what the layers before it lost;
alone it gets float inputs, so that a broken layer stands out at any depth.
"""

import math
from pathlib import Path

import numpy as np
import onnx

from compress.errors import GateError
from compress.graph.gates import check_outputs
from compress.quantize.activations import Feeds, collect
from compress.quantize.layers import ALONE, beside, quantized_layers
from compress.schema.quantization import LayerError, LayerErrors
from compress.stages.result import gate, write_result

TEXTS = 16  # of the calibration split
LIMIT_DB = 150.0  # beyond what float32 can tell apart; stands for "equal"
_ADVICE = (
    "leave it in float with quantize.exclude, or try quantize.smooth=0.7 (transformers) or "
    "quantize.equalize=true (convolutions)"
)


def sqnr_db(signal: float, noise: float) -> float:
    """Of two sums of squares, within +-150 dB; the lowest for a noise that is no number."""
    if not (math.isfinite(noise) and math.isfinite(signal)):
        return -LIMIT_DB
    if noise == 0:
        return LIMIT_DB
    return max(-LIMIT_DB, min(LIMIT_DB, 10 * math.log10(signal / noise))) if signal > 0 else -LIMIT_DB


def measure(reference: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Feeds) -> tuple[LayerError, ...]:
    """Every layer that became integer, the worst alone first.

    `reference` is the float graph that was quantized: layers are matched by the names of their outputs.
    Raises GateError where the quantized graph's output is not finite or the same for different feeds.
    """
    layers = quantized_layers(reference, quantized)
    names = [layer.output for layer in layers]
    results = [value.name for value in reference.graph.output]
    signal, noise, alone = (dict.fromkeys(names, 0.0) for _ in range(3))
    twins = collect(beside(reference, quantized, names), [*names, *(name + ALONE for name in names)], feeds)
    outputs = []
    for expected, rounded in zip(twins, collect(quantized, [*names, *results], feeds), strict=True):
        outputs.append({name: rounded[name] for name in results})
        for name in names:
            signal[name] += _energy(expected[name])
            noise[name] += _energy(rounded[name] - expected[name])
            alone[name] += _energy(expected[name + ALONE] - expected[name])
    check_outputs(outputs, "the quantized graph")
    errors = [
        LayerError(
            node=layer.node,
            sqnr_db=sqnr_db(signal[layer.output], noise[layer.output]),
            alone_db=sqnr_db(signal[layer.output], alone[layer.output]),
        )
        for layer in layers
    ]
    return tuple(sorted(errors, key=lambda error: error.alone_db))


def check(
    errors: tuple[LayerError, ...], floor_db: float, texts: int, out: Path, advice: str = _ADVICE
) -> None:
    """Note the errors in `out/stage.json`; raise GateError where a layer alone lies below the floor."""
    described = LayerErrors(
        floor_db=floor_db,
        texts=texts,
        worst_alone_db=min((error.alone_db for error in errors), default=LIMIT_DB),
        worst_db=min((error.sqnr_db for error in errors), default=LIMIT_DB),
        layers=errors,
    )
    numbers = {name: value for name, value in vars(described).items() if name != "layers"}
    passed = gate("every layer alone near its float twin", **numbers)
    write_result(out, gates=[passed], facts={"layer_errors": described})
    broken = [error for error in errors if not error.alone_db >= floor_db]
    if broken:
        raise GateError(
            "rounding breaks a layer" if len(broken) == 1 else f"rounding breaks {len(broken)} layers",
            found=", ".join(f"{error.node} {error.alone_db:.1f} dB" for error in broken[:3]),
            allowed=f"at least {floor_db:g} dB of signal over noise (quantize.min_sqnr_db)",
            next=advice,
        )


def _energy(values: np.ndarray) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))

"""Which layers int8 hurts, and the cheapest ones to leave in float until the model is near enough again.

Damage of a layer: 1 - cosine between the model's output with this layer alone in integers and the float
model's, mean over `select` texts. On MiniLM the damages add up to that of all layers within 10 %, so
leaving out the layers with the most damage for their price is near the cheapest set; how many it takes is
found by bisection on the graphs themselves.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx

from compress.quantize.activations import Feeds, collect
from compress.quantize.layers import SWITCH, Layer, quantized_layers, restored, switched, total_macs
from compress.schema.report import LayerDamage, Sensitivity

RANK_TEXTS = 32  # for the ranking
TEXTS = 128  # for the cosine held against the floor
# Where not even all the layers that may be left out are enough: the share of their gain that is kept. The
# last of it is the dearest, such as a table of words that makes up half of the file.
NEARLY = 0.75
_BYTES = 3  # a weight in float32 takes more than one in int8
Outputs = list[dict[str, np.ndarray]]  # of each feed, by name


def leave_out(
    quantized: onnx.ModelProto,
    reference: onnx.ModelProto,
    feeds: Feeds,
    min_cosine: float,
    min_coverage: float,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> tuple[onnx.ModelProto, Sensitivity]:
    """The int8 graph with as few layers back in float as `min_cosine` needs, and what that took.

    `finish` is applied before a graph is measured and returned (bias correction). No more than
    1 - `min_coverage` of the multiply-accumulates go back to float; where that is not enough the graph
    returned has three quarters of what was to be gained, and `met` is False.
    """
    expected = run(reference, feeds)
    layers = quantized_layers(reference, quantized)
    macs = max(1, total_macs(reference))
    tried: dict[int, tuple[float, onnx.ModelProto]] = {}
    order: list[Layer] = []

    def cosine(count: int) -> float:
        if count not in tried:
            names = [layer.output for layer in order[:count]]
            graph = finish(restored(quantized, reference, names) if names else quantized)
            tried[count] = mean_cosine(run(graph, feeds), expected), graph
        return tried[count][0]

    damages = {layer.output: 0.0 for layer in layers}
    if not cosine(0) >= min_cosine:
        few = spread(feeds, RANK_TEXTS)
        damages = rank(reference, quantized, layers, few)
        spare = sum(layer.macs for layer in layers) - math.ceil(min_coverage * macs)
        order = affordable(by_price(layers, damages), spare)
    chosen = fewest(len(order), lambda count: cosine(count) >= min_cosine)
    if chosen is None:
        gained = cosine(0) + NEARLY * (cosine(len(order)) - cosine(0))
        chosen = fewest(len(order), lambda count: cosine(count) >= gained) or 0
    left = {layer.output for layer in order[:chosen]}
    return tried[chosen][1], Sensitivity(
        min_cosine=min_cosine,
        cosine_all=tried[0][0],
        cosine=tried[chosen][0],
        met=bool(tried[chosen][0] >= min_cosine),
        texts=len(feeds),
        bytes_added=sum(_BYTES * layer.weights for layer in order[:chosen]),
        macs_left_out=sum(layer.macs for layer in order[:chosen]) / macs,
        tried=tuple((count, tried[count][0]) for count in sorted(tried)),
        layers=tuple(
            LayerDamage(
                node=layer.node,
                damage=damages[layer.output],
                macs=layer.macs / macs,
                bytes_added=_BYTES * layer.weights,
                left_out=layer.output in left,
            )
            for layer in sorted(layers, key=lambda layer: -damages[layer.output])
            if order
        ),
    )


def rank(
    reference: onnx.ModelProto, quantized: onnx.ModelProto, layers: Sequence[Layer], feeds: Feeds
) -> dict[str, float]:
    """Output of each layer -> its damage alone. One session: switches in the graph choose the layer."""
    names = [layer.output for layer in layers]
    graph = switched(reference, quantized, names)
    off = {name + SWITCH: np.array(False) for name in names}
    cases = [off, *({**off, name + SWITCH: np.array(True)} for name in names)]
    outputs = run(graph, ({**feed, **case} for case in cases for feed in feeds))
    runs = [outputs[start : start + len(feeds)] for start in range(0, len(outputs), len(feeds))]
    return {name: 1 - mean_cosine(alone, runs[0]) for name, alone in zip(names, runs[1:], strict=True)}


def by_price(layers: Sequence[Layer], damages: Mapping[str, float]) -> list[Layer]:
    """Layers that do damage, the most damage for their price first.

    The price is their share of the multiply-accumulates (time) plus their share of the weights (bytes).
    """
    macs = max(1, sum(layer.macs for layer in layers))
    weights = max(1, sum(layer.weights for layer in layers))
    harmful = [layer for layer in layers if damages[layer.output] > 0]
    return sorted(
        harmful, key=lambda layer: -damages[layer.output] / (layer.macs / macs + layer.weights / weights)
    )


def affordable(layers: Sequence[Layer], macs: int) -> list[Layer]:
    """Those that fit, one after another, into so many multiply-accumulates; a dearer one is passed over."""
    fitting = []
    for layer in layers:
        if layer.macs <= macs:
            macs -= layer.macs
            fitting.append(layer)
    return fitting


def fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """The smallest count from 0 to `most` that is enough, if more never hurts; None where `most` is not."""
    if enough(0):
        return 0
    if most == 0 or not enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def run(model: onnx.ModelProto, feeds: Iterable[Mapping[str, np.ndarray]]) -> Outputs:
    return list(collect(model, [value.name for value in model.graph.output], feeds))


def mean_cosine(outputs: Outputs, expected: Outputs) -> float:
    """Over feeds, of the arrays as one vector each, 0 for one without length; that of the worst output."""
    cosines: dict[str, list[float]] = {name: [] for name in expected[0]}
    for tensors, wanted in zip(outputs, expected, strict=True):
        for name, of_output in cosines.items():
            x, y = (one[name].ravel().astype(np.float64) for one in (tensors, wanted))
            of_output.append(float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-30)))
    return float(np.min([np.mean(of_output) for of_output in cosines.values()]))


def spread(feeds: Feeds, count: int) -> Feeds:
    """About `count` of them, evenly from the shortest to the longest."""
    return feeds[:: max(1, len(feeds) // count)]

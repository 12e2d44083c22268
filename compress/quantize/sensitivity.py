"""Which layers rounding hurts, and the cheapest ones to leave in float until the model is good enough again.

Damage of a layer: 1 - cosine between the model's output with this layer alone rounded and the float
model's, mean over `select` examples. On MiniLM the damages add up to that of all layers within 10 %, so
leaving out the layers with the most damage for their price is near the cheapest set; how many it takes is
found by bisection on the graphs themselves.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from compress.quantize.activations import Feeds, collect
from compress.quantize.layers import SWITCH, Layer, quantized_layers, restored, switched, total_macs
from compress.schema.quantization import LayerDamage, Sensitivity

RANK_TEXTS = 32  # for the ranking
TEXTS = 128  # for the cosine held against the floor
# Where not even all the layers that may be left out are enough: the share of their gain that is kept. The
# last of it is the dearest, such as a table of words that makes up half of the file.
NEARLY = 0.75
Outputs = list[dict[str, np.ndarray]]  # of each feed, by name


@dataclass(frozen=True, kw_only=True)
class Goal:
    """`score` of a graph is to be `floor` at least; `metric` is the task's, or None for the cosine."""

    floor: float
    score: Callable[[onnx.ModelProto], float]
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """A rounded model whose layers can be left in float."""

    layers: Sequence[Layer]
    total_macs: int  # of all products with weights
    bytes_added: float  # to the file for each weight in float
    without: Callable[[Collection[str]], onnx.ModelProto]  # outputs of layers -> the graph, these in float
    damages: Callable[[], Mapping[str, float]]  # output of each layer -> its damage alone


def int8(
    quantized: onnx.ModelProto,
    reference: onnx.ModelProto,
    feeds: Feeds,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> Rounded:
    """What a quantizer gave; `finish` is applied before a graph is measured and returned: bias correction."""
    layers = quantized_layers(reference, quantized)
    return Rounded(
        layers=layers,
        total_macs=max(1, total_macs(reference)),
        bytes_added=3,  # 4 in float32
        without=lambda names: finish(restored(quantized, reference, names) if names else quantized),
        damages=lambda: rank(reference, quantized, layers, spread(feeds, RANK_TEXTS)),
    )


def leave_out(
    rounded: Rounded, goal: Goal, min_coverage: float, examples: int
) -> tuple[onnx.ModelProto, Sensitivity]:
    """The graph with as few layers in float as the goal needs, and what that took.

    For a metric of the task the last and the first product, which are heads and what reads the inputs, are
    tried first, and go back to integers where the others do without them. No more than 1 - `min_coverage` of
    the multiply-accumulates stay in float; where that is not enough the graph returned has three quarters of
    what was to be gained, and `met` is False.
    """
    tried: dict[frozenset[str], tuple[float, onnx.ModelProto]] = {}

    def score(chosen: Sequence[Layer]) -> float:
        names = frozenset(layer.output for layer in chosen)
        if names not in tried:
            graph = rounded.without(names)
            tried[names] = goal.score(graph), graph
        return tried[names][0]

    def enough(chosen: Sequence[Layer]) -> bool:
        return score(chosen) >= goal.floor

    order: list[Layer] = []
    damages: Mapping[str, float] = dict.fromkeys((layer.output for layer in rounded.layers), 0.0)
    ends: list[Layer] = []
    if not enough([]):
        damages = rounded.damages()
        spare = sum(layer.macs for layer in rounded.layers) - math.ceil(min_coverage * rounded.total_macs)
        products = [layer for layer in rounded.layers if layer.macs]
        ends = [] if goal.metric is None else list(dict.fromkeys([*products[-1:], *products[:1]]))
        priced = by_price(rounded.layers, damages)
        order = affordable([*ends, *(layer for layer in priced if layer not in ends)], spare)
    count = fewest(len(order), lambda count: enough(order[:count]))
    if count is None:
        gained = score([]) + NEARLY * (score(order) - score([]))
        count = fewest(len(order), lambda count: score(order[:count]) >= gained) or 0
    chosen = order[:count]
    for end in ends if enough(chosen) else []:
        others = [layer for layer in chosen if layer is not end]
        chosen = others if enough(others) else chosen
    left = frozenset(layer.output for layer in chosen)
    return tried[left][1], _told(rounded, goal, damages if order else {}, left, tried, examples)


def _told(
    rounded: Rounded,
    goal: Goal,
    damages: Mapping[str, float],
    left: Collection[str],
    tried: Mapping[frozenset[str], tuple[float, onnx.ModelProto]],
    examples: int,
) -> Sensitivity:
    floats = [layer for layer in rounded.layers if layer.output in left]
    macs, added = rounded.total_macs, rounded.bytes_added
    scores = {"all": tried[frozenset()][0], "kept": tried[frozenset(left)][0]}
    told: dict[str, Any] = {"min_cosine": goal.floor, "cosine_all": scores["all"], "cosine": scores["kept"]}
    if goal.metric is not None:
        told = {"metric": goal.metric, "max_drop": -goal.floor}
        told |= {"drop_all": -scores["all"], "drop": -scores["kept"]}
    sign = 1 if goal.metric is None else -1
    return Sensitivity(
        **told,
        met=bool(scores["kept"] >= goal.floor),
        texts=examples,
        bytes_added=round(sum(added * layer.weights for layer in floats)),
        macs_left_out=sum(layer.macs for layer in floats) / macs,
        tried=tuple(sorted((len(names), sign * value) for names, (value, _) in tried.items())),
        layers=tuple(
            LayerDamage(
                node=layer.node,
                damage=damages[layer.output],
                macs=layer.macs / macs,
                bytes_added=round(added * layer.weights),
                left_out=layer.output in left,
            )
            for layer in sorted(rounded.layers, key=lambda layer: -damages.get(layer.output, 0.0))
            if damages
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
    """Over feeds, of the arrays as one vector each, 0 for one without length; that of the worst output.

    Of an output of one number, such as the logit of a reranker, the cosine is over all feeds at once."""
    return float(
        np.min([_cosine([f[name] for f in outputs], [f[name] for f in expected]) for name in expected[0]])
    )


def _cosine(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    pairs = [
        (x.ravel().astype(np.float64), y.ravel().astype(np.float64))
        for x, y in zip(outputs, expected, strict=True)
    ]
    if all(y.size == 1 for _, y in pairs):
        pairs = [(np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs]))]
    lengths = (max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-30) for x, y in pairs)
    return float(np.mean([x @ y / length for (x, y), length in zip(pairs, lengths, strict=True)]))


def spread(feeds: Feeds, count: int) -> Feeds:
    """About `count` of them, evenly from the shortest to the longest."""
    return feeds[:: max(1, len(feeds) // count)]

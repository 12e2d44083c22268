"""Cross-layer equalization: channels between two convolutions get the same range of weights on both sides.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
(https://arxiv.org/abs/1906.04721), section 4.1: f(W2 f(W1 x + b1)) with W1 / s, b1 / s and s W2 is the same
function for every s > 0 of a channel if f is the identity or ReLU. With s = sqrt(r1 / r2), r the largest
magnitudes of the channel's weights, both become sqrt(r1 r2); a channel of a depthwise convolution lies
between two such pairs, so the pairs are gone through again until nothing moves.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.errors import ConfigError
from compress.graph.surgery import attributes, drop_dead, readers
from compress.graph.weights import Weights

_ROUNDS = 100  # chains of convolutions take fewer
_NEAR_ONE = 1e-3  # factors that need no further round
_LOUDER = 4.0  # than the largest bias no bias becomes
Floats = NDArray[np.float64]


@dataclass
class Kernel:
    """Weights of a convolution, [outputs, inputs / groups, ...], and its bias; changed in place."""

    weight: Floats
    bias: Floats | None
    groups: int

    def __post_init__(self) -> None:
        self.loudest = 0.0 if self.bias is None else _LOUDER * float(np.abs(self.bias).max())

    def least_factors(self) -> Floats | float:
        """A channel of next to no weights would be blown up to its bias; the paper absorbs such biases."""
        return np.abs(self.bias) / self.loudest if self.bias is not None and self.loudest else 0.0

    def outgoing(self) -> Floats:
        """Largest magnitude of the weights that make each output channel."""
        return np.asarray(np.abs(self.weight).reshape(len(self.weight), -1).max(1))

    def incoming(self) -> Floats:
        """Largest magnitude of the weights that read each input channel."""
        return np.asarray(np.abs(self._by_group()).max((1, 3)).ravel())

    def divide_outputs(self, factors: Floats) -> None:
        self.weight /= factors.reshape(-1, *[1] * (self.weight.ndim - 1))
        if self.bias is not None:
            self.bias /= factors

    def multiply_inputs(self, factors: Floats) -> None:
        grouped = self._by_group()
        grouped *= factors.reshape(self.groups, 1, -1, 1)

    def _by_group(self) -> Floats:
        """[groups, outputs of a group, inputs of a group, places], a view."""
        outputs, inputs = self.weight.shape[:2]
        return self.weight.reshape(self.groups, outputs // self.groups, inputs, -1)


def equalize(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float graph with the same output, up to rounding, whose channels are even.

    Left alone is what a residual or another branch reads too, and what a Clip (ReLU6) limits: a factor
    does not pass it. Raises ConfigError where no pair of convolutions is left.
    """
    even = copy.deepcopy(model)
    weights = Weights(even.graph, "_even")
    pairs = list(find_pairs(even.graph, weights))
    if not pairs:
        raise ConfigError(
            "quantize.equalize finds no two convolutions to even out",
            found=f"{sum(node.op_type == 'Conv' for node in model.graph.node)} convolutions",
            allowed="Conv -> Conv or Conv -> Relu -> Conv, nothing else reading what is between",
            next="quantize.equalize=false",
        )
    nodes = {node.output[0]: node for pair in pairs for node in pair}
    kernels = {name: _kernel(node, weights) for name, node in nodes.items()}
    even_out([(kernels[first.output[0]], kernels[second.output[0]]) for first, second in pairs])
    for name, node in nodes.items():
        for slot, value in enumerate((kernels[name].weight, kernels[name].bias), 1):
            if value is not None:
                node.input[slot] = weights.put(node.input[slot], value.astype(np.float32))
    drop_dead(even.graph)
    return even


def even_out(pairs: list[tuple[Kernel, Kernel]]) -> None:
    """Even out each pair, again and again until the factors are near 1."""
    for _ in range(_ROUNDS):
        moved = 0.0
        for first, second in pairs:
            factors = np.maximum(even_factors(first.outgoing(), second.incoming()), first.least_factors())
            first.divide_outputs(factors)
            second.multiply_inputs(factors)
            moved = max(moved, float(np.abs(np.log(factors)).max()))
        if moved < _NEAR_ONE:
            return


def even_factors(outgoing: Floats, incoming: Floats) -> Floats:
    """s of each channel, from both ranges of its weights; a channel without weights on a side stays."""
    live = (outgoing > 0) & (incoming > 0)
    return np.sqrt(np.where(live, outgoing, 1.0) / np.where(live, incoming, 1.0))


def find_pairs(graph: onnx.GraphProto, weights: Weights) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Convolutions with nothing but a ReLU between them, which nothing else reads, in the graph's order."""
    reading, outputs = readers(graph.node), {value.name for value in graph.output}

    def only_reader(name: str) -> onnx.NodeProto | None:
        nodes = reading.get(name, [])
        return nodes[0] if len(nodes) == 1 and name not in outputs else None

    def is_plain(node: onnx.NodeProto | None) -> bool:
        return node is not None and node.op_type == "Conv" and all(name in weights for name in node.input[1:])

    for node in graph.node:
        after = only_reader(node.output[0]) if is_plain(node) else None
        if after is not None and after.op_type == "Relu":
            after = only_reader(after.output[0])
        if after is not None and is_plain(after):
            yield node, after


def _kernel(node: onnx.NodeProto, weights: Weights) -> Kernel:
    bias = weights[node.input[2]].astype(np.float64) if len(node.input) > 2 else None
    return Kernel(weights[node.input[1]].astype(np.float64), bias, attributes(node).get("group", 1))

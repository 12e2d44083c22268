"""A convolutional QDQ graph as a torch module that trains: the same nodes, the same rounding.

Weights, biases and scales are where they were plus a shift, and the shifts are what is trained. They count
in steps of the grid: 1 moves a weight by one step, a scale so far that the outermost number moves by one, a
bias as if a weight on an input at the end of its range had moved by one. Folded batch normalisation leaves
channels of very different sizes; so all of them learn at the same rate.

The gradient passes rounding straight through and stops beyond the ends of the grid; that of a scale is then
Esser et al., "Learned Step Size Quantization", ICLR 2020 (https://arxiv.org/abs/1902.08153), equation 3,
trained as its logarithm as in Jain et al. 2020 (https://arxiv.org/abs/1903.08066).
"""

import copy
from collections.abc import Sequence
from functools import reduce

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from compress.graph.surgery import attributes, drop_dead
from compress.graph.weights import Weights
from compress.quantize.torch_nodes import cannot_train, check_nodes, run_node

_OUTERMOST = 127.0  # steps from zero
_INT32 = (-(2**31), 2**31 - 1)
Limits = tuple[int, int]


def fake_quantize(values: Tensor, step: Tensor, low: float, high: float) -> Tensor:
    """The multiples of `step` nearest to the values, from `low` to `high` of them; both count from zero."""
    exact = values / step
    rounded = exact + (torch.round(exact) - exact).detach()
    return rounded.clamp(low, high) * step


class Scale(nn.Module):
    """The step of a grid, or the steps of its channels."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.start = start
        self.shift = nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        return self.start * torch.exp(self.shift / _OUTERMOST)


class Constant(nn.Module):
    """A weight or bias in integers."""

    def __init__(
        self,
        layer: str,
        slot: int,
        start: Tensor,
        scales: Sequence[Scale],
        axis: int | None,
        limits: Limits,
        zero: int,
    ) -> None:
        """`layer`: name of the node, in both graphs, that reads it as its input `slot`. The step is the
        product of `scales`: one for a weight, two for a bias.

        `axis`: the one along which steps differ; `limits`: of the integers, of which `zero` is 0.
        """
        super().__init__()
        self.layer, self.slot, self.zero = layer, slot, zero
        self.low, self.high = (limit - zero for limit in limits)
        self.shape = [-1 if axis == i else 1 for i in range(start.ndim)] if axis is not None else []
        self.scales = nn.ModuleList(scales)
        self.start = start
        self.unit = self.step().detach() * (1.0 if len(scales) == 1 else 2 * _OUTERMOST)
        self.shift = nn.Parameter(torch.zeros_like(start))

    def step(self) -> Tensor:
        product: Tensor = reduce(torch.mul, [scale() for scale in self.scales])
        return product.reshape(self.shape)

    def value(self) -> Tensor:
        """In float, not rounded."""
        return self.start + self.shift * self.unit

    def forward(self) -> Tensor:
        return fake_quantize(self.value(), self.step(), self.low, self.high)

    def integers(self) -> NDArray[np.float64]:
        steps = torch.round(self.value() / self.step()).double()
        return np.asarray(steps.clamp(self.low, self.high) + self.zero)


class TorchGraph(nn.Module):
    """Images (batch, channels, height, width) -> what the graph gives for them."""

    def __init__(
        self, quantized: onnx.ModelProto, reference: onnx.ModelProto, weight_limits: Limits = (-127, 127)
    ) -> None:
        """`reference` is the float graph of `quantized`, with whose weights training starts.

        `weight_limits`: smallest and largest integer of a weight. Layers in float are not trained, and so
        of a float graph nothing is. Raises ModelError for a graph that cannot be trained like this.
        """
        super().__init__()
        graph = quantized.graph
        check_nodes(graph)
        self.nodes = list(graph.node)
        self.source, self.result = graph.input[0].name, graph.output[0].name
        self.last_use = {name: index for index, node in enumerate(self.nodes) for name in node.input}
        self.tensors = {t.name: _tensor(t) for t in graph.initializer}
        self.scales: dict[str, Scale] = {}
        self.constants: dict[str, Constant] = {}
        self._find_constants(reference.graph, weight_limits)
        for node in self.nodes:
            if node.op_type == "QuantizeLinear":
                self._scale(node)
            elif node.op_type == "DequantizeLinear" and node.input[0] in self.tensors.keys() - self.constants:
                raise cannot_train(node, "weights are the only constants that are rounded")
        self.parts = nn.ModuleList([*self.scales.values(), *self.constants.values()])  # for torch to find

    def forward(self, images: Tensor) -> Tensor:
        values = {self.source: images}
        for index, node in enumerate(self.nodes):
            values[node.output[0]] = self._run(node, values)
            for name in node.input:  # all of them until the end would be too much
                if self.last_use[name] == index:
                    values.pop(name, None)
        return values[self.result]

    def _run(self, node: onnx.NodeProto, values: dict[str, Tensor]) -> Tensor:
        if node.op_type == "QuantizeLinear":
            zero = self.tensors[node.input[2]]
            kind = torch.iinfo(zero.dtype)
            limits = kind.min - int(zero), kind.max - int(zero)
            return fake_quantize(values[node.input[0]], self._scale(node)(), *limits)
        if node.op_type == "DequantizeLinear":
            stored = node.input[0]
            return self.constants[stored]() if stored in self.constants else values[stored]
        return run_node(node, [values.get(name, self.tensors.get(name)) for name in node.input])

    def result_step(self) -> float | None:
        """Of the grid of what the graph gives; None where that is in float."""
        for node in self.nodes:
            if self.result in node.output and node.op_type == "DequantizeLinear":
                return float(self._scale(node)().detach())
        return None

    def _scale(self, node: onnx.NodeProto) -> Scale:
        """Of a QuantizeLinear or DequantizeLinear; several may share one."""
        name = node.input[1]
        if name not in self.scales:
            self.scales[name] = Scale(self.tensors[name])
        return self.scales[name]

    def _find_constants(self, reference: onnx.GraphProto, weight_limits: Limits) -> None:
        floats = {tensor.name: tensor for tensor in reference.initializer}
        twins = {node.name: node for node in reference.node}
        makers = {node.output[0]: node for node in self.nodes if node.op_type == "DequantizeLinear"}
        for layer in self.nodes:
            if layer.op_type not in ("Conv", "Gemm") or not all(name in makers for name in layer.input):
                continue
            inputs, *own = (makers[name] for name in layer.input)
            scales = [self._scale(inputs), self._scale(own[0])]
            for slot, maker in enumerate(own, 1):
                start = _tensor(floats[twins[layer.name].input[slot]])
                stored, scale, zero = maker.input
                axis = attributes(maker).get("axis", 1)
                weight = slot == 1
                self.constants[stored] = Constant(
                    layer.name,
                    slot,
                    start,
                    scales[1:] if weight else scales,
                    axis if self.tensors[scale].ndim else None,
                    weight_limits if weight else _INT32,
                    int(self.tensors[zero].flatten()[0]),
                )


@torch.no_grad()
def write_back(
    net: TorchGraph, quantized: onnx.ModelProto, reference: onnx.ModelProto
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Both graphs that `net` was made from with what it has learned, the float one before rounding."""
    rounded, floats = copy.deepcopy(quantized), copy.deepcopy(reference)
    tensors = {tensor.name: tensor for tensor in rounded.graph.initializer}
    layers = {node.name: node for node in floats.graph.node}
    weights = Weights(floats.graph, "_trained")

    def store(name: str, value: np.ndarray) -> None:
        old = numpy_helper.to_array(tensors[name])
        tensors[name].CopyFrom(numpy_helper.from_array(value.astype(old.dtype).reshape(old.shape), name))

    for name, scale in net.scales.items():
        store(name, scale().numpy())
    scale_of = {node.input[0]: node.input[1] for node in net.nodes if node.op_type == "DequantizeLinear"}
    for name, constant in net.constants.items():
        store(name, constant.integers())
        store(scale_of[name], constant.step().numpy())
        inputs = layers[constant.layer].input
        inputs[constant.slot] = weights.put(inputs[constant.slot], constant.value().numpy())
    drop_dead(floats.graph)
    return rounded, floats


def _tensor(stored: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(stored).copy())

"""Bias correction: give each product back the mean that quantization took from its output.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
(https://arxiv.org/abs/1906.04721), section 4.2 with its empirical variant of appendix D: layer after
layer, each with everything before it quantized and corrected.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization.quant_utils import QUANT_INPUT_SUFFIX

from compress.graph.surgery import drop_dead, producers
from compress.graph.weights import Weights
from compress.quantize.activations import Feeds, collect

_INT32 = np.iinfo(np.int32)
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A product of the float graph whose bias can be corrected in the quantized one."""

    expected: str  # tensor of the float graph ...
    quantized: str  # ... and of the quantized one that should have the same means
    axis: int  # of the channels
    add: Callable[[Floats], None]  # to the bias


def correct_bias(quantized: onnx.ModelProto, original: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """The quantized graph with E[original - quantized] added to the bias behind each product with weights.

    The expectation is over all tokens or pixels of the feeds, an output channel at a time. Both graphs name
    what comes out of a layer alike, as onnxruntime's quantizers leave it. A Conv or Gemm without a bias
    gets one; a MatMul without a vector of its own added to it stays as it is. Products that do not feed one
    another are corrected at once: 4 runs through the graph a transformer layer.
    """
    corrected = copy.deepcopy(quantized)
    weights = Weights(corrected.graph, "_corrected")
    places = {**_added(corrected.graph), **_built_in(corrected.graph, weights)}
    depths = {name: depth for name, depth in product_depths(original.graph).items() if name in places}
    expected = _means(original, [places[name] for name in depths], feeds, lambda place: place.expected)
    for depth in sorted(set(depths.values())):
        level = [places[name] for name in depths if depths[name] == depth]
        for place, mean in _means(corrected, level, feeds, lambda place: place.quantized).items():
            place.add(expected[place] - mean)
    drop_dead(corrected.graph)
    return corrected


def product_depths(graph: onnx.GraphProto) -> dict[str, int]:
    """Output of each product with weights -> how many such products lie on the longest way before it."""
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) >= 2}
    before: dict[str, int] = {}
    depths: dict[str, int] = {}
    for node in graph.node:
        depth = max((before.get(name, 0) for name in node.input), default=0)
        if node.op_type in ("MatMul", "Gemm", "Conv") and weights & set(node.input):
            depths[node.output[0]] = depth
            depth += 1
        before.update(dict.fromkeys(node.output, depth))
    return depths


def _added(graph: onnx.GraphProto) -> dict[str, Place]:
    """Products whose bias is a vector added to them, where nothing else reads the product or the vector."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    places = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for name, bias in (node.input, reversed(node.input)):
            vector = bias in initializers and len(initializers[bias].dims) == 1
            if vector and readers[name] == readers[bias] == 1:
                total = node.output[0]
                add = partial(_add_to_vector, initializers[bias])
                places[name] = Place(expected=total, quantized=total, axis=-1, add=add)
    return places


def _built_in(graph: onnx.GraphProto, weights: Weights) -> dict[str, Place]:
    """Conv and Gemm, whose third input is a bias."""
    places = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            output = node.output[0]
            # What the graph itself gives is rounded under its own name.
            name = output.removesuffix(QUANT_INPUT_SUFFIX)
            axis = 1 if node.op_type == "Conv" else -1
            add = partial(_add_to_bias, graph, weights, node)
            places[name] = Place(expected=name, quantized=output, axis=axis, add=add)
    return places


def _add_to_vector(bias: onnx.TensorProto, error: Floats) -> None:
    value = numpy_helper.to_array(bias) + error
    bias.CopyFrom(numpy_helper.from_array(value.astype(np.float32), bias.name))


def _add_to_bias(graph: onnx.GraphProto, weights: Weights, node: onnx.NodeProto, error: Floats) -> None:
    """A bias of the node's own, in 32 bits where it multiplies integers: their scale is inputs x weights."""
    made_by = producers(graph.node)
    makers = [made_by.get(name) for name in node.input[:2]]
    old = node.input[2] if len(node.input) > 2 else ""
    value = (_constant(old, weights, made_by) if old else 0.0) + error
    name = old or f"{node.name}_bias"
    if all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers):
        inputs, rows = (weights[maker.input[1]] for maker in makers if maker is not None)
        scale = np.asarray(inputs * rows, np.float32)  # of each channel, or one
        integers = np.clip(np.round(value / scale), _INT32.min, _INT32.max).astype(np.int32)
        stored = [weights.put(f"{name}_quantized", integers), weights.put(f"{name}_quantized_scale", scale)]
        zeros = np.zeros(scale.shape, np.int32)
        stored.append(weights.put(f"{name}_quantized_zero_point", zeros))
        name = f"{stored[0]}_float"
        axis = 0 if scale.ndim else None  # None: no attribute
        dequantize = helper.make_node("DequantizeLinear", stored, [name], name=name, axis=axis)
        graph.node.insert(list(graph.node).index(node), dequantize)
    else:
        name = weights.put(name, value.astype(np.float32))
    node.input[:] = [*node.input[:2], name]


def _constant(name: str, weights: Weights, made_by: Mapping[str, onnx.NodeProto]) -> Floats:
    if name in weights:
        return weights[name].astype(np.float64)
    integers, scale = (weights[stored].astype(np.float64) for stored in made_by[name].input[:2])
    return np.asarray(integers * scale)


def _means(
    model: onnx.ModelProto, places: Sequence[Place], feeds: Feeds, tensor: Callable[[Place], str]
) -> dict[Place, Floats]:
    """Mean of each place's tensor over all axes but that of the channels, and over all feeds."""
    sums = dict.fromkeys(places, np.zeros(()))
    counts = dict.fromkeys(places, 0)
    for values in collect(model, [tensor(place) for place in places], feeds):
        for place in places:
            value = np.moveaxis(values[tensor(place)], place.axis, -1)
            rows = value.reshape(-1, value.shape[-1])
            sums[place] = sums[place] + rows.sum(0, dtype=np.float64)
            counts[place] += len(rows)
    return {place: total / counts[place] for place, total in sums.items()}

"""Bias correction: give each product back the mean that quantization took from its output.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
(https://arxiv.org/abs/1906.04721), section 4.2 with its empirical variant of appendix D: layer after
layer, each with everything before it quantized and corrected.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from compress.quantize.activations import collect

Feeds = Sequence[Mapping[str, np.ndarray]]


def correct_bias(quantized: onnx.ModelProto, original: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """The quantized graph with E[original - quantized] added to the bias behind each product with weights.

    The expectation is over all tokens of the feeds, an output channel at a time. Both graphs name what
    the biases are added to and what comes out alike, as onnxruntime's quantizers leave it; a product
    without a bias of its own stays as it is. Products that do not feed one another are corrected at
    once: 4 runs through the graph a transformer layer.
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(quantized)
    biases = _biases(corrected.graph)
    depths = {
        biases[name][0]: depth for name, depth in product_depths(original.graph).items() if name in biases
    }
    tensors = dict(biases.values())
    expected = _means(collect(original, list(depths), feeds))
    for depth in sorted(set(depths.values())):
        level = [name for name in depths if depths[name] == depth]
        for name, found in _means(collect(corrected, level, feeds)).items():
            bias = tensors[name]
            value = numpy_helper.to_array(bias) + expected[name] - found
            bias.CopyFrom(numpy_helper.from_array(value.astype(np.float32), bias.name))
    return corrected


def product_depths(graph: onnx.GraphProto) -> dict[str, int]:
    """Output of each product with weights -> how many such products lie on the longest way before it."""
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    before: dict[str, int] = {}
    found: dict[str, int] = {}
    for node in graph.node:
        depth = max((before.get(name, 0) for name in node.input), default=0)
        if node.op_type in ("MatMul", "Gemm") and weights & set(node.input):
            found[node.output[0]] = depth
            depth += 1
        before.update(dict.fromkeys(node.output, depth))
    return found


def _biases(graph: onnx.GraphProto) -> dict[str, tuple[str, onnx.TensorProto]]:
    """Tensor -> its sum with a bias, and the bias, where nothing else reads the tensor or the bias."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    found = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for name, bias in (node.input, reversed(node.input)):
            vector = bias in initializers and len(initializers[bias].dims) == 1
            if vector and readers[name] == readers[bias] == 1:
                found[name] = node.output[0], initializers[bias]
    return found


def _means(runs: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean over all but the last axis, and over all runs."""
    sums: dict[str, np.ndarray] = {}
    tokens = 0
    for values in runs:
        for name, value in values.items():
            rows = value.reshape(-1, value.shape[-1])
            sums[name] = sums.get(name, 0.0) + rows.sum(0, dtype=np.float64)
        tokens += len(rows)
    return {name: total / tokens for name, total in sums.items()}

"""SmoothQuant: move what is hard to quantize from the activations into the weights.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
ICML 2023 (https://arxiv.org/abs/2211.10438): X W = (X / s)(s W), with a factor a channel
s_j = max|X_j|^alpha / max|W_j|^(1 - alpha).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from compress.graph.weights import Weights
from compress.quantize.activations import collect

_LEAST = 1e-5  # a channel that is always zero needs no factor, and must not get an infinite one


@dataclass(frozen=True, kw_only=True)
class Group:
    """The products with weights that read one activation."""

    tensor: str
    products: tuple[onnx.NodeProto, ...]


def factors(activations: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """Largest magnitudes of each input channel, of activations and weights, (channels,) -> factors s."""
    x, w = np.maximum(activations, _LEAST), np.maximum(weights, _LEAST)
    return np.asarray(x**alpha / w ** (1 - alpha), np.float32)


def smooth(
    model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, np.ndarray]],
    alpha: float,
    exclude: Collection[str] = (),
) -> onnx.ModelProto:
    """A float graph with the same output, up to rounding, that loses less when quantized.

    `alpha` from 0 (only the weights become even) to 1 (only the activations); nodes named in `exclude`
    are left alone. 1 / s goes into what makes the activation where that is exact and nothing else reads
    it: a LayerNormalization, or the values' projection in front of Attention, which weighs tokens and
    keeps channels apart. Elsewhere (a residual reads it too, or a GELU makes it) it is a Mul.
    """
    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(model)
    graph = smoothed.graph
    weights = Weights(graph, "_smooth")
    groups = _groups(graph, weights, exclude)
    largest = _largest(model, [group.tensor for group in groups], feeds)
    # All from the weights as they came: folding one group's factors changes the weights of another.
    scales = [factors(largest[group.tensor], _largest_rows(group, weights), alpha) for group in groups]
    for group, scale in zip(groups, scales, strict=True):
        for product in group.products:
            product.input[1] = weights.put(product.input[1], weights[product.input[1]] * scale[:, None])
        if not _fold(graph, weights, group, 1 / scale):
            _multiply(graph, weights, group, 1 / scale)
    weights.drop_unused()
    return smoothed


def _groups(graph: onnx.GraphProto, weights: Weights, exclude: Collection[str]) -> list[Group]:
    made = {output for node in graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        chosen = node.op_type == "MatMul" and node.name not in exclude
        if chosen and node.input[0] in made and weights.has(node.input[1], 2):
            readers[node.input[0]].append(node)
    return [Group(tensor=tensor, products=tuple(nodes)) for tensor, nodes in readers.items()]


def _largest(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Tensor -> largest magnitude of each channel, the last axis."""
    largest: dict[str, np.ndarray] = {}
    for values in collect(model, tensors, feeds):
        for name, value in values.items():
            here = np.abs(value).reshape(-1, value.shape[-1]).max(0)
            largest[name] = np.maximum(largest.get(name, here), here)
    return largest


def _largest_rows(group: Group, weights: Weights) -> np.ndarray:
    return np.asarray(np.max([np.abs(weights[node.input[1]]).max(1) for node in group.products], axis=0))


def _fold(graph: onnx.GraphProto, weights: Weights, group: Group, inverse: np.ndarray) -> bool:
    """Multiply the group's activation where it is made; False where that would change anything else."""
    producers = {output: node for node in graph.node for output in node.output}

    def read_only_by(tensor: str, nodes: Sequence[onnx.NodeProto]) -> bool:
        names = {node.output[0] for node in nodes}
        readers = [node for node in graph.node if tensor in node.input]
        outputs = {value.name for value in graph.output}
        return tensor not in outputs and all(node.output[0] in names for node in readers)

    source = producers[group.tensor]
    if not read_only_by(group.tensor, group.products):
        return False
    if source.op_type == "LayerNormalization" and all(weights.has(name, 1) for name in source.input[1:]):
        for index, name in list(enumerate(source.input))[1:]:
            source.input[index] = weights.put(name, weights[name] * inverse)
        return True
    if source.op_type != "Attention" or not read_only_by(source.input[2], [source]):
        return False
    heads = {a.name: a.i for a in source.attribute}
    biased = producers.get(source.input[2])
    if biased is None or biased.op_type != "Add" or heads.get("q_num_heads") != heads.get("kv_num_heads"):
        return False
    for bias, product in ((0, 1), (1, 0)):
        values = producers.get(biased.input[product])
        if values is None or values.op_type != "MatMul" or not weights.has(biased.input[bias], 1):
            continue
        if weights.has(values.input[1], 2) and read_only_by(values.output[0], [biased]):
            values.input[1] = weights.put(values.input[1], weights[values.input[1]] * inverse)
            biased.input[bias] = weights.put(biased.input[bias], weights[biased.input[bias]] * inverse)
            return True
    return False


def _multiply(graph: onnx.GraphProto, weights: Weights, group: Group, inverse: np.ndarray) -> None:
    """Put Mul(activation, 1 / s) in front of the group's products."""
    name = f"{group.tensor}_smooth"
    node = helper.make_node("Mul", [group.tensor, weights.put(f"{name}_inverse", inverse)], [name], name=name)
    place = min(index for index, other in enumerate(graph.node) if other in group.products)
    graph.node.insert(place, node)
    for product in group.products:
        product.input[0] = name

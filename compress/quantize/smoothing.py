"""SmoothQuant: move what is hard to quantize from the activations into the weights.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
ICML 2023 (https://arxiv.org/abs/2211.10438): X W = (X / s)(s W), with a factor a channel
s_j = max|X_j|^alpha / max|W_j|^(1 - alpha).
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx
from onnx import helper

from compress.graph.surgery import attributes, drop_dead, producers
from compress.graph.weights import Weights
from compress.quantize.activations import collect

_LEAST = 1e-5  # a channel that is always zero needs no factor, and must not get an infinite one


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
    it; elsewhere (a residual reads it too, or a GELU makes it) it is a Mul.
    """
    smoothed = copy.deepcopy(model)
    graph = smoothed.graph
    weights = Weights(graph, "_smooth")
    readers = _readers(weights, exclude)
    largest = _largest(model, list(readers), feeds)
    # All from the weights as they came: folding one group's factors changes the weights of another.
    scales = {
        tensor: factors(
            largest[tensor], np.max([np.abs(weights[node.input[1]]).max(1) for node in nodes], axis=0), alpha
        )
        for tensor, nodes in readers.items()
    }
    for tensor, nodes in readers.items():
        for node in nodes:
            multiply_rows(weights, node, scales[tensor])
        divide_input(weights, nodes, scales[tensor])
    drop_dead(graph)
    return smoothed


def _readers(weights: Weights, exclude: Collection[str]) -> dict[str, list[onnx.NodeProto]]:
    """Activation -> the products with weights that read it."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in weights.graph.node:
        chosen = node.op_type == "MatMul" and node.name not in exclude
        if chosen and node.input[0] in weights.made and weights.has(node.input[1], 2):
            readers[node.input[0]].append(node)
    return readers


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


def multiply_rows(weights: Weights, product: onnx.NodeProto, factors: np.ndarray) -> None:
    """Multiply what the weight (channels, outputs) of a product does to each input channel."""
    weight = weights.matrix(product.input[1])
    assert weight is not None
    product.input[1] = weights.put(product.input[1], weight * factors[:, None])


# ---------------------------------------------------------------- 1 / s, where the activation is made


def divide_input(
    weights: Weights,
    readers: Sequence[onnx.NodeProto],
    factors: np.ndarray,
    suffixes: tuple[str, str] = ("_smooth", "_smooth_inverse"),
    ignored: Collection[str] = (),
) -> None:
    """Divide what these nodes read first by `factors` (channels,).

    In what makes it, where `_PRODUCERS` says how and nothing else reads it but operators that are `ignored`;
    elsewhere by a Mul, `suffixes` being what its name and that of its constant have behind the tensor's.
    """
    graph = weights.graph
    tensor, inverse = readers[0].input[0], (1 / factors).astype(np.float32)
    source = producers(graph.node)[tensor]
    fold = _PRODUCERS.get(source.op_type)
    alone = source.output[0] == tensor and _read_only_by(graph, tensor, readers, ignored)
    if fold is not None and alone and fold(weights, source, inverse):
        return
    divided, constant = (tensor + suffix for suffix in suffixes)
    node = helper.make_node("Mul", [tensor, weights.put(constant, inverse)], [divided], name=divided)
    place = min(index for index, other in enumerate(graph.node) if other in readers)
    graph.node.insert(place, node)
    for reader in readers:
        reader.input[0] = divided


def _read_only_by(
    graph: onnx.GraphProto, tensor: str, nodes: Sequence[onnx.NodeProto], ignored: Collection[str] = ()
) -> bool:
    """Whether nothing else reads the tensor, but for operators that are `ignored`."""
    names = {node.output[0] for node in nodes}
    readers = [node for node in graph.node if tensor in node.input and node.op_type not in ignored]
    outputs = {value.name for value in graph.output}
    return tensor not in outputs and all(node.output[0] in names for node in readers)


def _maker(graph: onnx.GraphProto, tensor: str, op_type: str) -> onnx.NodeProto | None:
    return next((n for n in graph.node if n.op_type == op_type and tensor in n.output), None)


def _fold_into_norm(weights: Weights, norm: onnx.NodeProto, inverse: np.ndarray, slots: slice) -> bool:
    """Its scale, and its bias where it has one."""
    numbers = range(len(norm.input))[slots]
    if not all(weights.has(norm.input[slot], 1) for slot in numbers):
        return False
    for slot in numbers:
        norm.input[slot] = weights.put(norm.input[slot], weights[norm.input[slot]] * inverse)
    return True


def _fold_into_factor(weights: Weights, product: onnx.NodeProto, inverse: np.ndarray) -> bool:
    """A constant vector of a Mul, or the columns of the weights that make one of its factors: up_proj's in
    front of down_proj."""
    for slot, name in enumerate(product.input):
        if weights.has(name, 1) and weights[name].shape == inverse.shape:
            product.input[slot] = weights.put(name, weights[name] * inverse)
            return True
    for name in product.input:
        maker, place, parts = _maker(weights.graph, name, "MatMul"), 0, 1
        split = _maker(weights.graph, name, "Split")
        if (
            split is not None
            and len(split.input) == 1
            and _read_only_by(weights.graph, split.input[0], [split])
        ):
            maker = _maker(weights.graph, split.input[0], "MatMul")  # gate and up, in equal parts
            place, parts = list(split.output).index(name), len(split.output)
        if maker is not None and _read_only_by(weights.graph, name, [product]):
            weight = weights.matrix(maker.input[1])
            if weight is not None and weight.shape[1] == parts * len(inverse):
                columns = np.ones((parts, len(inverse)), np.float32)
                columns[place] = inverse
                maker.input[1] = weights.put(maker.input[1], weight * columns.ravel())
                return True
    return False


def _fold_into_values(weights: Weights, attention: onnx.NodeProto, inverse: np.ndarray) -> bool:
    """The projection of the values, and its bias: attention weighs tokens and keeps channels apart."""
    heads = attributes(attention)
    values = attention.input[2]
    biased = _maker(weights.graph, values, "Add")
    if biased is None or heads.get("q_num_heads") != heads.get("kv_num_heads"):
        return False
    if not _read_only_by(weights.graph, values, [attention]):
        return False
    for bias, product in ((0, 1), (1, 0)):
        maker = _maker(weights.graph, biased.input[product], "MatMul")
        if maker is None or not weights.has(biased.input[bias], 1) or not weights.has(maker.input[1], 2):
            continue
        if _read_only_by(weights.graph, maker.output[0], [biased]):
            maker.input[1] = weights.put(maker.input[1], weights[maker.input[1]] * inverse)
            biased.input[bias] = weights.put(biased.input[bias], weights[biased.input[bias]] * inverse)
            return True
    return False


Fold = Callable[[Weights, onnx.NodeProto, np.ndarray], bool]
# Operator -> how a factor for each channel of its first output goes into its constants; False: not at all.
_PRODUCERS: dict[str, Fold] = {
    "LayerNormalization": partial(_fold_into_norm, slots=slice(1, None)),
    "RMSNormalization": partial(_fold_into_norm, slots=slice(1, 2)),
    "SimplifiedLayerNormalization": partial(_fold_into_norm, slots=slice(1, 2)),
    "SkipSimplifiedLayerNormalization": partial(_fold_into_norm, slots=slice(2, 3)),
    "Mul": _fold_into_factor,
    "Attention": _fold_into_values,
}

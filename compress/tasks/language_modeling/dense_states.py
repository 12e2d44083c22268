"""What the dense language model says of the test text, computed once for all that are compared with it.

Its logits would fill gigabytes. They are kept as the last hidden states, and multiplied by the head when
they are needed: a fifth of the work of a small model, and a hundredth of the memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import InferenceSession

from compress.errors import ModelError
from compress.graph.decoder import KEEP
from compress.graph.session import Runtime, open_session
from compress.graph.surgery import drop_dead
from compress.graph.weights import FLOATS, Weights
from compress.runner.attention import choose_attention

Array = NDArray[np.float32]
_STATES = "states.npz"
_AT_ONCE = 8192  # tokens of the vocabulary: a head in 16 bits is widened so many at a time


@dataclass(frozen=True)
class DenseStates:
    states: tuple[Array, ...]  # of each window: (tokens, hidden)
    head: np.ndarray  # (hidden, vocabulary), float32 or half as wide; mapped from a file, where it is large

    def logits(self, window: int) -> Array:
        """(tokens, vocabulary)"""
        states = self.states[window]
        found = np.empty((len(states), self.head.shape[1]), np.float32)
        for start in range(0, found.shape[1], _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found[:, part] = states @ self.head[:, part].astype(np.float32, copy=False)
        return found


def save_states(model: Path, windows: Sequence[NDArray[np.int64]], out: Path) -> None:
    """Run `windows` of tokens through an ONNX file, each without a past.

    Weights that are stored in 16 bits are widened one after another. Raises ModelError for a graph whose
    logits are not the product of something with weights.
    """
    proto = onnx.load(model, load_external_data=False)
    graph = proto.graph
    states = _head(graph, model.name).product.input[0]
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(states, onnx.TensorProto.FLOAT, None))
    drop_dead(graph)
    narrow = any(tensor.data_type in FLOATS[1:] for tensor in graph.initializer)
    packed = proto.SerializeToString()
    del proto, graph
    choose_attention(max(map(len, windows)) ** 2)
    session = open_session(packed, Runtime(prepack=False, fold=not narrow, weights_folder=model.parent))
    del packed
    found = [session.run(None, _feeds(session, window))[0][0] for window in windows]
    np.savez(out / _STATES, *found, allow_pickle=False)


def load_states(model: Path, scores: Path) -> DenseStates:
    """What `save_states` wrote to `scores` for this file, whose head is read from it."""
    graph = onnx.load(model, load_external_data=False).graph
    found = _head(graph, model.name)
    head = Weights(graph, "", model.parent).read(found.weights)
    with np.load(scores / _STATES, allow_pickle=False) as stored:
        states = (stored[f"arr_{number}"] for number in range(len(stored.files)))
        scaled = tuple(each * np.float32(found.scale) for each in states)
    return DenseStates(scaled, head.T if found.turned else head)


class _Head(NamedTuple):
    product: onnx.NodeProto
    weights: onnx.TensorProto  # (hidden, vocabulary)
    turned: bool  # weights (vocabulary, hidden), which are the embedding's, too
    scale: float  # by which the product is multiplied


def _head(graph: onnx.GraphProto, name: str) -> _Head:
    """What gives the logits."""
    makers = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    last, scale = makers.get("logits"), 1.0
    number = _number(last.input[1], weights, makers) if last and last.op_type in ("Mul", "Div") else None
    if last is not None and number:
        scale = number if last.op_type == "Mul" else 1 / number
        last = makers.get(last.input[0])
    if last is not None and last.op_type == "MatMul":
        name, turned = last.input[1], False
        while name not in weights and name in makers and makers[name].op_type in ("Cast", "Transpose"):
            turned ^= _turns(makers[name])
            name = makers[name].input[0]
        if name in weights:
            return _Head(last, weights[name], turned, scale)
    raise ModelError(
        f"{name} is no language model that others can be compared with",
        found=f"logits by {last.op_type if last else 'nothing'}",
        allowed="logits by MatMul with the weights of the head, and a number that they are multiplied by",
    )


def _turns(node: onnx.NodeProto) -> bool:
    """Whether it makes columns of the rows of a matrix."""
    orders = [list(each.ints) for each in node.attribute if each.name == "perm"]
    return node.op_type == "Transpose" and orders in ([], [[1, 0]])


def _number(
    name: str, weights: Mapping[str, onnx.TensorProto], makers: Mapping[str, onnx.NodeProto]
) -> float | None:
    """A value that the graph holds; None for one that is computed, or is not one number."""
    tensor = weights.get(name)
    if tensor is None and name in makers and makers[name].op_type == "Constant":
        tensor = makers[name].attribute[0].t
    return float(numpy_helper.to_array(tensor).item()) if tensor and np.prod(tensor.dims) == 1 else None


def _feeds(session: InferenceSession, window: NDArray[np.int64]) -> dict[str, np.ndarray]:
    tokens = {
        "input_ids": window[None],
        "attention_mask": np.ones((1, len(window)), np.int64),
        "position_ids": np.arange(len(window), dtype=np.int64)[None],
    }
    feeds: dict[str, np.ndarray] = {}
    for each in session.get_inputs():
        if each.name in tokens:
            feeds[each.name] = tokens[each.name]
        else:  # a cache of no tokens
            feeds[each.name] = np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32)
    if any(each.name == KEEP for each in session.get_overridable_initializers()):
        feeds[KEEP] = np.array([len(window)])
    return feeds

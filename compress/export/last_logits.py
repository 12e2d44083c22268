"""A prompt's logits of its last token only, which is all that writing on needs.

The head of a small model with a large vocabulary is a fifth of a prompt's products, and its logits are
200 kB a token.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.errors import GateError
from compress.graph.decoder import KEEP
from compress.graph.surgery import producers


def keep_last(path: Path) -> None:
    """Cut what the head reads of the graph at `path` to the last `num_logits_to_keep` tokens.

    The input's default is 1; `Decoder` asks for all. Raises GateError for a graph whose logits are not
    behind one MatMul.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    head = _head(graph)
    states, start, kept = head.input[0], f"{KEEP}/start", f"{KEEP}/states"
    constants = {KEEP: 1, f"{KEEP}/end": np.iinfo(np.int64).max, f"{KEEP}/axis": 1}
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), name) for name, value in constants.items()
    )
    graph.input.append(helper.make_tensor_value_info(KEEP, TensorProto.INT64, [1]))
    place = list(graph.node).index(head)
    head.input[0] = kept
    graph.node.insert(place, helper.make_node("Neg", [KEEP], [start], name=start))
    cut = helper.make_node("Slice", [states, start, f"{KEEP}/end", f"{KEEP}/axis"], [kept], name=kept)
    graph.node.insert(place + 1, cut)
    # onnxruntime-genai makes room for the logits of all tokens unless one is declared.
    logits = next(value for value in graph.output if value.name == "logits")
    logits.type.tensor_type.shape.dim[1].dim_value = 1
    later = producers(graph.node[place + 2 :])
    for value in [value for value in graph.value_info if value.name in later]:  # of the prompt's length
        graph.value_info.remove(value)
    onnx.save(model, path)


def _head(graph: onnx.GraphProto) -> onnx.NodeProto:
    """The last MatMul in front of the logits; scaling and capping of logits may follow it."""
    makers = producers(graph.node)
    node = makers.get("logits")
    while node is not None and node.op_type != "MatMul":
        node = next((makers[name] for name in node.input if name in makers), None)
    if node is None:
        raise GateError("no head was found in the exported graph", found="no MatMul in front of the logits")
    return node

"""A prompt's logits of its last token only, which is all that writing on needs.

The head of a small model with a large vocabulary is a fifth of a prompt's products, and its logits are
200 kB a token.
"""

import numpy as np
import onnx_ir as ir

from compress.errors import GateError
from compress.graph.decoder import KEEP


def keep_last(model: ir.Model) -> None:
    """Cut what the head reads to the last `num_logits_to_keep` tokens.

    The input's default is 1; `Decoder` asks for all. Raises GateError for a graph whose logits are not
    behind one MatMul.
    """
    graph = model.graph
    logits = next(value for value in graph.outputs if value.name == "logits")
    head = _head(logits)
    keep = _constant(graph, KEEP, 1)
    keep.shape, keep.type = ir.Shape([1]), ir.TensorType(ir.DataType.INT64)
    graph.inputs.append(keep)
    start = ir.node("Neg", [keep], name=f"{KEEP}/start")
    ends = _constant(graph, f"{KEEP}/end", np.iinfo(np.int64).max), _constant(graph, f"{KEEP}/axis", 1)
    cut = ir.node("Slice", [head.inputs[0], start.outputs[0], *ends], name=f"{KEEP}/states")
    start.outputs[0].name, cut.outputs[0].name = f"{KEEP}/start", f"{KEEP}/states"
    graph.insert_before(head, [start, cut])
    head.replace_input_with(0, cut.outputs[0])
    nodes = list(graph)
    for node in nodes[nodes.index(head) :]:  # of the prompt's length no longer
        for value in node.outputs:
            value.shape = None
    # onnxruntime-genai makes room for the logits of all tokens unless one is declared.
    logits.shape = ir.Shape(["batch_size", 1, None])


def _constant(graph: ir.Graph, name: str, number: int) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.array([number], np.int64), name=name))
    graph.register_initializer(value)
    return value


def _head(logits: ir.Value) -> ir.Node:
    """The last MatMul in front of the logits; scaling and capping of logits may follow it."""
    node = logits.producer()
    while node is not None and node.op_type != "MatMul":
        makers = [value.producer() for value in node.inputs if value is not None]
        node = next((maker for maker in makers if maker is not None), None)
    if node is None:
        raise GateError("no head was found in the exported graph", found="no MatMul in front of the logits")
    return node

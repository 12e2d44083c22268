"""A prompt's logits of its last token only, which is all that writing on needs.

The head of a small model with a large vocabulary is a fifth of a prompt's products, and its logits are
200 kB a token.
"""

import numpy as np
import onnx_ir as ir

from compress.graph.decoder import KEEP

HEAD = "/lm_head/MatMul"  # as the builder names it; scaling and capping of logits may follow


def keep_last(model: ir.Model) -> None:
    """Cut what the head reads to the last `num_logits_to_keep` tokens.

    The input's default is 1; `Decoder` asks for all. The builder's own option, `prune_lm_head`, leaves no
    choice. Raises KeyError for a graph without a head.
    """
    graph = model.graph
    nodes = {node.name: node for node in graph}
    head = nodes[HEAD]
    keep = _constant(graph, KEEP, 1)
    keep.shape, keep.type = ir.Shape([1]), ir.TensorType(ir.DataType.INT64)
    graph.inputs.append(keep)
    start = ir.node("Neg", [keep], name=f"{KEEP}/start")
    ends = _constant(graph, f"{KEEP}/end", np.iinfo(np.int64).max), _constant(graph, f"{KEEP}/axis", 1)
    cut = ir.node("Slice", [head.inputs[0], start.outputs[0], *ends], name=f"{KEEP}/states")
    for node in (start, cut):
        node.outputs[0].name = node.name
    graph.insert_before(head, [start, cut])
    head.replace_input_with(0, cut.outputs[0])
    for node in list(nodes.values())[list(nodes).index(HEAD) :]:  # of the prompt's length no longer
        for value in node.outputs:
            value.shape = None
    # onnxruntime-genai makes room for the logits of all tokens unless one is declared.
    graph.outputs[0].shape = ir.Shape(["batch_size", 1, None])


def _constant(graph: ir.Graph, name: str, number: int) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.array([number], np.int64), name=name))
    graph.register_initializer(value)
    return value

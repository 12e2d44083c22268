"""The factor of attention put into the blocks of the queries' weights.

Decoding is 1.12 times as fast without it (experiments/smollm2): it seems that onnxruntime's kernel for the
scores of one query takes products without a factor only, and packs all keys anew for each head with one. A
factor that is a power of two (heads of 64 or 256) changes no bit of a score.
"""

import onnx

from compress.graph.surgery import attributes, readers
from compress.graph.weights import Weights

_NORMS = slice(14, 16)  # inputs of GroupQueryAttention: norms of queries and keys, which undo a factor


def scale_queries(graph: onnx.GraphProto, weights: Weights) -> int:
    """Scale the queries, not their products with keys, where MatMulNBits without a bias makes them for one
    GroupQueryAttention, alone or above keys and values; how many were scaled."""
    makers = {output: node for node in graph.node for output in node.output}
    reading, count = readers(graph.node), 0
    for node in graph.node:
        if node.op_type != "GroupQueryAttention" or any(node.input[_NORMS]):
            continue
        has, maker = attributes(node), makers.get(node.input[0])
        factor = has.get("scale", 0.0)  # 0: the default, 1 / sqrt(size)
        if maker is None or maker.op_type != "MatMulNBits" or len(maker.input) > 4 or factor in (0.0, 1.0):
            continue
        if len(reading[node.input[0]]) > 1:
            continue
        heads, others = has["num_heads"], 0 if node.input[1] else 2 * has["kv_num_heads"]
        scales = weights[maker.input[2]].copy()
        scales[: len(scales) * heads // (heads + others)] *= factor
        maker.input[2] = weights.put(maker.input[2], scales)
        next(each for each in node.attribute if each.name == "scale").f = 1.0
        count += 1
    return count

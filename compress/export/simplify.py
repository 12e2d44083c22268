"""Passes over an exported graph for onnxruntime's CPU kernels; the numbers stay the same.

Measured on 2 cores with AMX, MiniLM of 128 tokens, fp32, p50 at batch 1 / 8: as exported 19.2 / 138 ms, with
both passes 17.4 / 126-132 ms.
"""

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import Pattern

_HEADS_FIRST = [0, 2, 1, 3]
_SCOPES = "pkg.torch.onnx.name_scopes"  # the modules that a node stands in, as torch's exporter notes them


def order_by_use(model: ir.Model) -> None:
    """Order nodes by what reads them, from the outputs on: their order is that of the trace, in which stock
    models walk over sets of strings, whose order is another in each process."""
    graph, used = model.graph, dict[ir.Node, None]()
    values: list[ir.Value | None] = [*graph.outputs]
    for value in values:  # which grow meanwhile
        node = value.producer() if value is not None else None
        if node is not None and node not in used:
            used[node] = None
            values.extend(node.inputs)
    nodes = [*(node for node in graph if node not in used), *reversed(used)]
    graph.remove(nodes)
    graph.extend(nodes)
    graph.sort()


def name_by_module(model: ir.Model) -> None:
    """Name each node by its module's path, /encoder/layer.0/attention/self/query/MatMul; values by nodes."""
    used: Counter[str] = Counter()
    for node in model.graph:
        *modules, _ = json.loads(node.metadata_props.get(_SCOPES, '[""]').replace("'", '"'))
        steps = [inner[len(outer) :].strip(".") for outer, inner in pairwise(modules)]
        name = "/".join(["", *steps, node.op_type])
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name] - 1}"
        for number, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{node.name}_output_{number}"


def name_operators(model: ir.Model) -> None:
    """GlobalAveragePool instead of ReduceMean over height and width, Flatten instead of a Reshape that keeps
    the batch: quantizers know them, and the first has an integer kernel."""
    for node in model.graph:
        if node.op_type == "ReduceMean" and _pools_globally(node):
            node.op_type = "GlobalAveragePool"
            node.attributes.clear()
            node.resize_inputs(1)
        elif node.op_type == "Reshape" and _flattens(node):
            node.op_type = "Flatten"
            node.attributes.clear()
            node.resize_inputs(1)


def protect_residual_sums(model: ir.Model) -> None:
    """Sum instead of Add in front of LayerNormalization.

    onnxruntime turns Add + LayerNormalization into SkipLayerNormalization when it loads the file; that kernel
    takes 4 times as long as the pair.
    """
    for node in model.graph:
        source = (
            node.inputs[0].producer() if node.op_type == "LayerNormalization" and node.inputs[0] else None
        )
        if source is not None and source.op_type == "Add":
            source.op_type = "Sum"


def _heads_apart(op: Any, queries: Any, keys: Any, values: Any) -> Any:
    """As the exporter writes it: (batch, tokens, heads * size) to (batch, heads, tokens, size), and back."""
    flat = (queries, keys, values)
    split = [op.Transpose(op.Reshape(each, _allow_other_inputs=True), perm=_HEADS_FIRST) for each in flat]
    mixed = op.Attention(*split, _allow_other_inputs=True, _outputs=["mixed"])
    return op.Reshape(op.Transpose(mixed, perm=_HEADS_FIRST), _allow_other_inputs=True)


def flatten_attention(model: ir.Model) -> None:
    """Let Attention split and join heads itself, which takes the place of eight nodes a layer."""
    heads_apart = Pattern(_heads_apart)
    for node in list(model.graph):
        if not (found := heads_apart.match(model, model.graph, node)):
            continue
        mixed, joined = found.bindings["mixed"], node.outputs[0]
        attention = mixed.producer()
        heads = [n for value in attention.inputs[:2] for n in _shape(value)[1:2] if isinstance(n, int)]
        if len(heads) < 2:
            continue
        for slot, name in enumerate(("queries", "keys", "values")):
            attention.replace_input_with(slot, found.bindings[name])
        for name, count in zip(("q_num_heads", "kv_num_heads"), heads, strict=True):
            attention.attributes.add(ir.AttrInt64(name, count))
        mixed.shape = joined.shape
        joined.replace_all_uses_with(mixed, replace_graph_outputs=True)


def _pools_globally(node: ir.Node) -> bool:
    images, *axes = node.inputs
    if not axes or len(_shape(images)) != 4 or not node.attributes.get_int("keepdims", 1):
        return False
    constant = None if axes[0] is None else ir.convenience.get_const_tensor(axes[0])
    return constant is not None and sorted(np.asarray(constant) % 4) == [2, 3]


def _flattens(node: ir.Node) -> bool:
    before, after = _shape(node.inputs[0]), _shape(node.outputs[0])
    return len(after) == 2 < len(before) and before[0] == after[0]


def _shape(value: ir.Value | None) -> tuple[int | ir.SymbolicDim, ...]:
    return tuple(value.shape) if value is not None and value.shape is not None else ()

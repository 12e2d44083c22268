"""Weights and arithmetic in 16-bit floats, half the size: for browsers and GPUs.

onnxruntime's converter does it. In 32 bits stays what sums over many numbers, and what no learned matrix is
in: positions, whose buckets and angles go wrong by their last digits, and masks. A runtime without kernels
for 16-bit floats, as onnxruntime has few for CPUs, casts and computes in 32 bits.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from compress.config.quantize import Float16
from compress.errors import GateError
from compress.graph import graph_path
from compress.graph.gates import check_outputs
from compress.graph.surgery import attributes, drop_dead, reads
from compress.quantize.activations import EXAMPLES, Feeds, calibration_feeds, collect
from compress.quantize.kernels import quiet
from compress.quantize.sensitivity import mean_cosine, run, spread
from compress.stages.result import gate, write_result

LARGEST = 65504.0  # of 16-bit floats
MASKED = 30_000.0  # in place of larger constants: two masks that are added stay in range
SEEN = 16  # examples whose activations are looked at
# A sum of squares, or of all tokens, leaves the range; Clip keeps the least divisor, 1e-12.
_IN_32_BITS = ["ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "Pow", "Clip"]
_DOWN = "_cast_to_fp16"  # after a tensor's name: what the converter rounds to get it
_ADVICE = "quantize=int8_dynamic, which keeps 32-bit floats between products"


def quantize(
    config: Float16, cpu_flags: Sequence[str], graph: Path, checkpoint: Path, splits: Path, out: Path
) -> None:
    """GateError where a number leaves the range of 16 bits, or an output is not that of the float graph."""
    model = prepared(onnx.load(graph_path(graph)))
    feeds = calibration_feeds(checkpoint, splits, EXAMPLES)
    largest = check_range(model, spread(feeds, SEEN))
    onnx.save(in_float16(model), graph_path(out))
    check(model, feeds, config.min_cosine, largest, out)


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose single numbers beyond 16 bits, which masks add, are large ones within; all nodes named."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, node in enumerate(copy.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) == 1:
            value = numpy_helper.to_array(tensor)
            if LARGEST < abs(value.item()) < np.inf:
                tensor.CopyFrom(numpy_helper.from_array(np.sign(value) * np.float32(MASKED), tensor.name))
    return copy


def in_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights and activations are 16-bit floats, its inputs and outputs as they were.

    `model` is one that `prepared` gave.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with quiet():
        converted = convert_float_to_float16(
            copy,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_IN_32_BITS],
            node_block_list=[node.name for node in not_learned(copy.graph)],
        )
    opened = ir.from_proto(converted)
    opened.graph.sort()  # the converter puts casts at the end
    sorted_again: onnx.ModelProto = ir.to_proto(opened)
    _spare_rounding(sorted_again.graph)
    return sorted_again


def not_learned(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes into which neither a matrix of floats goes nor a float input."""
    known = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT and _is_matrix(t)}
    known |= {v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    apart = []
    for node in graph.node:
        if known.isdisjoint(reads(node)):
            apart.append(node)
        else:
            known.update(node.output)
    return apart


def _is_matrix(tensor: TensorProto) -> bool:
    return bool(sum(size > 1 for size in tensor.dims) >= 2)


def _spare_rounding(graph: onnx.GraphProto) -> None:
    """Between two nodes in 32 bits the converter casts down and up again: let the second read the first."""
    casts = {
        node.output[0]: (node.input[0], attributes(node)["to"])
        for node in graph.node
        if node.op_type == "Cast"
    }
    floats = {  # what the converter's Cast to 16 bits reads
        name: source
        for name, (source, kind) in casts.items()
        if kind == TensorProto.FLOAT16 and source == name + _DOWN
    }
    for node in graph.node:
        for slot, name in enumerate(node.input):
            source, kind = casts.get(name, ("", 0))
            if kind == TensorProto.FLOAT:
                node.input[slot] = floats.get(source, name)
    drop_dead(graph)


def check_range(model: onnx.ModelProto, feeds: Feeds) -> float:
    """The largest finite activation that 16 bits have to hold; GateError where they cannot.

    It is looked at in the float graph, since onnxruntime on CPUs leaves casts out and hides what overflows.
    """
    kept = {node.name for node in not_learned(model.graph)}
    makers = {
        name: node for node in model.graph.node if node.name not in kept for name in node.output if name
    }
    found: dict[str, float] = dict.fromkeys(makers, 0.0)
    for values in collect(model, list(makers), feeds):
        for name, value in values.items():
            if value.dtype == np.float32:
                found[name] = max(found[name], float(np.abs(value[np.isfinite(value)]).max(initial=0.0)))
    worst = max(found, key=lambda name: found[name])
    if found[worst] > LARGEST:
        raise GateError(
            "an activation leaves the range of 16-bit floats",
            found=f"{found[worst]:.3g} in {makers[worst].op_type} {makers[worst].name}",
            allowed=f"at most {LARGEST:g}",
            next=_ADVICE,
        )
    return found[worst]


def check(reference: onnx.ModelProto, feeds: Feeds, floor: float, largest: float, out: Path) -> None:
    """Note in `out/stage.json` how near the graph there is to the float graph; raise GateError below the
    floor, and where an output is not finite."""
    expected, found = run(reference, feeds), run(onnx.load(graph_path(out)), feeds)
    check_outputs(found, "the graph in 16-bit floats")
    least = min(mean_cosine([one], [other]) for one, other in zip(found, expected, strict=True))
    numbers = {"min_cosine": least, "floor": floor, "largest_activation": largest}
    write_result(out, gates=[gate("near the float graph", examples=float(len(found)), **numbers)])
    if not least >= floor:
        raise GateError(
            "the model says something else in 16-bit floats",
            found=f"an output's cosine to the float graph's is {least:.5f}",
            allowed=f"at least {floor:g} (quantize.min_cosine)",
            next=_ADVICE,
        )

"""Where a call's time goes, by operator: onnxruntime's own profiler, in a process of each model's own.

It sees the graph as it runs: after fusions, with the kernels that were chosen.
"""

import math
import re
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import helper

from compress.benchmark.caches import capacities, scores, shared_cache
from compress.benchmark.timing import save_feeds
from compress.errors import BenchmarkError
from compress.graph import onnx_files
from compress.schema.speed import (
    ACTIVATIONS,
    ATTENTION,
    FLOAT,
    INTEGER,
    MOVES,
    NORMS,
    OTHER,
    ROUNDING,
    SUMS,
    Operator,
    Profile,
)
from compress.stages.typed_json import read_typed, write_typed
from compress.targets.base import Target

FILE = "profile.json"
SECONDS = 0.3  # of one model on one workload, after the warm-up
WARMUP_SECONDS = 0.2
FEWEST_CALLS, MOST_CALLS = 3, 50
PATIENCE_SECONDS = 600.0
_OPERATORS = {
    INTEGER: "MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul QLinearMatMul QGemm ConvInteger "
    "QLinearConv MatMulNBits",
    FLOAT: "MatMul FusedMatMul Gemm FusedGemm Conv FusedConv ConvTranspose MatMulFpQ4 FusedMatMulActivation",
    ATTENTION: "Attention MultiHeadAttention GroupQueryAttention QAttention Softmax QLinearSoftmax "
    "ScaledDotProductAttention SubgraphWithSoftmax",
    ROUNDING: "QuantizeLinear DequantizeLinear DynamicQuantizeLinear Round FakeQuantize",
    NORMS: "LayerNormalization SkipLayerNormalization EmbedLayerNormalization RMSNormalization "
    "SimplifiedLayerNormalization SkipSimplifiedLayerNormalization BatchNormalization "
    "InstanceNormalization GroupNormalization LpNormalization MVN RMS",
    ACTIVATIONS: "Gelu BiasGelu FastGelu QuickGelu Erf Relu LeakyRelu Tanh Sigmoid HardSigmoid HardSwish Elu "
    "Selu Softplus Swish Mish PRelu Clip",
    SUMS: "Add Sum Sub Mul Div Pow Sqrt Neg Exp Log Abs Max Min ReduceMean ReduceSum ReduceMax ReduceL2 "
    "QLinearAdd QLinearMul AveragePool GlobalAveragePool MaxPool Where Equal Less Greater And Or Not CumSum "
    "Eltwise Subgraph Reduce",
    MOVES: "Transpose Reshape Gather GatherElements GatherND Concat Slice Split Unsqueeze Squeeze Expand "
    "Cast Shape ConstantOfShape Identity Flatten Tile Pad Range ReorderInput ReorderOutput Trilu "
    "Reorder Convert",
}
_KIND = {op_type: kind for kind, names in _OPERATORS.items() for op_type in names.split()}
_CONTAINERS = {"If", "Loop", "Scan"}  # their time is that of the nodes inside
Shapes = list[tuple[int, ...]]
# What a trace appends to the name of a node that it made of several.
_FUSED = re.compile(r"(_token_\d+)?_kernel_time$")


def profile_model(
    target: Target, name: str, model: Path, inputs: Mapping[str, Mapping[str, np.ndarray]], out: Path
) -> None:
    """Profile `model`, an ONNX file or a variant's folder, on `inputs` (workload -> feeds).

    Writes `out/profile.json`. About a second a workload. Raises BenchmarkError naming the model.
    """
    of_graphs = [_profile_graph(target, name, path, inputs, out) for path in onnx_files(model)]
    profiles = {workload: joined([each[workload] for each in of_graphs]) for workload in inputs}
    write_typed(out / FILE, profiles, dict[str, Profile])


def _profile_graph(
    target: Target, name: str, model: Path, inputs: Mapping[str, Mapping[str, np.ndarray]], out: Path
) -> dict[str, Profile]:
    with tempfile.TemporaryDirectory(dir=out) as folder:
        path, workloads = str(model.absolute()), save_feeds(inputs, Path(folder) / "feeds")
        job = {
            "do": "profile",
            "name": name,
            "path": path,
            "workloads": workloads,
            "caches": shared_cache(model),
            "capacity": capacities(inputs),
            "scores": scores(inputs),
            "warmup_seconds": WARMUP_SECONDS,
            "seconds": SECONDS,
            "calls": [FEWEST_CALLS, MOST_CALLS],
        }
        files = [Path(path), *map(Path, workloads.values())]
        result = target.run(job, files, Path(folder), PATIENCE_SECONDS)
    graph = onnx.load(model, load_external_data=False).graph
    by_call = operators(result["events"], result["runs"], kernels(graph), block_bytes(graph))
    types, fallback = weight_types(graph), fallback_nodes(result["events"], result["provider"])
    return {
        workload: Profile(operators=of_call, weight_types=types, fallback_nodes=fallback)
        for workload, of_call in zip(inputs, by_call, strict=True)
    }


def joined(profiles: Sequence[Profile]) -> Profile:
    """That of graphs which run one after another."""
    sums: dict[tuple[str, str], Operator] = {}
    for operator in (operator for profile in profiles for operator in profile.operators):
        key = operator.kind, operator.op_type
        sums[key] = operator if key not in sums else _sum(sums[key], operator)
    return Profile(
        operators=_slowest_first(sums.values()),
        weight_types=tuple(sorted({kind for profile in profiles for kind in profile.weight_types})),
        fallback_nodes=sum(profile.fallback_nodes for profile in profiles),
    )


def _sum(left: Operator, right: Operator) -> Operator:
    amounts = ("ms", "nodes", "macs", "weight_bytes")
    return replace(left, **{name: getattr(left, name) + getattr(right, name) for name in amounts})


def _slowest_first(operators: Iterable[Operator]) -> tuple[Operator, ...]:
    return tuple(sorted(operators, key=lambda operator: (-operator.ms, operator.op_type)))


def fallback_nodes(events: Iterable[Mapping[str, Any]], provider: str) -> int:
    """How many nodes another execution provider than the one asked for ran."""
    nodes = [event for event in events if event.get("cat") == "Node" and "args" in event]
    return len({event["name"] for event in nodes if event["args"].get("provider", provider) != provider})


def load_profiles(folder: Path) -> dict[str, Profile]:
    """By workload, what `profile_model` wrote. Raises BenchmarkError when it cannot be read."""
    return read_typed(folder / FILE, dict[str, Profile], BenchmarkError, "profile again")


def operators(
    events: Iterable[Mapping[str, Any]],
    runs: Sequence[tuple[int, int]],
    kernels: Mapping[str, tuple[int, ...]] | None = None,
    packed: Mapping[str, int] | None = None,
) -> list[tuple[Operator, ...]]:
    """Operators of a call, the slowest first, for each of `runs`: (calls to skip, calls to count), in order.

    `events` is onnxruntime's trace, `kernels` the shapes that it hides, `packed` the bytes of weights in
    blocks. The time of a type is the median over the calls of its sum in a call.
    """
    events = list(events)
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    nodes: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[bisect_right(starts, event["ts"]) - 1].append(event)
    by_run, call = [], 0
    for skipped, counted in runs:
        call += skipped
        by_run.append(_of_calls([nodes[i] for i in range(call, call + counted)], kernels or {}, packed or {}))
        call += counted
    return by_run


def _of_calls(
    calls: Sequence[Sequence[Mapping[str, Any]]],
    kernels: Mapping[str, tuple[int, ...]],
    packed: Mapping[str, int],
) -> tuple[Operator, ...]:
    micros: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * len(calls))
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for i, events in enumerate(calls):
        for event in events:
            op_type, facts = event["args"]["op_name"], event["args"]
            if op_type in _CONTAINERS:
                continue
            given, made = _shapes(facts.get("input_type_shape")), _shapes(facts.get("output_type_shape"))
            node = _FUSED.sub("", event["name"])
            if hidden := kernels.get(node):
                given = [*given, hidden]
            key = (kind_of(op_type, given), op_type)
            micros[key][i] += event["dur"]
            if i == 0:
                macs = multiply_accumulates(op_type, given, made)
                size = packed.get(node)
                sums = (1, macs, _weight_bytes(op_type, key[0], given, made) if size is None else size)
                counts[key] = [old + new for old, new in zip(counts[key], sums, strict=True)]
    unsorted = [
        Operator(
            op_type=op_type,
            kind=kind,
            ms=median(each) / 1e3,
            **dict(zip(("nodes", "macs", "weight_bytes"), counts[kind, op_type], strict=True)),
        )
        for (kind, op_type), each in micros.items()
    ]
    return _slowest_first(unsorted)


def kind_of(op_type: str, given: Shapes) -> str:
    """The class of an operator; a product of two activations is part of attention."""
    kind = _kind(op_type)
    both = sum(len(shape) >= 3 for shape in given) >= 2
    return ATTENTION if kind in (INTEGER, FLOAT) and both and "Conv" not in op_type else kind


def _kind(op_type: str) -> str:
    """The name alone may not say whether a product is one of integers: its type then stands behind it."""
    name, _, computed = op_type.partition(" ")
    if computed:
        return INTEGER if computed in ("i8", "u8") else FLOAT
    return _KIND.get(name, OTHER)


def multiply_accumulates(op_type: str, given: Shapes, made: Shapes) -> int:
    """Of one node, from the shapes of its operands; weights that were packed in advance are not among them.

    0 for what is no product, and for a convolution whose kernel is not among the shapes.
    """
    if not given or not made or _kind(op_type) not in (INTEGER, FLOAT, ATTENTION) or "Softmax" in op_type:
        return 0
    result = math.prod(made[0])
    if op_type == "GroupQueryAttention":
        cache = next((shape for shape in given if len(shape) == 4), (0, 0, made[0][-2], 0))
        # the first of n new tokens sees all but n - 1 of the keys, the last one all
        return result * (2 * cache[-2] - made[0][-2] + 1)
    if "Attention" in op_type:
        activations = [shape for shape in given[:3] if len(shape) >= 3]
        if len(activations) == 3:  # queries, keys, values
            return math.prod(activations[0]) * activations[1][-2] + result * activations[2][-2]
        return 3 * result * given[0][-1] + 2 * result * given[0][-2]  # with the projections inside
    if "Conv" in op_type:
        kernels = [shape for shape in given[1:] if len(shape) >= 3]
        return result * math.prod(kernels[0][1:]) if kernels else 0
    return result * given[0][-1] if given[0] else 0


def weight_types(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Types of the constant operands of the integer products of a graph; the trace hides them."""
    names = {
        tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type).lower() for tensor in graph.initializer
    }
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    types = set()
    for node in graph.node:
        if _KIND.get(node.op_type) in (INTEGER, FLOAT) and node.op_type != "MatMulNBits":
            # a quantized convolution or QLinearMatMul has its weights fourth
            types |= {names.get(sources.get(name, name), "") for name in (*node.input[1:2], *node.input[3:4])}
    return tuple(sorted(types & {"int8", "uint8"}))


def kernels(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Name of each quantized convolution of a graph -> shape of its weights, which a trace hides."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.name: shapes[sources[node.input[1]]]
        for node in graph.node
        if node.op_type == "Conv" and sources.get(node.input[1]) in shapes
    }


def block_bytes(graph: onnx.GraphProto) -> dict[str, int]:
    """Name of each product with weights in blocks -> bytes of its weights, scales and zero points."""
    sizes = {
        tensor.name: math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in graph.initializer
    }
    for node in graph.node:  # a head that shares the embedding's codes may read them in another shape
        if node.op_type in ("Reshape", "Identity") and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    return {
        node.name: sum(sizes.get(name, 0) for name in node.input[1:])
        for node in graph.node
        if node.op_type == "MatMulNBits"
    }


def _weight_bytes(op_type: str, kind: str, given: Shapes, made: Shapes) -> int:
    if kind not in (INTEGER, FLOAT) or not given or not given[0] or not made or not made[0]:
        return 0
    kernel = [shape for shape in given[1:] if len(shape) >= 3] if "Conv" in op_type else []
    elements = math.prod(kernel[0]) if kernel else given[0][-1] * made[0][-1]
    half = op_type.endswith("16")
    return elements * (1 if kind == INTEGER else 2 if half else 4)


def _shapes(described: Sequence[Mapping[str, Sequence[int]]] | None) -> Shapes:
    """`[{"float": [1, 128]}] -> [(1, 128)]`."""
    return [tuple(shape) for each in described or () for shape in each.values()]

"""Products with weights in 4-bit blocks, all else in 16-bit floats: the smallest file for browsers.

The products become onnxruntime's MatMulNBits, their weights are rounded by GPTQ.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper

from compress.config.evaluate import EvaluateConfig
from compress.config.quantize import Float16Blocks
from compress.graph import graph_path
from compress.graph.surgery import drop_dead
from compress.graph.weights import Weights
from compress.quantize import coverage
from compress.quantize.activations import EXAMPLES, Feeds, calibration_feeds, collect
from compress.quantize.block_graph import MICROSOFT
from compress.quantize.blocks import Blocks, pack
from compress.quantize.float16 import SEEN, check, check_range, in_float16, prepared
from compress.quantize.goals import keep_goal, select_feeds
from compress.quantize.gptq import gptq
from compress.quantize.layers import Layer, total_macs
from compress.quantize.sensitivity import RANK_TEXTS, Rounded, mean_cosine, run, spread

BITS = 4


def quantize(
    config: Float16Blocks,
    cpu_flags: Sequence[str],
    graph: Path,
    checkpoint: Path,
    splits: Path,
    out: Path,
    evaluate: EvaluateConfig | None = None,
) -> None:
    """GateError where too few products got 4 bits, and as `compress.quantize.float16` raises it."""
    model = prepared(onnx.load(graph_path(graph)))
    excluded = coverage.excluded_nodes(model.graph, config.exclude)
    feeds = calibration_feeds(checkpoint, splits, EXAMPLES)
    largest = check_range(model, spread(feeds, SEEN))
    products = [node for node in products_of(Weights(model.graph, "")) if node.name not in excluded]
    half = in_float16(model)
    blocks = dict(in_blocks_of(model, products, feeds, config.block_size))
    small, left_out = with_blocks(half, blocks), list[str]()
    if config.max_drop is not None:
        select = select_feeds(checkpoint, splits)
        rounded = in_blocks(half, products, blocks, select, total_macs(model))
        small, left_out = keep_goal(config, rounded, half, select, checkpoint, splits, out, evaluate)
    onnx.save(small, graph_path(out))
    found = coverage.measure(graph_path(out), config.exclude, left_out)
    coverage.check(found, config.min_coverage, out)
    check(model, feeds, config.min_cosine, largest, out)


def products_of(weights: Weights) -> list[onnx.NodeProto]:
    """The MatMuls of something computed with a constant matrix (inputs, outputs)."""
    return [
        node
        for node in weights.graph.node
        if node.op_type == "MatMul" and node.input[0] in weights.made and weights.has(node.input[1], 2)
    ]


def in_blocks_of(
    model: onnx.ModelProto, products: Sequence[onnx.NodeProto], feeds: Feeds, size: int
) -> Iterator[tuple[str, Blocks]]:
    """Name of each product -> its weight in blocks, rounded for what it reads on these feeds."""
    weights = Weights(model.graph, "")
    moments = second_moments(model, list(dict.fromkeys(node.input[0] for node in products)), feeds)
    for node in products:
        weight = torch.from_numpy(np.array(weights[node.input[1]].T))
        yield node.name, gptq(weight, torch.from_numpy(moments[node.input[0]]), BITS, size)


def second_moments(model: onnx.ModelProto, tensors: Sequence[str], feeds: Feeds) -> dict[str, np.ndarray]:
    """Tensor (..., channels) -> E[x x^T], float32 (channels, channels)."""
    sums: dict[str, np.ndarray] = {}
    rows = dict.fromkeys(tensors, 0)
    for values in collect(model, tensors, feeds) if tensors else ():
        for name, value in values.items():
            flat = value.reshape(-1, value.shape[-1])
            sums[name] = sums[name] + flat.T @ flat if name in sums else flat.T @ flat
            rows[name] += len(flat)
    return {name: total / rows[name] for name, total in sums.items()}


def in_blocks(
    half: onnx.ModelProto,
    products: Sequence[onnx.NodeProto],
    blocks: Mapping[str, Blocks],
    feeds: Feeds,
    macs: int,
) -> Rounded:
    """The model with products in blocks, each of which may stay in 16-bit floats; `macs`: of all products."""
    few = spread(feeds, RANK_TEXTS)
    names = {node.output[0]: node.name for node in products}
    sizes = {name: blocks[name].columns * len(blocks[name].codes) for name in names.values()}

    def damages() -> dict[str, float]:
        expected = run(half, few)
        alone = {output: with_blocks(half, {name: blocks[name]}) for output, name in names.items()}
        return {output: 1 - mean_cosine(run(graph, few), expected) for output, graph in alone.items()}

    return Rounded(
        layers=[
            Layer(node=name, output=output, macs=sizes[name], weights=sizes[name])
            for output, name in names.items()
        ],
        total_macs=max(1, macs),
        bytes_added=1.5,  # 2 in 16-bit floats
        without=lambda left: with_blocks(
            half, {name: blocks[name] for output, name in names.items() if output not in left}
        ),
        damages=damages,
    )


def with_blocks(half: onnx.ModelProto, blocks: Mapping[str, Blocks]) -> onnx.ModelProto:
    """A copy with these products in blocks."""
    copy = onnx.ModelProto()
    copy.CopyFrom(half)
    put(copy, blocks)
    return copy


def put(half: onnx.ModelProto, blocks: Mapping[str, Blocks]) -> None:
    """MatMulNBits in place of the MatMuls of these names, its scales in 16-bit floats."""
    weights = Weights(half.graph, "/blocks")
    for node in half.graph.node:
        made = blocks.get(node.name)
        if made is None:
            continue
        codes, scales, zeros = pack(made)
        parts = {"codes": codes, "scales": scales.astype(np.float16), "zeros": zeros}
        packed = [weights.put(f"{node.name}.{part}", value) for part, value in parts.items()]
        node.CopyFrom(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *packed],
                list(node.output),
                node.name,
                domain=MICROSOFT,
                K=made.columns,
                N=len(made.codes),
                bits=made.bits,
                block_size=made.size,
            )
        )
    if all(opset.domain != MICROSOFT for opset in half.opset_import):
        half.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    drop_dead(half.graph)

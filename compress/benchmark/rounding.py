"""By how much what a model gives moves where last digits are rounded otherwise, as right kernels do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.benchmark.agreement import HUGE, ROUND_INSIDE, Difference, differences, worst
from compress.graph.session import Runtime, open_session, running
from compress.graph.surgery import attributes, copied

JITTERED = 2**20  # numbers of the largest weights that are moved
DRAWS = 3
FLOATS = {TensorProto.FLOAT: 0.0, TensorProto.FLOAT16: 2.0**-10, TensorProto.BFLOAT16: 2.0**-7}  # least steps
STEPS = 127.0  # of 8 bits on each side of zero
ADDED = "rounding/"  # before the names of what is put into a graph
Feeds = Mapping[str, np.ndarray]


def noise(path: Path, batches: Sequence[Feeds], ours: Sequence[Feeds], step: float) -> dict[str, Difference]:
    """Output -> by how much it moves where every weight is `step` of itself larger or smaller, and where what
    operators round to 8 bits inside themselves is half a step of that away; in the first draw nothing that
    sums alone read is rounded to integers, in the others some of it.

    `ours` is what the model gives. A graph that rounds to integers makes steps of the last digits.
    """
    random, names, moved = np.random.default_rng(0), list(ours[0]), []
    for draw in range(DRAWS):
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_type in FLOATS and np.prod(tensor.dims) <= JITTERED:
                array = numpy_helper.to_array(tensor, str(path.parent))
                moves = _jittered(array, max(step, FLOATS[tensor.data_type]), random)
                tensor.CopyFrom(numpy_helper.from_array(moves, tensor.name))
        _round_otherwise(model.graph, random)
        _unrounded(model.graph, random, share=0.5 if draw else 1.0)
        session = open_session(model.SerializeToString(), Runtime(weights_folder=path.parent))
        with running():
            given = [dict(zip(names, session.run(names, each), strict=True)) for each in batches]
        moved.append(differences(ours, given))
    return {output: worst(each[output] for each in moved) for output in moved[0]}


def _jittered(array: np.ndarray, step: float, random: np.random.Generator) -> np.ndarray:
    """Every number larger or smaller by that part of it, but what masks add, and the largest there is."""
    wide = array.astype(np.float64)
    wide *= np.where(np.abs(wide) < HUGE, 1 + step * random.choice((-1.0, 1.0), array.shape), 1.0)
    with np.errstate(over="ignore"):
        moved = wide.astype(array.dtype)
    return np.where(np.isfinite(moved), moved, array)


def _round_otherwise(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    """Add to what such operators read as much as rounding to 8 bits takes off at most.

    A step is of the largest number of a block, or of a row where an operator names no blocks.
    """
    nodes: list[onnx.NodeProto] = []
    made: dict[tuple[str, int], str] = {}
    shapes = {}
    for node in graph.node:
        if node.op_type in ROUND_INSIDE:
            size = attributes(node).get("block_size", 0)
            read = node.input[0], size if size and attributes(node)["K"] % size == 0 else 0
            if read not in made:
                made[read] = f"{ADDED}{len(made)}"
                nodes += _moved(*read, made[read])
                shapes[f"{ADDED}shape{read[1]}"] = np.array([-1, read[1]])
            node.input[0] = made[read]
        nodes.append(node)
    numbers = {"factor": random.uniform(1e4, 2e4), "half": 0.5, "steps": STEPS, "least": 1e-30}
    arrays = {f"{ADDED}{name}": np.array(value, np.float32) for name, value in numbers.items()}
    for name, array in {**arrays, **shapes, f"{ADDED}last": np.array([-1])}.items() if made else ():
        graph.initializer.append(numpy_helper.from_array(array, name))
    copies = [copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _unrounded(graph: onnx.GraphProto, random: np.random.Generator, share: float) -> None:
    """Add to what sums alone read what rounding to integers took off, half a step at most, as OpenVINO does,
    which adds to what a convolution has before it is rounded. What is beyond the integers stays cut off."""
    made = {output: node for node in graph.node for output in node.output}
    read = Counter([*(name for node in graph.node for name in node.input), *(o.name for o in graph.output)])
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for place, name in enumerate(node.input if node.op_type == "Add" else ()):
            back = made.get(name)
            there = made.get(back.input[0]) if back and back.op_type == "DequantizeLinear" else None
            if not (back and there and there.op_type == "QuantizeLinear" and random.random() < share):
                continue
            if read[name] == read[back.input[0]] == 1:
                node.input[place] = _before_rounding(nodes, there.input[0], name, back.input[1])
        nodes.append(node)
    copies = [copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _before_rounding(nodes: list[onnx.NodeProto], exact: str, rounded: str, step: str) -> str:
    """The number that `rounded` stands for, half a step away from it at most; the nodes are added."""

    def make(op: str, *inputs: str) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{ADDED}{rounded}/{len(nodes)}"]))
        return str(nodes[-1].output[0])

    one = make("Div", step, step)  # in whatever floats the step is
    half = make("Div", step, make("Add", one, one))
    return make(
        "Add", rounded, make("Max", make("Min", make("Sub", exact, rounded), half), make("Neg", half))
    )


def _moved(read: str, block: int, gives: str) -> list[onnx.NodeProto]:
    """Evenly spread between -1/2 and 1/2 of a step is what a large multiple of a number has behind its point:
    operators that draw at random are not in every version of the standard that onnxruntime runs."""
    nodes: list[onnx.NodeProto] = []

    def make(op: str, *inputs: str, **more: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{gives}/{len(nodes)}"], **more))
        return str(nodes[-1].output[0])

    wide = make("Cast", read, to=TensorProto.FLOAT)
    if block:
        wide = make("Reshape", wide, f"{ADDED}shape{block}")
    largest = make("ReduceMax", make("Abs", wide), f"{ADDED}last", keepdims=1)
    share = make("Div", wide, make("Max", largest, f"{ADDED}least"))
    many = make("Mul", share, f"{ADDED}factor")
    part = make("Sub", make("Sub", many, make("Floor", many)), f"{ADDED}half")
    less = make("Mul", part, make("Div", largest, f"{ADDED}steps"))
    total = make("Reshape", make("Add", wide, less), make("Shape", read))
    nodes.append(helper.make_node("CastLike", [total, read], [gives]))
    return nodes

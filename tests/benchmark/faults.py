"""Kernels that are wrong: each changes one node of a graph, as a runtime's mistake would."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.config.target import LocalTarget
from compress.runner.jobs import OUTPUTS
from compress.runner.with_onnxruntime import OnnxruntimeModel
from compress.targets.base import Target
from compress.targets.local import Local

Change = Callable[["Edit"], None]


class Edit:
    """One node of a graph, and nodes put around it."""

    def __init__(self, graph: onnx.GraphProto, place: int) -> None:
        self.graph, self.place, self.node = graph, place, graph.node[place]
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []
        self.count = 0

    def set(self, **attributes: Any) -> None:
        kept = [each for each in self.node.attribute if each.name not in attributes]
        del self.node.attribute[:]
        self.node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])

    def drop(self, *slots: int) -> None:
        inputs = [name if slot not in slots else "" for slot, name in enumerate(self.node.input)]
        while inputs and not inputs[-1]:
            inputs.pop()
        self.node.input[:] = inputs

    def constant(self, value: Any, kind: Any = np.int64) -> str:
        self.count += 1
        name = f"fault/{self.node.name}/{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def make(self, nodes: list[onnx.NodeProto], op: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        output = f"fault/{self.node.name}/{self.count}"
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def read(self, slot: int, op: str, *others: str, **attributes: Any) -> None:
        """Put an operator before one of its inputs."""
        self.node.input[slot] = self.make(self.before, op, self.node.input[slot], *others, **attributes)

    def rolled(self, slot: int, axis: int) -> None:
        """Read one place further along an axis."""
        name = self.node.input[slot]
        axes, one, end = (self.constant([value]) for value in (axis, 1, 2**31))
        rest = self.make(self.before, "Slice", name, one, end, axes)
        first = self.make(self.before, "Slice", name, self.constant([0]), one, axes)
        self.node.input[slot] = self.make(self.before, "Concat", rest, first, axis=axis)

    def instead(self, compute: Callable[[Callable[..., str]], str]) -> None:
        """Give what `compute` makes in place of the first output."""
        output = self.node.output[0]
        self.node.output[0] = f"{output}/right"
        found = compute(lambda op, *inputs, **attributes: self.make(self.after, op, *inputs, **attributes))
        self.after.append(helper.make_node("Identity", [found], [output]))

    def done(self) -> None:
        nodes = [*self.graph.node]
        nodes[self.place : self.place + 1] = [*self.before, self.node, *self.after]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def another(op: str, **attributes: Any) -> Change:
    def change(edit: Edit) -> None:
        edit.node.op_type = op
        edit.set(**attributes)

    return change


def with_attributes(**attributes: Any) -> Change:
    return lambda edit: edit.set(**attributes)


def without(*slots: int) -> Change:
    return lambda edit: edit.drop(*slots)


def rolled(slot: int, axis: int) -> Change:
    return lambda edit: edit.rolled(slot, axis)


def swapped(one: int, other: int) -> Change:
    def change(edit: Edit) -> None:
        edit.node.input[one], edit.node.input[other] = edit.node.input[other], edit.node.input[one]

    return change


def transposed_weights(edit: Edit) -> None:
    edit.read(1, "Transpose", perm=[1, 0])


def index_off_by_one(edit: Edit) -> None:
    below = edit.make(edit.before, "Sub", edit.node.input[1], edit.constant(1))
    edit.node.input[1] = edit.make(edit.before, "Abs", below)


def flipped_kernel(edit: Edit) -> None:
    edit.read(1, "Slice", *(edit.constant(each) for each in ([-1, -1], [-(2**31)] * 2, [2, 3], [-1, -1])))


def truncated(edit: Edit) -> None:
    """Of QuantizeLinear or DynamicQuantizeLinear: towards minus infinity in place of the nearest."""
    dynamic = edit.node.op_type == "DynamicQuantizeLinear"
    x = edit.node.input[0]
    scale, zero = (edit.node.output if dynamic else edit.node.input)[1:3]

    def compute(make: Callable[..., str]) -> str:
        low = make("Floor", make("Div", x, scale))
        moved = make("Add", low, make("Cast", zero, to=TensorProto.FLOAT))
        signed = not dynamic and _kind(edit, zero) == TensorProto.INT8
        ends = (-128.0, 127.0) if signed else (0.0, 255.0)
        clipped = make("Clip", moved, *(edit.constant(end, np.float32) for end in ends))
        return make("Cast", clipped, to=TensorProto.INT8 if signed else TensorProto.UINT8)

    edit.instead(compute)


def _kind(edit: Edit, name: str) -> int:
    return next(tensor.data_type for tensor in edit.graph.initializer if tensor.name == name)


def pairs_saturate(edit: Edit) -> None:
    """Of MatMulInteger: products of two neighbours summed in 16 bits, as AVX2's vpmaddubsw does, zero points
    being taken off the right sum."""
    a, b = edit.node.input[:2]

    def compute(make: Callable[..., str]) -> str:
        left, right = (make("Cast", name, to=TensorProto.FLOAT) for name in (a, b))
        pairs = make("Reshape", right, edit.constant([-1, 2, _width(edit, b)]))
        rows = make("Unsqueeze", left, edit.constant([-1]))
        shape = make("Concat", make("Shape", left, start=0, end=-1), edit.constant([-1, 1, 2]), axis=0)
        each = make("MatMul", make("Reshape", rows, shape), pairs)
        ends = [edit.constant(end, np.float32) for end in (-32768, 32767)]
        lost = make("Sub", each, make("Clip", each, *ends))
        total = make("ReduceSum", lost, edit.constant([-3, -2]), keepdims=0)
        right_sum = make("Cast", f"{edit.node.output[0]}", to=TensorProto.FLOAT)
        return make("Cast", make("Sub", right_sum, total), to=TensorProto.INT32)

    edit.instead(compute)


def _width(edit: Edit, name: str) -> int:
    return next(tensor.dims[1] for tensor in edit.graph.initializer if tensor.name == name)


def node_of(graphs: Mapping[str, Path], op_type: str, number: int) -> str:
    """Name of the node of this type, by its number among them."""
    [path] = graphs.values()
    graph = onnx.load(path, load_external_data=False).graph
    return [node.name for node in graph.node if node.op_type == op_type][number]


def planted(path: Path, name: str, change: Change) -> Path | None:
    """Beside an ONNX file one whose nodes of this name are changed; None where it has no such node. They may
    be called NAME@NUMBER, as in a graph in pieces."""
    model = onnx.load(path, load_external_data=False)
    places = [i for i, node in enumerate(model.graph.node) if node.name.partition("@")[0] == name]
    for place in reversed(places):
        edit = Edit(model.graph, place)
        change(edit)
        edit.done()
    if not places:
        return None
    wrong = path.with_name("planted.onnx")
    onnx.save(model, wrong)
    return wrong


class WrongOn:
    """A target, whatever its runtime, with one wrong kernel."""

    def __init__(self, target: Target, name: str, change: Change) -> None:
        self.target, self.name, self.change = target, name, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def run(self, job: Any, files: Any, scratch: Path, seconds: float) -> dict[str, Any]:
        path = planted(Path(job["path"]), self.name, self.change)
        if path is None:
            return self.target.run(job, files, scratch, seconds)
        try:
            files = [path if str(file) == job["path"] else file for file in files]
            return self.target.run({**job, "path": str(path)}, files, scratch, seconds)
        finally:
            path.unlink()


class Planted(Local):
    """This machine with one wrong kernel: what the node of this name computes is changed, wherever it is.
    Jobs run in this process."""

    def __init__(self, name: str, change: Change) -> None:
        super().__init__(LocalTarget(threads=1))
        self.name, self.change, self.jobs = name, change, 0

    def _facts(self) -> dict[str, Any]:
        facts = super()._facts()
        return facts | {"runtime": facts["runtime"] | {"version": "another"}}

    def applies(self, path: Path) -> bool:
        return True

    def run(self, job: Any, files: Any, scratch: Path, seconds: float) -> dict[str, Any]:
        self.jobs += 1
        path = Path(job["path"])
        wrong = planted(path, self.name, self.change) if self.applies(path) else None
        try:
            request = {"path": str(wrong or path), "workloads": {}, "threads": 1}
            return OnnxruntimeModel(request).outputs(job["feeds"], str(scratch / OUTPUTS))
        finally:
            if wrong:
                wrong.unlink()

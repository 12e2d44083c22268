"""Which operator of a graph a target computes otherwise than onnxruntime here."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from compress.benchmark.agreement import Difference, Tolerance, differences, operator_agrees, operator_allowed
from compress.errors import BenchmarkError, ModelError
from compress.graph.pieces import SUFFIX, Piece, apart, computed, link_weights, pieces, values
from compress.graph.session import Runtime, open_session, running
from compress.graph.surgery import fetching, reads

Feeds = dict[str, np.ndarray]
There = Callable[
    [Path, Sequence[Feeds]], list[Feeds]
]  # what an ONNX file gives on the target, batch by batch


@dataclass(frozen=True)
class Culprit:
    piece: Piece
    output: str
    found: Difference
    allowed: str
    same_inputs: bool = True  # it was given what it reads here

    def __str__(self) -> str:
        how = "for the same inputs" if self.same_inputs else "the first in the whole graph"
        return f"operator {self.piece}, {how}: {self.found.words()}"


def first_alone(
    path: Path, batches: Sequence[Feeds], there: There, precision: str
) -> tuple[Culprit | None, int]:
    """The first piece that gives something else there for what it reads here, and how many were compared.

    None where there is none, or the target cannot run the pieces by themselves.
    """
    model = onnx.load(path, load_external_data=False)
    parts = pieces(model.graph)
    culprit, count = _wrong(model, path, parts, batches, there, precision)
    if culprit is None or len(culprit.piece.nodes) == 1:
        return culprit, count
    inside = {name for node in culprit.piece.nodes for name in node.output if name}
    single = [part for part in pieces(model.graph, single=True) if inside.intersection(part.gives)]
    inner, _ = _wrong(model, path, single, batches, there, precision)
    return inner or culprit, count


def _wrong(
    model: onnx.ModelProto,
    path: Path,
    parts: Sequence[Piece],
    batches: Sequence[Feeds],
    there: There,
    precision: str,
) -> tuple[Culprit | None, int]:
    try:
        known = [
            batch | each
            for batch, each in zip(
                batches, _run_here(model, path, values(model.graph, parts), batches), strict=True
            )
        ]
        arrays = {name for name, each in known[0].items() if isinstance(each, np.ndarray)}
        parts = [part for part in parts if arrays.issuperset((*part.reads, *part.gives)) and part.gives]
        with tempfile.TemporaryDirectory() as folder:
            alone = apart(model, parts, known, Path(folder), path)
            read = dict.fromkeys(name for part in parts for name in part.reads)
            feeds = [{name: each[name] for name in read} for each in known]
            given = there(alone, feeds)
            ours = _session_run(alone, feeds)
    except (BenchmarkError, ModelError):  # a runtime may refuse what no model holds
        return None, 0
    found = differences(ours, given)
    for part in parts:
        for name in part.gives:
            kind, each = known[0][name].dtype, found[name + SUFFIX]
            if not operator_agrees(each, kind, part.node.op_type, precision):
                return Culprit(part, name, each, operator_allowed(kind, part.node.op_type, precision)), len(
                    parts
                )
    return None, len(parts)


def first_together(path: Path, batches: Sequence[Feeds], there: There, allowed: Tolerance) -> Culprit | None:
    """The node behind which values first differ by more than `allowed`, found by halves: what a runtime
    computes in one with its neighbours may be wrong only together with them."""
    model = onnx.load(path, load_external_data=False)
    nodes = computed(model.graph)
    low, high, last = 0, len(nodes), None
    while low < high:
        middle = (low + high) // 2
        found = _frontier(model, path, nodes, middle + 1, batches, there)
        wrong = next((name for name, each in found.items() if not allowed.holds(each)), None)
        if wrong is None:
            low = middle + 1
        else:
            high, last = middle, (wrong, found[wrong])
    if last is None or low == len(nodes):
        return None
    node = nodes[low]
    piece = Piece(node, (node,), tuple(node.input), tuple(name for name in node.output if name))
    return Culprit(piece, last[0], last[1], str(allowed), same_inputs=False)


def _frontier(
    model: onnx.ModelProto,
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    count: int,
    batches: Sequence[Feeds],
    there: There,
) -> dict[str, Difference]:
    """What the first `count` nodes give to the others, or out of the graph, here and there."""
    read = {name for node in nodes[count:] for name in reads(node)} | {
        value.name for value in model.graph.output
    }
    names = [name for node in nodes[:count] for name in node.output if name and name in read]
    ours = _run_here(model, path, names, batches)
    floats = [name for name in names if all(isinstance(each[name], np.ndarray) for each in ours)]
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.onnx"
        cut.write_bytes(fetching(model, floats))
        link_weights(path, Path(folder))
        given = there(cut, batches)
    return differences([{name: each[name] for name in floats} for each in ours], given)


def _run_here(
    model: onnx.ModelProto, path: Path, names: Sequence[str], batches: Sequence[Feeds]
) -> list[Feeds]:
    session = open_session(fetching(model, names), Runtime(weights_folder=path.parent))
    with running():
        return [dict(zip(names, session.run(list(names), each), strict=True)) for each in batches]


def _session_run(path: Path, batches: Sequence[Feeds]) -> list[Feeds]:
    session = open_session(path)
    names = [value.name for value in session.get_outputs()]
    with running():
        return [dict(zip(names, session.run(names, each), strict=True)) for each in batches]

"""ONNX in, the same model in other operators out: what one runtime computes faster than another.

Each rewriting is tried on a target and kept where it is faster there (`compress/tune`). Most give the same
numbers to rounding; what does not is held against the quality of the model.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from compress.config.target import Rewrite
from compress.graph import graph_files, graph_path, named_graphs, shipped_files
from compress.graph.files import with_weights
from compress.graph.gates import check_interface, check_operators
from compress.rewrite.attention import plain_attention
from compress.rewrite.gelu import tanh_gelu
from compress.rewrite.norms import plain_norms
from compress.rewrite.weights import signed_weights, unsigned_weights
from compress.stages.result import read_result, write_result

NODES = "rewritten"  # the fact that says how many nodes


# Each changes a model in place and says how many nodes it rewrote.
REWRITES: Mapping[Rewrite, Callable[[onnx.ModelProto], int]] = {
    Rewrite.gelu_tanh: tanh_gelu,
    Rewrite.plain_norms: plain_norms,
    Rewrite.plain_attention: plain_attention,
    Rewrite.unsigned_weights: unsigned_weights,
    Rewrite.signed_weights: signed_weights,
}
INEXACT = {Rewrite.gelu_tanh}  # it changes the numbers by more than rounding


@dataclass(frozen=True)
class Rewriting:
    """What a stage is asked for, in this order."""

    rewrites: tuple[Rewrite, ...]


def rewrite(config: Rewriting, graph: Path, out: Path) -> None:
    """Write the graph of the variant in `graph` in other operators, and all else of it, into `out`.

    The fact `NODES` says how many nodes were rewritten: 0 where a rewriting found none. Gates and facts are
    those of the variant. Raises GateError where inputs or outputs changed.
    """
    path = graph_path(graph)
    before, model = onnx.load(path, load_external_data=False), onnx.load(path)
    counts = [REWRITES[each](model) for each in config.rewrites]
    check_interface(before.graph, model.graph)
    check_operators(model)
    onnx.save(model, graph_path(out))
    for name in set(shipped_files(graph)) - {path.name for path in graph_files(graph)}:
        shutil.copy(graph / name, out / name)
    old = read_result(graph)
    facts = {**old.facts, NODES: min(counts)}
    write_result(out, gates=old.gates, facts=facts, ships=shipped_files(out))


def can_be_rewritten(graph: Path) -> bool:
    """Whether a variant is one graph whose weights lie in its own file."""
    graphs = list(named_graphs(graph).values())
    return len(graphs) == 1 and len(with_weights(graphs[0])) == 1


def rewritten(graph: Path) -> int:
    """How many nodes `rewrite` found."""
    return read_result(graph).fact(NODES, int) or 0

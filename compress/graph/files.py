"""Which files a graph is made of, and their sums."""

from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo

from compress.graph import named_graphs
from compress.graph.weights import is_external
from compress.system.disk import sha256_file, sha256_json


def with_weights(graph: Path) -> list[Path]:
    """An ONNX file and the external weights that it names; the file alone where it is no graph."""
    try:
        tensors = onnx.load(graph, load_external_data=False).graph.initializer
    except Exception:  # of protobuf; whoever opens the file says what is wrong with it
        return [graph]
    names = {ExternalDataInfo(tensor).location for tensor in tensors if is_external(tensor)}
    return [graph, *(graph.parent / name for name in sorted(names))]


def move_graph(graph: Path, to: Path) -> list[Path]:
    """Move an ONNX file, and its external weights beside it under its new name; where these lie then."""
    beside = with_weights(graph)[1:]
    if not beside:
        graph.rename(to)
        return []
    if len(beside) > 1:
        raise ValueError(f"{graph} has external weights in several files")
    model, weights = onnx.load(graph, load_external_data=False), to.with_name(f"{to.name}_data")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = weights.name
    onnx.save(model, to)
    beside[0].rename(weights)
    graph.unlink()
    return [weights]


def sha256_model(graph: Path) -> str:
    """Of an ONNX file; of all its files where it names weights beside it, whose bytes it does not hold."""
    files = with_weights(graph)
    return sha256_file(graph) if len(files) == 1 else sha256_json({p.name: sha256_file(p) for p in files})


def sha256_graphs(folder: Path) -> str:
    """Of a variant: that of its graph, or of the names of several and theirs."""
    sums = {name: sha256_model(path) for name, path in named_graphs(folder).items()}
    return next(iter(sums.values())) if len(sums) == 1 else sha256_json(sums)

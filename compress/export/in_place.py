"""A graph that reads large weights where the checkpoint has them, in the precision that they have there.

A Cast behind each gives float32, a Concat the rows of several, and a Transpose what a product multiplies by.
The weights are neither copied nor widened on disk: the files of the checkpoint get a second name beside the
graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from torch import Tensor

from compress.errors import CompressError
from compress.graph.surgery import readers, replace_nodes
from compress.graph.weights import external
from compress.models.checkpoint import header, weight_files
from compress.system.disk import link_or_copy

_KINDS = {"BF16": TensorProto.BFLOAT16, "F16": TensorProto.FLOAT16}


@dataclass(frozen=True)
class Narrow:
    """What an initializer is made of: rows of weights, one under the other."""

    parts: tuple[Tensor, ...]  # views of parameters (rows, columns)
    turned: bool  # whether it is these transposed


def read_in_place(
    graph: Path, narrow: Mapping[str, Narrow], parameters: Mapping[str, Tensor], checkpoint: Path
) -> None:
    """Have the graph read `narrow`, by the names of its initializers, from the files of `checkpoint`, which
    hold `parameters`, those of the module.

    Raises CompressError for one that they do not hold.
    """
    model = onnx.load(graph, load_external_data=False)
    files = _Files(graph, parameters, checkpoint)
    reading = readers(model.graph.node)
    before: list[onnx.NodeProto] = []

    def made(operator: str, given: list[str], result: str, **attributes: Any) -> str:
        name = f"{result}/{operator}"
        before.append(helper.make_node(operator, given, [result], name, **attributes))
        return result

    kept = [tensor for tensor in model.graph.initializer if tensor.name not in narrow]
    for name, weight in narrow.items():
        stored = [
            files.place(part, f"{name}/stored{number or ''}") for number, part in enumerate(weight.parts)
        ]
        kept += stored
        lookups = [node for node in reading[name] if node.op_type == "Gather"] if len(stored) == 1 else []
        for node in lookups:  # of some rows: what they give is widened
            found, rows = node.output[0], f"{node.output[0]}/stored"
            node.input[0], node.output[0] = stored[0].name, rows
            made("Cast", [rows], found, to=TensorProto.FLOAT)
        if len(lookups) < len(reading[name]):
            wide = [made("Cast", [each.name], f"{each.name}/float", to=TensorProto.FLOAT) for each in stored]
            if len(wide) > 1:
                wide = [made("Concat", wide, f"{name}/rows", axis=0)]
            made("Transpose", wide, name, perm=[1, 0] if weight.turned else [0, 1])
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    replace_nodes(model.graph, _sorted([*before, *model.graph.node]))
    onnx.save(model, graph)


class _Files:
    """The files of a checkpoint, beside the graph too by other names."""

    def __init__(self, graph: Path, parameters: Mapping[str, Tensor], checkpoint: Path) -> None:
        self.parameters = {memory_of(each): (name, each) for name, each in parameters.items()}
        self.places: dict[str, tuple[str, dict[str, Any]]] = {}
        for number, path in enumerate(weight_files(checkpoint)):
            beside = graph.with_name(f"{graph.name}_{number}.safetensors")
            link_or_copy(path, beside)
            self.places |= {name: (beside.name, tensor) for name, tensor in header(path).items()}

    def place(self, part: Tensor, name: str) -> TensorProto:
        """These rows of a parameter, as a tensor of this name in a file."""
        found, whole = self.parameters.get(memory_of(part), ("", part))
        file, stored = self.places.get(found, ("", {}))
        if not stored or stored["shape"] != list(whole.shape) or stored["dtype"] not in _KINDS:
            raise CompressError("a weight of the graph is none of the checkpoint's", found=name)
        start = stored["data_offsets"][0] + part.data_ptr() - whole.data_ptr()
        place = {"location": file, "offset": start, "length": part.nbytes}
        return external(name, _KINDS[stored["dtype"]], part.shape, place)


def memory_of(tensor: Tensor) -> int:
    """Where what it is a view of begins."""
    return tensor.untyped_storage().data_ptr()


def _sorted(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Those that read what another gives behind it; else in their order."""
    made = {output for node in nodes for output in node.output if output}
    known: set[str] = set()
    waiting, done = nodes, []
    while waiting:
        later = []
        for node in waiting:
            if all(name in known or name not in made for name in node.input):
                done.append(node)
                known.update(node.output)
            else:
                later.append(node)
        waiting = later
    return done

"""Sizes that a graph computes from shapes become constants where the batch does not matter.

timm's nets with SAME padding compute each pad from the image's shape by a dozen operators on floats, which a
quantizer takes for a part of the net.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from compress.graph.session import open_session
from compress.graph.surgery import drop_dead, fetching


def fold_sizes(path: Path, example: Mapping[str, np.ndarray]) -> None:
    """Rewrite the ONNX file at `path`, whose only open axis is the first; `example`: an input of any batch.

    Whatever is computed from shapes and constants alone is computed for two batches; what is the same for
    both is a constant.
    """
    model = onnx.load(path)
    names = _borders(model.graph)
    if not names:
        return
    session = open_session(fetching(model, names))
    for_two, for_three = (
        session.run(names, {name: np.repeat(array[:1], batch, 0) for name, array in example.items()})
        for batch in (2, 3)
    )
    for name, one, other in zip(names, for_two, for_three, strict=True):
        if np.array_equal(one, other):
            model.graph.initializer.append(numpy_helper.from_array(one, name))
    drop_dead(model.graph)
    onnx.save(model, path)


def _borders(graph: onnx.GraphProto) -> list[str]:
    """Tensors made of shapes and constants that something else reads."""
    constants = {tensor.name for tensor in graph.initializer}
    sizes: set[str] = set()
    others = {output.name for output in graph.output}
    for node in graph.node:
        read = {name for name in node.input if name}
        if node.op_type == "Constant":
            constants.update(node.output)
        elif node.op_type == "Shape" or (read & sizes and read <= sizes | constants):
            sizes.update(node.output)
        else:
            others |= read
    return [name for node in graph.node for name in node.output if name in sizes & others]

"""Writing an exported graph without what says nothing of the model."""

from pathlib import Path

import onnx
import onnx_ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from compress.graph.gates import check_operators


def save(model: onnx_ir.Model, path: Path, beside: bool = False) -> None:
    """Write the graph; what the exporter notes of its own stack would leak paths and change digests.

    `beside` puts the weights into a file of their own, which onnxruntime maps into memory: those of a large
    model inside the graph are held several times over while it is opened. Raises GateError for an operator
    that onnxruntime does not know.
    """
    model.metadata_props.clear()
    model.doc_string = None
    ClearMetadataAndDocStringPass()(model)
    values = (*model.graph.inputs, *model.graph.initializers.values(), *model.graph.outputs)
    for value in (*values, *(value for node in model.graph for value in node.outputs)):
        value.metadata_props.clear()
    external = f"{path.name}_data" if beside else None
    onnx_ir.save(model, path, external_data=external, size_threshold_bytes=1024)
    check_operators(onnx.load(path, load_external_data=False))

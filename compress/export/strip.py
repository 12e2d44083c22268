"""Taking out of an exported graph what says nothing of the model."""

import shutil
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data


def strip(path: Path, weights_beside: bool = False) -> None:
    """Remove what the exporter notes about its own stack: it would leak paths and change digests.

    `weights_beside` moves the weights to a file of their own, which onnxruntime maps into memory: those of
    a large model inside the graph are held several times over while it is opened.
    """
    model = onnx.load(path, load_external_data=not weights_beside)
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    if not weights_beside:
        onnx.save(model, path)
        return
    beside = path.with_name(f"{path.name}_data")
    outside = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    if outside:  # only the name of the file changes, and nothing of it is read
        (old,) = {ExternalDataInfo(tensor).location for tensor in outside}
        path.with_name(old).replace(beside)
        for entry in (each for tensor in outside for each in tensor.external_data):
            if entry.key == "location":
                entry.value = beside.name
        onnx.save(model, path)
        return
    beside.unlink(missing_ok=True)  # onnx would append to it
    onnx.save(model, path, save_as_external_data=True, location=beside.name, size_threshold=1024)
    shutil.copymode(path, beside)  # onnx lets nobody else read it

"""Taking out of an exported graph what says nothing of the model."""

from pathlib import Path

import onnx


def strip(path: Path) -> None:
    """Remove what the exporter notes about its own stack: it would leak paths and change digests."""
    model = onnx.load(path)
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.save(model, path)

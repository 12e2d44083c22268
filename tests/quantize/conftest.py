"""Exported graphs of the tiny encoders, plain and fused."""

from pathlib import Path

import pytest

from compress.config import OptimumExport
from compress.export import export


@pytest.fixture(scope="session")
def graphs(checkpoints, splits_folder, tmp_path_factory):
    """`(architecture, fused)` -> folder with model.onnx, exported when first asked for."""
    made: dict[tuple[str, bool], Path] = {}

    def get(name: str = "bert", fuse: bool = True) -> Path:
        if (name, fuse) not in made:
            out = tmp_path_factory.mktemp(f"{name}-graph")
            export(OptimumExport(fuse=fuse), checkpoints[name], splits_folder, out)
            made[name, fuse] = out
        return made[name, fuse]

    return get


@pytest.fixture
def quantized(graphs, checkpoints, splits_folder, tmp_path):
    """Quantize an encoder's graph into a folder of its own."""
    from compress.quantize import quantize

    def run(config, name="bert", fuse=True, flags=("avx512_vnni",), out="int8") -> Path:
        (tmp_path / out).mkdir()
        quantize(config, flags, graphs(name, fuse), checkpoints[name], splits_folder, tmp_path / out)
        return tmp_path / out

    return run


@pytest.fixture
def cosine(checkpoints, splits):
    """Smallest cosine between an ONNX file's embeddings and torch's, one text at a time."""
    import numpy as np
    import onnxruntime
    import torch

    from compress import families

    def measure(path: Path, name: str = "bert") -> float:
        encoder, cosines = families.load(checkpoints[name]), []
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in encoder.batches(splits.test.texts, 1):
            with torch.no_grad():
                expected = encoder.module(**batch)["sentence_embedding"].numpy()
            (found,) = session.run(None, {k: v.numpy() for k, v in batch.items()})
            cosines.append((found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected))
        return float(min(cosines))

    return measure


@pytest.fixture
def executed(tmp_path):
    """How often each operator is in the graph that onnxruntime really runs."""
    from collections import Counter

    import onnx
    import onnxruntime

    def load(path: Path) -> Counter[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)

    return load

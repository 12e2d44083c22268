"""Exported graphs of the tiny encoders, plain and fused."""

from pathlib import Path

import pytest

from compress.config.export import TorchExport
from compress.export import export
from tests.once import Folders


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

    from compress import tasks

    def measure(path: Path, name: str = "bert") -> float:
        encoder, cosines = tasks.load(checkpoints[name]), []
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


@pytest.fixture(scope="session")
def uneven(once, image_graphs) -> Folders:
    """The convolutional nets with a channel of 40 times the size between two convolutions each time: the
    same function, hard to quantize."""
    import onnx

    def build(name: str, out: Path) -> None:
        model = onnx.load(image_graphs[name] / "model.onnx")
        enlarge(model, 40.0)
        onnx.save(model, out / "model.onnx")

    return Folders(("depthwise", "resnet"), lambda name: once(f"uneven-{name}", lambda out: build(name, out)))


@pytest.fixture(scope="session")
def learned(once, image_splits_folder) -> tuple[Path, Path]:
    """Checkpoint and graph of a depthwise net that tells stripes apart; the graph is uneven."""
    import onnx

    from compress.config.recover import Supervised
    from compress.recover import train_baseline

    def build(folder: Path) -> None:
        checkpoint, graph, scratch = (folder / word for word in ("checkpoint", "graph", "scratch"))
        for empty in (checkpoint, graph, scratch):
            empty.mkdir()
        config = Supervised(epochs=8, batch_size=16, augment=False, label_smoothing=0.0)
        kwargs = {"widths": [8, 12], "strides": [1, 2], "classes": 3}
        facts = {"source": "made", "base_model": "depthwise", "license": "mit"}
        facts["task"] = "image_classification"
        builder = "compress.models.image_nets:depthwise"
        train_baseline(config, builder, kwargs, facts, image_splits_folder, checkpoint, scratch)
        export(TorchExport(), checkpoint, image_splits_folder, graph)
        model = onnx.load(graph / "model.onnx")
        enlarge(model, 20.0)
        onnx.save(model, graph / "model.onnx")

    folder = once("learned", build)
    return folder / "checkpoint", folder / "graph"


def enlarge(model, factor):
    """Multiply what makes channel 1 of each ReLU between two convolutions, divide what reads it."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale(name, factor, *index):
        value = numpy_helper.to_array(tensors[name]).copy()
        value[index] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))

    nodes = list(model.graph.node)
    for first, relu, second in zip(nodes, nodes[1:], nodes[2:], strict=False):
        readers = [node for node in nodes if set(relu.output) & set(node.input)]
        if [first.op_type, relu.op_type, second.op_type] != ["Conv", "Relu", "Conv"] or len(readers) > 1:
            continue
        scale(first.input[1], factor, 1)
        scale(first.input[2], factor, 1)
        depthwise = tensors[second.input[1]].dims[1] == 1
        scale(second.input[1], 1 / factor, *((1,) if depthwise else (slice(None), 1)))

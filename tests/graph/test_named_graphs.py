"""A variant of two graphs, one of them with two outputs, from export to times."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from compress import graph as graphs
from compress.artifact import Manifest, verify, write_artifact
from compress.benchmark import timing
from compress.benchmark.profile import load_profiles, profile_model
from compress.benchmark.timing import time_models
from compress.cli.bench_inputs import find_models
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import LocalTarget, SshTarget
from compress.errors import ArtifactError, BenchmarkError
from compress.graph.files import sha256_graphs, sha256_model
from compress.stages.result import write_result
from compress.targets import open_target
from tests.ssh_server import with_host

INPUTS = {
    "pixels": np.arange(8, dtype=np.float32).reshape(2, 4),
    "ids": np.array([[0, 1], [2, 0]]),
    "unused": np.zeros(1),
}
IMAGE = """<ir_version: 8, opset_import: ["" : 18]>
image (float[n, 4] pixels) => (float[n, 4] embedding, float[n, 1] size)
<float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}, int64[1] axis = {1}> {
    product = MatMul (pixels, w)
    embedding = MatMul (product, w)
    size = ReduceSum (product, axis)
}"""
TEXT = """<ir_version: 8, opset_import: ["" : 18]>
text (int64[n, t] ids) => (float[n, 4] words)
<float[3, 4] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3},
 float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}, int64[1] axis = {1}> {
    states = Gather (table, ids)
    mean = ReduceMean <keepdims = 0> (states, axis)
    words = MatMul (mean, w)
}"""


@pytest.fixture
def variant(tmp_path):
    folder = tmp_path / "variant"
    folder.mkdir()
    onnx.save(parser.parse_model(IMAGE), folder / "image.onnx")
    text = parser.parse_model(TEXT)
    for tensor in text.graph.initializer:  # as bytes, which alone can lie beside the graph
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(
        text,
        folder / "text.onnx",
        save_as_external_data=True,
        location="text.onnx_data",
        size_threshold=64,  # the axis stays: shapes need it
    )
    write_result(folder, ships=graphs.shipped_files(folder))
    return folder


@pytest.fixture
def artifact(variant, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    write_result(checkpoint, ships=["config.json"])
    manifest = Manifest(
        name="two", base_model="b", source="s", license="mit", lineage=(), config={}, environment={},
        splits={}, headline={}, opset=18,
    )  # fmt: skip
    write_artifact(
        tmp_path / "artifact",
        graph=variant,
        checkpoint=checkpoint,
        inputs=INPUTS,
        card="# card",
        manifest=manifest,
        keep_checkpoint=False,
    )
    return tmp_path / "artifact"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0.05)
    monkeypatch.setattr(timing, "BLOCK_MS", 1.0)


def test_the_names_of_graphs(variant):
    assert graphs.named_graphs(variant) == {name: variant / f"{name}.onnx" for name in ("image", "text")}
    assert graphs.onnx_files(variant) == [variant / "image.onnx", variant / "text.onnx"]
    assert graphs.onnx_files(variant / "image.onnx") == [variant / "image.onnx"]
    files = ["image.onnx", "text.onnx", "text.onnx_data"]
    assert graphs.shipped_files(variant) == files
    assert [
        name for name in (*files, "stage.json", "checkpoint/a.onnx") if graphs.is_graph_file(name)
    ] == files


def test_the_digest_of_several_graphs_holds_all_of_them(variant, tmp_path):
    before = sha256_graphs(variant)
    (variant / "text.onnx_data").write_bytes(b"other weights")
    assert sha256_graphs(variant) != before
    (variant / "text.onnx").unlink()
    assert sha256_graphs(variant) == sha256_model(variant / "image.onnx")


def test_each_graph_of_an_artifact_is_verified(artifact):
    assert {"check_image.npz", "check_text.npz", "image.onnx", "text.onnx_data"} <= set(
        verify(artifact).files
    )
    with np.load(artifact / "check_image.npz") as pair:
        assert set(pair.files) == {"in.pixels", "out.embedding", "out.size"}
    with np.load(artifact / "check_text.npz") as pair:
        assert set(pair.files) == {"in.ids", "out.words"}


@pytest.mark.parametrize("broken", ["size", "words"])
def test_one_wrong_output_of_one_graph_is_found(broken, artifact, monkeypatch):
    monkeypatch.setattr("compress.artifact.check_files", lambda folder: None)
    name = "check_image.npz" if broken == "size" else "check_text.npz"
    with np.load(artifact / name) as pair:
        arrays = dict(pair)
    arrays[f"out.{broken}"] = -arrays[f"out.{broken}"]
    np.savez(artifact / name, **arrays)
    with pytest.raises(ArtifactError, match=f"output {broken} differs"):
        verify(artifact)


@pytest.mark.parametrize("kind", [LocalTarget, pytest.param(SshTarget, marks=pytest.mark.slow)])
def test_a_call_is_one_of_each_graph(kind, artifact, tmp_path, request):
    """In time and in the profile; the first model, which has one of the graphs, is faster."""
    (tmp_path / "half").mkdir()
    shutil.copy(artifact / "image.onnx", tmp_path / "half")
    target, workloads = open_target(with_host(kind, request)(threads=1)), {"w": INPUTS}
    models = {"half": tmp_path / "half", "whole": artifact}
    speed = time_models(target, BenchmarkConfig(max_seconds=1.0), models, workloads, tmp_path / "out")
    assert speed.speedup["whole"]["w"].value < 1
    profile_model(target, "whole", artifact, workloads, tmp_path)
    nodes = {operator.op_type: operator.nodes for operator in load_profiles(tmp_path)["w"].operators}
    assert nodes == {"MatMul": 3, "Gather": 1, "ReduceMean": 1, "ReduceSum": 1}


def test_a_graph_without_its_inputs_is_named(artifact, tmp_path):
    with pytest.raises(BenchmarkError, match="lacks the input 'ids'"):
        time_models(
            open_target(LocalTarget(threads=1)),
            BenchmarkConfig(max_seconds=1.0),
            {"a": artifact},
            {"w": {"pixels": INPUTS["pixels"]}},
            tmp_path / "out",
        )


def test_bench_asks_which_of_several_graphs(artifact, tmp_path):
    with pytest.raises(BenchmarkError, match=r"several graphs(.|\n)*image\.onnx, .*text\.onnx"):
        find_models([str(artifact)])
    shutil.copy(artifact / "image.onnx", tmp_path)
    assert find_models([str(tmp_path)]) == {tmp_path.name: tmp_path / "image.onnx"}

"""The one place that opens a session: options, weights beside, what it says of what it cannot open."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ConfigError, ModelError
from compress.graph import graph_files, graph_path, named_graphs
from compress.graph.session import CPU, Runtime, full_name, open_session
from compress.runner.machine import threads_available

WEIGHTS = np.arange(2048, dtype=np.float32)


@pytest.fixture
def model():
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2048]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(WEIGHTS, "w")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_options_reach_the_session(model):
    session = open_session(model.SerializeToString(), Runtime(threads=1, prepack=False))
    options = session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert session.get_providers() == [CPU]


def test_threads_are_those_of_the_cores_that_this_process_may_use(model, monkeypatch):
    """Whatever the machine has: a container's share, or what `taskset` leaves."""

    def threads(**asked):
        session = open_session(model.SerializeToString(), Runtime(**asked))
        return session.get_session_options().intra_op_num_threads

    assert threads() == threads_available()
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert threads() == 1
    assert threads(threads=2) == 2


def test_a_file_and_its_bytes_give_the_same_with_weights_beside(model, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=16)
    feeds = {"x": np.full(2048, 2, np.float32)}
    bare = onnx.load(path, load_external_data=False).SerializeToString()
    of_bytes = open_session(bare, Runtime(weights_folder=tmp_path)).run(None, feeds)[0]
    np.testing.assert_array_equal(of_bytes, 2 * WEIGHTS)
    np.testing.assert_array_equal(open_session(path).run(None, feeds)[0], of_bytes)


def test_what_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match=r"onnxruntime cannot load text\.onnx\n  found:"):
        open_session(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="onnxruntime cannot load the graph"):
        open_session(b"no model")


@pytest.mark.parametrize("word", ["cuda", "CUDA", "CUDAExecutionProvider", "cudaexecutionprovider"])
def test_a_provider_by_the_first_part_of_its_name(word):
    assert full_name(word) == "CUDAExecutionProvider"


def test_a_provider_that_nobody_knows(model):
    assert full_name("gpu") == "gpu"
    with pytest.raises(
        ConfigError, match=r"knows no such.*\n  found: +CPUExecutionProvide\n(.|\n)*did you mean"
    ):
        open_session(model.SerializeToString(), Runtime(provider="CPUExecutionProvide"))


def test_a_provider_that_this_build_lacks(model):
    missing = next(
        p for p in onnxruntime.get_all_providers() if p not in onnxruntime.get_available_providers()
    )
    with pytest.raises(
        ConfigError, match=rf"lacks(.|\n)*{missing}(.|\n)*{CPU}(.|\n)*in place of onnxruntime"
    ):
        open_session(model.SerializeToString(), Runtime(provider=missing))


def test_graphs_of_a_variant_by_name(tmp_path):
    for name in ("decoder.onnx", "decoder.onnx_data", "encoder.onnx", "config.json"):
        (tmp_path / name).touch()
    assert named_graphs(tmp_path) == {name: graph_path(tmp_path, name) for name in ("decoder", "encoder")}
    assert [path.name for path in graph_files(tmp_path)] == [
        "decoder.onnx",
        "decoder.onnx_data",
        "encoder.onnx",
    ]

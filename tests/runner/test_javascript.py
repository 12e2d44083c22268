"""What a worker in JavaScript reads and gives, held against numpy and onnxruntime's Python."""

import re

import numpy as np
import onnx
import pytest
from onnx import helper

from compress.config.target import NodeTarget
from compress.errors import BenchmarkError
from compress.runner import jobs
from compress.targets import browser, node, open_target
from compress.targets.node import JAVASCRIPT
from compress.targets.outputs import outputs

BITS = {"float": (16, 32, 64), "int": (8, 16, 32, 64), "uint": (8, 16, 32, 64)}
TYPES = [f"{kind}{bits}" for kind, sizes in BITS.items() for bits in sizes] + ["bool"]


@pytest.fixture(scope="module")
def target():
    return open_target(NodeTarget(threads=1))


@pytest.fixture
def copies(tmp_path):
    """A graph that gives each of its inputs, one of every type, as it is."""
    types = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in TYPES}
    values = {
        end: [helper.make_tensor_value_info(end + name, kind, None) for name, kind in types.items()]
        for end in ("", "same_")
    }
    nodes = [helper.make_node("Identity", [name], ["same_" + name]) for name in TYPES]
    graph = helper.make_graph(nodes, "copies", values[""], values["same_"])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "copies.onnx")
    return tmp_path / "copies.onnx"


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 2, 4)])
def test_arrays_of_every_type_and_order_come_back_as_they_were(target, copies, shape):
    random = np.random.default_rng(0)
    arrays = {name: (random.standard_normal(shape) * 100).astype(name) for name in TYPES}
    columns = {name: np.asfortranarray(array) for name, array in arrays.items()}
    for batch, given in zip([arrays, columns], outputs(target, copies, [arrays, columns]), strict=True):
        for name, array in batch.items():
            assert given["same_" + name].dtype == array.dtype
            np.testing.assert_array_equal(given["same_" + name], array)


@pytest.mark.parametrize(("target", "first"), [(node, "node.mjs"), (browser, "browser.mjs")])
def test_all_that_runs_is_in_a_stages_version(target, first):
    reached, waiting = set(), [first, "package-lock.json", *(["page.html"] if first == "browser.mjs" else [])]
    while waiting:
        reached.add(name := waiting.pop())
        text = (JAVASCRIPT / name).read_text()
        near = re.findall(r'(?:from |Worker\()"(?:\./)?(\w+\.mjs)"|src="([\w.]+)"', text)
        waiting += {imported or source for imported, source in near} - reached
    assert {f"../runner/javascript/{name}" for name in reached} == set(target.SOURCES)


def test_weights_beside_the_graph_are_found(target, tmp_path, make_chain):
    model = make_chain(tmp_path / "a.onnx", 16, 2)
    rows = {"x": np.eye(16, dtype=np.float32)}
    [plain] = outputs(target, model, [rows])
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "b.onnx"
    onnx.save(onnx.load(model), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    [given] = outputs(target, apart, [rows])
    np.testing.assert_array_equal(given["y1"], plain["y1"])


def test_what_no_input_takes_is_said(target, tmp_path, make_chain):
    model = make_chain(tmp_path / "a.onnx", 16, 1)
    with pytest.raises(
        BenchmarkError, match=r"model 'a': .*x\.npy holds <c8, which no input of a model takes"
    ):
        list(outputs(target, model, [{"x": np.ones((1, 16), np.complex64)}], name="a"))
    with pytest.raises(BenchmarkError, match=r"model 'a': .*(Expected|expected)"):
        list(outputs(target, model, [{"x": np.ones((1, 16), np.int64)}], name="a"))


def test_settings_of_a_session_arrive(target, tmp_path, make_chain):
    """One that onnxruntime refuses is heard of."""
    model = make_chain(tmp_path / "a.onnx", 16, 1)
    np.savez(tmp_path / "x.npz", **{"0.x": np.ones((1, 16), np.float32)})
    job = {"do": "outputs", "name": "a", "path": str(model), "feeds": str(tmp_path / "x.npz"), "threads": 2}
    target.run({**job, "settings": {"session.intra_op_thread_affinities": "1"}}, [model], tmp_path, 60.0)
    assert (tmp_path / jobs.OUTPUTS).exists()
    with pytest.raises(BenchmarkError, match="must consist of only digits"):
        target.run({**job, "settings": {"session.intra_op_thread_affinities": "?"}}, [model], tmp_path, 60.0)

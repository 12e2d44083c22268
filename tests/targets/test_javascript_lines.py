"""The lines of a model card that open a graph in JavaScript as it was timed."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from compress.config.target import BrowserTarget, LocalTarget, NodeTarget
from compress.graph.session import open_session
from compress.sources.npm import installed
from compress.targets import open_target
from compress.targets.node import JAVASCRIPT

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
RUNS = """
import {{ run }} from "./card.mjs";
import * as ort from "onnxruntime-node";
const x = new ort.Tensor("float32", Float32Array.from({values}), [1, {width}]);
const given = await run({{ x }});
const arrays = Object.entries(given).map(([name, each]) => [name, [...each.data]]);
console.log(JSON.stringify(Object.fromEntries(arrays)));
"""


def test_in_node_they_compute_what_a_session_here_does(tmp_path, make_chain):
    model = make_chain(tmp_path / "model.onnx", 8, 2)
    lines = open_target(NodeTarget(threads=1)).javascript("model.onnx")
    assert "intraOpNumThreads: 1," in lines
    values = np.linspace(-1, 1, 8, dtype=np.float32)
    (tmp_path / "card.mjs").write_text(lines)
    (tmp_path / "run.mjs").write_text(RUNS.format(values=values.tolist(), width=8))
    (tmp_path / "node_modules").symlink_to(installed(JAVASCRIPT / "package-lock.json") / "node_modules")
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(names, {"x": values[None]}), strict=True))
    given = json.loads(done.stdout)
    assert given.keys() == wanted.keys()
    for name in names:
        np.testing.assert_allclose(given[name], wanted[name].ravel(), rtol=1e-5)


def test_a_page_gets_the_threads_of_the_times(monkeypatch):
    target = open_target(BrowserTarget(threads=3))
    monkeypatch.setattr(target, "find_facts", lambda: {"runtime": {"version": "9.9"}})
    lines = target.javascript("onnx/model_quantized.onnx")
    assert "onnxruntime-web@9.9" in lines
    assert "numThreads = 3;" in lines
    assert '"onnx/model_quantized.onnx", { executionProviders: ["wasm"] }' in lines


def test_other_targets_have_none():
    assert open_target(LocalTarget()).javascript("model.onnx") == ""

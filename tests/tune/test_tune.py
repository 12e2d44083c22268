"""`target.tune=true` on a tiny encoder: the report holds what was tried, all behind it what is kept."""

import io
import json

import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

import compress.rewrite
from compress import pipeline
from compress.benchmark.speed import Comparison
from compress.config.compose import load_config
from compress.config.target import Rewrite
from compress.schema.report import Estimate, Report
from compress.stages.runner import StageRunner
from compress.stages.store import Store
from compress.tune import search

SMALL = ["quantize=int8_dynamic", "target.tune=true"]


def certain(value):
    estimate = Estimate(value=value, ci95=(value - 0.001, value + 0.001))
    return Comparison(speedup={"1x16": estimate}, overall=estimate)


@pytest.fixture
def decided(monkeypatch):
    """Say what was how fast, by the name of the second: tiny models differ by chance."""

    def decide(speeds):
        def load(folder, pairs):
            assert (folder / "samples.json").is_file()  # it was timed
            return [certain(speeds.get(after, 0.9)) for _, after in pairs]

        monkeypatch.setattr(search, "load_comparisons", load)

    return decide


def run(tmp_path, overrides, dry_run=False):
    console = Console(file=io.StringIO(), width=200)
    config = load_config(overrides)
    runner = StageRunner(Store(tmp_path / "store"), console, config.model.task, dry_run=dry_run)
    report = pipeline.run(config, tmp_path / "out", runner, "compress run")
    return report, console.file.getvalue()


def rows(report):
    return {tried.name: tried for tried in report.tuning.tried}


@pytest.mark.slow
def test_local(tmp_path, tiny, decided, monkeypatch):
    def wrong(model):
        """Plants an error that no operator's own arithmetic shows."""
        count = real(model)
        scale = next(t for t in model.graph.initializer if "LayerNorm" in t.name and "weight" in t.name)
        scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 1.05, scale.name))
        return count

    real = compress.rewrite.REWRITES[Rewrite.plain_norms]
    monkeypatch.setitem(compress.rewrite.REWRITES, Rewrite.plain_norms, wrong)
    decided({"gelu_tanh": 1.2, "unsigned_weights": 1.1, "unsigned_weights + gelu_tanh": 1.3,
             "gelu_tanh + unsigned_weights": 1.05, "int8_static": 0.9})  # fmt: skip
    report, _ = run(tmp_path, [*tiny, *SMALL])
    tried = rows(report)
    assert set(tried) == {
        "int8_static", "gelu_tanh", "plain_norms", "plain_attention", "unsigned_weights",
        "gelu_tanh + unsigned_weights",
    }  # fmt: skip
    refused = tried["plain_norms"]
    assert "does not compute what the graph that it was made of computes" in refused.reason
    assert (refused.kept, refused.overall) == (False, None)
    assert (tried["int8_static"].reason, tried["int8_static"].kept) == ("slower", False)
    assert tried["gelu_tanh"].kept
    assert tried["gelu_tanh"].drop is not None
    assert tried["gelu_tanh + unsigned_weights"].kept
    assert report.tuning.chosen == {"target.rewrites": ["gelu_tanh", "unsigned_weights"]}
    # What was measured, ships and is said is what was chosen.
    assert report.config["target"]["rewrites"] == ["gelu_tanh", "unsigned_weights"]
    assert report.variants[-1].name == "int8"
    graph = onnx.load(tmp_path / "out" / "artifact" / "model.onnx").graph
    gelus = [a.s for node in graph.node if node.op_type == "Gelu" for a in node.attribute]
    assert set(gelus) == {b"tanh"}
    products = {node.input[1] for node in graph.node if node.op_type == "MatMulInteger"}
    assert {t.data_type for t in graph.initializer if t.name in products} == {onnx.TensorProto.UINT8}
    manifest = json.loads((tmp_path / "out" / "artifact" / "manifest.json").read_text())
    assert manifest["config"]["target"]["rewrites"] == ["gelu_tanh", "unsigned_weights"]
    for name in ("report.md", "report.html"):
        assert "What was tried on the target" in (tmp_path / "out" / name).read_text()
    assert "gelu_tanh" in (tmp_path / "out" / "artifact" / "README.md").read_text()
    assert Report.load(tmp_path / "out" / "report.json").tuning == report.tuning

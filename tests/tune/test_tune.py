"""`target.tune=true` on a tiny encoder: the report holds what was tried, all behind it what is kept."""

import io
import json
from importlib.util import find_spec

import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

import compress.rewrite
from compress import pipeline
from compress.benchmark.speed import Comparison
from compress.config.compose import load_config
from compress.config.target import Rewrite
from compress.schema.estimates import Estimate
from compress.schema.report import Report
from compress.stages.runner import StageRunner
from compress.stages.store import Store
from compress.targets.openvino import Openvino
from compress.tune import search, tune

SMALL = ["quantize=int8_dynamic", "target.tune=true"]


def certain(value):
    estimate = Estimate(value=value, ci95=(value - 0.001, value + 0.001))
    return Comparison(speedup={"1x16": estimate}, overall=estimate, slowest=value)


@pytest.fixture
def decided(monkeypatch):
    """Say what was how fast, by the name of the second: tiny models differ by chance."""

    def decide(speeds):
        def load(folder, pairs):
            assert (folder / "samples.json").is_file()  # it was timed
            return [certain(speeds.get(after, 0.9)) for _, after in pairs]

        monkeypatch.setattr(search, "load_comparisons", load)

    return decide


def with_cores(find_facts, cores):
    return lambda self: {**find_facts(self), "threads": cores}


def run(tmp_path, overrides, dry_run=False):
    console = Console(file=io.StringIO(), width=200)
    config = load_config(overrides)
    runner = StageRunner(Store(tmp_path / "store"), console, config.model.task, dry_run=dry_run)
    report = pipeline.run(config, tmp_path / "out", runner, "compress run")
    return report, console.file.getvalue()


def rows(report):
    return {tried.name: tried for tried in report.tuning.tried}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_openvino(tmp_path, tiny, decided):
    """Threads first, then its format and settings, no other signs of weights; dense has its own threads."""
    cores = 3  # of which one is left to others
    decided({"int8_static": 1.5, "fixed_shapes=true": 1.2, "dense, 2 threads": 1.4, "dense, 3 threads": 1.1,
             "kept, 3 threads": 1.1})  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Openvino, "find_facts", with_cores(Openvino.find_facts, cores))
        report, _ = run(
            tmp_path,
            [*tiny, "quantize=int8_dynamic", "target=openvino", "target.tune=true", "target.threads=0"],
        )
    tried = [(row.kind, row.name, row.kept) for row in report.tuning.tried]
    threads = [
        ("threads", "kept, 2 threads", False),
        ("threads", "kept, 3 threads", True),
        ("threads", "dense, 2 threads", True),
        ("threads", "dense, 3 threads", False),
    ]
    assert tried[:5] == [*threads, ("format", "int8_static", True)]
    assert ("settings", "fixed_shapes=true", True) in tried
    assert not [name for _, name, _ in tried if "signed" in name]
    assert tried[-4:] == threads
    chosen = report.tuning.chosen
    assert chosen == {"quantize": "int8_static", "target.fixed_shapes": True, "target.threads": 3}
    assert report.tuning.dense_threads == 2
    assert (report.environment["threads"], report.environment["settings"]["fixed_shapes"]) == (3, True)
    assert report.options["quantize"] == "int8_static"
    assert 'INFERENCE_NUM_THREADS": 3' in (tmp_path / "out" / "artifact" / "README.md").read_text()
    [entry] = [path for path in tmp_path.glob("store/entries/*/samples.json") if '"int8"' in path.read_text()]
    told = json.loads(entry.read_text())["spec"]
    assert (told["threads"], {name: own["threads"] for name, own in told["with"].items()}) == (
        3,
        {"dense": 2},
    )


def test_what_is_not_asked_for_costs_nothing(tiny):
    config = load_config([*tiny, "quantize=int8_dynamic"])
    tuned = tune(config, "built", None, None, None)
    assert (tuned.config, tuned.built, tuned.targets, tuned.tuning) == (config, "built", {}, None)


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

"""The whole runner on a tiny model, and what a user can do with what it leaves."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from compress import pipeline
from compress.artifact import verify
from compress.benchmark import parity
from compress.config.compose import load_config
from compress.errors import GateError
from compress.judge import assemble
from compress.schema.report import Report
from compress.stages.runner import StageRunner
from compress.stages.store import Store
from compress.targets import local
from tests.runs import environment

ROOT = Path(__file__).resolve().parents[1]
STAGES = [
    "load",
    "split",
    "export dense",
    "prune",
    "recover",
    "export",
    "quantize",
    "score dense",
    "evaluate dense",
    "evaluate pruned",
    "evaluate int8",
    "parity dense",
    "parity pruned",
    "parity int8",
    "benchmark",
    "profile dense",
    "profile pruned",
    "profile int8",
    "limits",
    "time card",
]


def run_pipeline(overrides, folder, cache):
    console = Console(file=io.StringIO())
    config = load_config(overrides)
    return pipeline.run(config, folder, StageRunner(Store(cache / "store"), console, config.model.task))


def test_a_run_leaves_report_artifact_and_config(finished):
    report = Report.load(finished.folder / "report.json")
    assert report.experiment == "tiny"
    assert [variant.name for variant in report.variants] == ["dense", "pruned", "int8"]
    assert [stage.name for stage in report.stages] == STAGES
    assert list(report.card_speed) == list(report.variants[0].latency_ms)
    assert not any(stage.reused for stage in report.stages)
    assert report.config == yaml.safe_load((finished.folder / "config.yaml").read_text())
    assert {path.name for path in finished.folder.iterdir()} == {
        *("artifact", "config.yaml", "report.html", "report.json", "report.md", "run.log")
    }
    assert [gate.name for gate in report.gates if gate.passed] == [
        "dense: read as sentence-transformers reads it",
        "pruned: stock transformers reloads the checkpoint",
        "dense: ONNX equals torch",
        "pruned: ONNX equals torch",
        "int8: integer coverage",
        "int8: every layer alone near its float twin",
        *(f"{name}: {parity.GATE}" for name in ("dense", "pruned", "int8")),
    ]


def test_a_card_whose_code_fails_is_told_in_the_report(finished, tmp_path, monkeypatch):
    """Nothing is lost: all else was measured before."""
    monkeypatch.setattr(local, "_OPENS", "raise ValueError('no such thing')")
    run_pipeline(finished.overrides, tmp_path, finished.cache)
    report = Report.load(tmp_path / "report.json")
    assert report.card_speed == {}
    assert "no such thing" in report.card_failure
    assert "no such thing" in (tmp_path / "report.md").read_text()
    assert [gate.name for gate in report.gates if not gate.passed] == [
        "the code of the model card runs on the target"
    ]
    assert report.variants == Report.load(finished.folder / "report.json").variants
    verify(tmp_path / "artifact")


def test_the_command_in_the_report_repeats_the_run(finished):
    import shlex

    command = shlex.split(Report.load(finished.folder / "report.json").command)
    assert command[:2] == ["compress", "run"]
    assert load_config(command[2:]) == load_config(finished.overrides)


def test_the_numbers_of_the_report_are_those_of_the_files(finished):
    report = Report.load(finished.folder / "report.json")
    dense, pruned, small = report.variants
    shipped = finished.folder / "artifact" / "model.onnx"
    assert small.size_bytes == shipped.stat().st_size
    assert dense.size_bytes > pruned.size_bytes > small.size_bytes
    assert (dense.widths["ffn"], pruned.widths["ffn"]) == ((64, 64), (32, 32))
    # two layers of 4 products 32x32 and two of 32 x width, and two of attention at 128 tokens
    assert dense.macs == 2 * (128 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 128 * 128 * 32)
    assert dense.macs - pruned.macs == 2 * 128 * 2 * 32 * 32
    assert set(small.speedup) == {"1x16", "2x16"}
    assert report.splits["test"].examples == 40


def test_the_artifact_is_intact(finished):
    manifest = verify(finished.folder / "artifact")
    report = Report.load(finished.folder / "report.json")
    assert manifest.config == report.config
    assert manifest.splits == {name: split.fingerprint for name, split in report.splits.items()}
    assert len(manifest.lineage) == 2
    assert "pruned" in manifest.lineage[0]
    assert "distilled" in manifest.lineage[1]
    assert not [path for path in (finished.folder / "artifact").rglob("*") if path.name == "entry.json"]


def test_onnxruntime_alone_reproduces_the_stored_output(finished):
    """Without this package, as somebody who only got the artifact."""
    script = textwrap.dedent(
        """
        import sys
        import numpy, onnxruntime
        with numpy.load("check.npz") as pair:
            feeds = {n[3:]: pair[n] for n in pair.files if n.startswith("in.")}
            expected = pair["out.sentence_embedding"]
        session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
        got, = session.run(["sentence_embedding"], feeds)
        assert "compress" not in sys.modules
        print(abs(got - expected).max(), abs(numpy.linalg.norm(got, axis=1) - 1).max())
        """
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=finished.folder / "artifact",
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(float(number) < 1e-5 for number in done.stdout.split())


def test_stock_transformers_loads_the_checkpoint(finished):
    """Its pooled output is what the pruned graph, before quantization, computes."""
    import onnxruntime
    import torch
    from transformers import AutoModel, AutoTokenizer

    checkpoint = finished.folder / "artifact" / "checkpoint"
    model = AutoModel.from_pretrained(checkpoint, local_files_only=True).eval()
    assert model.config.intermediate_size == 32
    encoded = AutoTokenizer.from_pretrained(checkpoint)(
        ["the river runs", "the old train waits over the city"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        states = model(**encoded).last_hidden_state
    mask = encoded["attention_mask"].unsqueeze(-1).float()
    pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()

    pruned = Report.load(finished.folder / "report.json").variants[1]
    session = onnxruntime.InferenceSession(finished.cache / "store" / "entries" / pruned.path)
    names = [given.name for given in session.get_inputs()]
    feeds = {"token_type_ids": torch.zeros_like(encoded["input_ids"]), **encoded}
    (graph,) = session.run(None, {name: feeds[name].numpy() for name in names})
    assert np.abs(pooled - graph).max() < 1e-5


def test_a_second_run_reuses_every_stage_and_gives_the_same(finished, tmp_path):
    """In seconds: it loads no torch, and reads each stored file once to check it."""
    script = textwrap.dedent(
        """
        import collections, hashlib, json, sys
        from pathlib import Path
        from compress import pipeline
        from compress.config.compose import load_config
        from compress.stages.runner import StageRunner
        from compress.stages.store import Store
        from rich.console import Console
        folder, cache, overrides = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
        checked, digest = collections.Counter(), hashlib.file_digest
        def counted(file, algorithm):
            checked[str(file.name)] += 1
            return digest(file, algorithm)
        hashlib.file_digest = counted
        config = load_config(overrides)
        runner = StageRunner(Store(cache / "store"), Console(stderr=True), config.model.task)
        pipeline.run(config, folder, runner)
        stored = {name: count for name, count in checked.items() if name.startswith(str(cache))}
        heavy = sorted({"torch", "transformers", "optimum"} & set(sys.modules))
        print(json.dumps([heavy, len(stored), [name for name, count in stored.items() if count > 1]]))
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(finished.cache), *finished.overrides]
    done = subprocess.run(command, env=environment(finished.cache), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy, checked, twice = json.loads(done.stdout)
    assert heavy == twice == []
    assert checked > len(STAGES)
    report = Report.load(tmp_path / "report.json")
    first = Report.load(finished.folder / "report.json")
    assert all(stage.reused for stage in report.stages)
    assert [stage.digest for stage in report.stages] == [stage.digest for stage in first.stages]
    assert report.variants == first.variants
    assert report.verdict == first.verdict
    artifacts = [folder / "artifact" / "model.onnx" for folder in (tmp_path, finished.folder)]
    assert artifacts[0].read_bytes() == artifacts[1].read_bytes()


def test_what_failed_before_it_shipped_leaves_no_artifact(finished, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise GateError("something is off")

    monkeypatch.setattr(assemble, "write_artifact", fail)
    with pytest.raises(GateError):
        run_pipeline(finished.overrides, tmp_path, finished.cache)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["quantize=none"], ["dense", "fused"]),
        (["quantize=none", "export.fuse=false"], ["dense"]),
        (
            ["quantize=int8_static", "quantize.examples=8", "quantize.min_coverage=0.5"],
            ["dense", "fused", "int8"],
        ),
        (["quantize=fp16"], ["dense", "fused", "fp16"]),
        (["quantize=q4f16"], ["dense", "fused", "q4f16"]),
        (["recover=distill", "recover.steps=2", "quantize=none"], ["dense", "recovered"]),
        (
            ["prune=transformer", "prune.scope=global", "prune.keep.ffn=0.6", "prune.round_to=1"],
            ["dense", "pruned", "int8"],
        ),
    ],
)
def test_every_kind_of_option_runs_through(finished, tiny, tmp_path, overrides, names):
    quantized = not any(override.startswith("quantize=") for override in overrides)
    given = [word for word in tiny if not word.startswith("quantize.")]
    extra = ["quantize.min_coverage=0.5"] if quantized else []
    report = run_pipeline([*given, *overrides, *extra], tmp_path, finished.cache)
    assert [variant.name for variant in report.variants] == names
    assert report.verdict.best == names[-1]
    verify(tmp_path / "artifact")
    assert Report.load(tmp_path / "report.json") == dataclasses.replace(report)
    uniform = len(set(report.variants[-1].widths["ffn"])) == 1
    assert uniform == ("prune.scope=global" not in overrides)
    assert (tmp_path / "artifact" / "checkpoint").exists()


@pytest.mark.slow
def test_ctrl_c_in_the_middle_keeps_what_is_finished(finished, tmp_path):
    """SIGINT while training: exit code 130, one message, no half artifact, earlier results intact."""
    latest = (finished.home / "outputs" / "tiny" / "latest").resolve()
    before = {p: p.read_bytes() for p in finished.folder.rglob("*") if p.is_file()}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COMPRESS_CACHE": str(finished.cache)}
    overrides = [*finished.overrides, "recover.steps=1000000", "recover.patience=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "compress", "run", *overrides],
        cwd=finished.home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial, deadline = finished.cache / "store" / "partial", time.monotonic() + 120
    while not list(partial.glob("*/scratch/training.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"\s*interrupted: .* the next run takes up after them\n", stderr), stderr
    assert (finished.home / "outputs" / "tiny" / "latest").resolve() == latest
    assert {p: p.read_bytes() for p in finished.folder.rglob("*") if p.is_file()} == before
    others = [p for p in finished.folder.parent.iterdir() if p.is_dir() and not p.is_symlink()]
    interrupted = [p for p in others if p != finished.folder and not p.name.startswith("reproduced-")]
    assert not [p for p in interrupted if (p / "artifact").exists()]
    entries = finished.cache / "store" / "entries"
    stages = [json.loads((entry / "entry.json").read_text())["stage"] for entry in entries.iterdir()]
    assert stages.count("recover") >= 1


@pytest.mark.slow
def test_a_run_for_several_targets(finished, tmp_path):
    """A run with a verdict and an artifact for each, one table, and what they ship timed on all."""
    words = [*finished.overrides, "target=[local,node]"]
    command = [sys.executable, "-m", "compress", "run", *words, "hydra.sweep.dir=both"]
    given = environment(finished.cache)
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    both = tmp_path / "both"
    reports = [Report.load(both / name / "report.json") for name in "01"]
    assert [report.options["target"] for report in reports] == ["local", "node"]
    assert [verify(both / name / "artifact").options["target"] for name in "01"] == ["local", "node"]
    sweep = json.loads((both / "sweep.json").read_text())
    assert {workload.rpartition(" on ")[2] for workload in sweep["workloads"]} == {"local", "node"}
    across = json.loads((both / "across" / "bench.json").read_text())
    assert list(across["models"]) == ["artifact"]  # the same file for both
    assert list(across["speed"]["latency_ms"]) == ["artifact on local", "artifact on node"]

"""A real model through all stages but the training: the published weights, texts and judgements."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from compress.artifact import verify
from compress.schema.report import Report

EMBED = """
import sys, json, numpy as np, onnxruntime
pair = np.load("check.npz")
session = onnxruntime.InferenceSession("model.onnx")
out = session.run(None, {name[3:]: pair[name] for name in pair.files if name.startswith("in.")})[0]
assert "compress" not in sys.modules
print(json.dumps(out.tolist()))
"""


@pytest.mark.slow
def test_minilm_pruned_and_quantized_without_training(tmp_path):
    command = [
        sys.executable,
        "-m",
        "compress",
        "run",
        "experiment=minilm",
        "recover=none",
        "prune.keep.ffn=0.5",
    ]
    short = ["benchmark.max_seconds=3", "benchmark.workloads=[1x32]", "budget.min_speedup=null"]
    done = subprocess.run([*command, *short], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "outputs" / "minilm" / "latest"
    report = Report.load(run / "report.json")
    dense, pruned, int8 = report.variants

    # Published or measured by hand before this package existed: 0.508, 90.4 MB.
    assert dense.quality["lee_spearman"].value == pytest.approx(0.508, abs=0.001)
    assert dense.size_bytes == pytest.approx(90.4e6, rel=0.005)
    assert pruned.widths["ffn"] == (768,) * 6
    assert pruned.fidelity["cosine"].value > 0.92  # half of the channels gone, least squares alone
    assert int8.size_bytes < 20e6
    assert int8.quantization is not None
    assert int8.quantization.coverage_macs == 1.0
    assert abs(int8.fidelity["cosine"].value - pruned.fidelity["cosine"].value) < 0.02

    verify(run / "artifact")
    alone = subprocess.run(
        [sys.executable, "-I", "-c", EMBED], cwd=run / "artifact", capture_output=True, text=True, check=True
    )
    with np.load(run / "artifact" / "check.npz") as pair:
        np.testing.assert_allclose(json.loads(alone.stdout), pair["out.sentence_embedding"], atol=1e-6)
    assert os.path.samefile(run, next(path for path in run.parent.iterdir() if path.name != "latest"))

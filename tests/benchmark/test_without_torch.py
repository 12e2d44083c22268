"""Timing, profiling and the feeds of calibration open no weights and load no torch."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compress.tasks import TASKS

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from io import StringIO
from pathlib import Path
from rich.console import Console
from compress.benchmark import benchmark, check_on_target, profile, profile_operators, timing
from compress.benchmark.profile import load_profiles
from compress.benchmark.speed import load_speed
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import LocalTarget
from compress.quantize.activations import calibration_feeds
from compress.stages.runner import StageRunner
from compress.stages.store import Entry, Store

timing.WARMUP_SECONDS = profile.WARMUP_SECONDS = profile.SECONDS = 0.01
timing.BLOCK_MS, timing.ROUNDS = 1.0, 1
root, workload, *folders = sys.argv[1:]
checkpoint, graph, splits = (Entry(Path(folder), folder, reused=True, seconds=0.0) for folder in folders)
runner = StageRunner(Store(Path(root)), Console(quiet=True))
target, config = LocalTarget(threads=1), BenchmarkConfig(workloads=[workload], max_seconds=1.0)
given = {"config": config, "splits": splits}
dense = {"checkpoint": checkpoint, "graph": graph}
of_all = {f"{kind}s": {"dense": entry} for kind, entry in dense.items()}
tried = {"name": "dense", "workloads": [workload], "splits": splits}
parity = {"dense": runner.stage("parity", check_on_target, target, **tried, **dense)}
speed = runner.stage("benchmark", benchmark, target, **given, **of_all, parity=parity)
traced = runner.stage("profile", profile_operators, target, **given, **dense, name="dense")
assert load_speed(speed.path).latency_ms["dense"][workload].p50 > 0
assert load_profiles(traced.path)[workload].operators
assert calibration_feeds(checkpoint.path, splits.path, 3)
print(sorted({"torch", "transformers", "optimum", "safetensors.torch"} & sys.modules.keys()))
"""


@pytest.fixture(params=TASKS)
def exported(request):
    """A workload, and the folders of checkpoint, graph and splits."""
    get = request.getfixturevalue
    if request.param == "sentence_embedding":
        return "2x16", get("checkpoints")["bert"], get("graphs")("bert"), get("splits_folder")
    if request.param == "language_modeling":
        return (
            "1x1+16",
            get("language_checkpoints")["llama"],
            get("language_graphs")("llama"),
            get("splits_folder"),
        )
    checkpoint, graph = get("image_checkpoints")["resnet"], get("image_graphs")["resnet"]
    return "2x8", checkpoint, graph, get("image_splits_folder")


def test_no_stage_that_only_runs_graphs_loads_torch(exported, tmp_path):
    workload, checkpoint, graph, splits = exported
    bare = shutil.copytree(checkpoint, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    words = [str(tmp_path / "store"), workload, str(bare), str(graph), str(splits)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr

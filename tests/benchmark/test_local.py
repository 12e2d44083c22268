import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from compress.benchmark import local
from compress.config.target import LocalTarget
from compress.errors import BenchmarkError


@pytest.fixture
def config():
    return LocalTarget(threads=1, max_seconds=1.0)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(local, "WARMUP_SECONDS", 0.05)
    monkeypatch.setattr(local, "BLOCK_MS", 1.0)


def test_a_smaller_model_is_faster(tmp_path, make_chain, config):
    models = {
        "dense": make_chain(tmp_path / "dense.onnx", 256, 12),
        "small": make_chain(tmp_path / "small.onnx", 256, 1),
    }
    inputs = {name: {"x": np.ones((batch, 256), np.float32)} for name, batch in (("1", 1), ("16", 16))}
    local.benchmark(config, models, inputs, tmp_path / "out")
    speed = local.load_speed(tmp_path / "out")

    assert list(speed.latency_ms) == ["dense", "small"]
    assert list(speed.speedup) == ["small"]
    for workload, batch in (("1", 1), ("16", 16)):
        dense, small = (speed.latency_ms[model][workload] for model in ("dense", "small"))
        assert dense.p50 <= dense.p90 <= dense.p99
        assert speed.speedup["small"][workload].value == pytest.approx(dense.p50 / small.p50, rel=0.5)
        assert speed.speedup["small"][workload].value > 2
        assert speed.throughput_per_second["small"][workload] == pytest.approx(batch * 1e3 / small.p50)
    for model in models:
        assert 0 < speed.own_memory_bytes[model] < speed.steady_memory_bytes[model]
        assert speed.steady_memory_bytes[model] <= speed.peak_memory_bytes[model]
        assert speed.load_ms[model] > 0
    assert speed.own_memory_bytes["dense"] - speed.own_memory_bytes["small"] > 11 * 256 * 256 * 4 * 0.5
    assert speed.machine["session"]["threads"] == 1
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["spec"]["baseline"] == "dense"


def test_a_model_with_inputs_of_its_own(tmp_path, make_chain, config):
    """One whose vocabulary was cut cannot take the dense model's tokens."""
    models = {
        "dense": make_chain(tmp_path / "dense.onnx", 32, 1),
        "narrow": make_chain(tmp_path / "narrow.onnx", 16, 1),
    }
    wide, narrow = ({"w": {"x": np.ones((2, width), np.float32)}} for width in (32, 16))
    with pytest.raises(BenchmarkError, match="narrow"):
        local.benchmark(config, models, wide, tmp_path / "out")
    local.benchmark(config, models, wide, tmp_path / "out", own={"narrow": narrow})
    assert local.load_speed(tmp_path / "out").latency_ms["narrow"]["w"].p50 > 0


def test_the_shells_variables_do_not_reach_the_runner(tmp_path, make_chain, feeds, config, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = make_chain(tmp_path / "a.onnx", 32, 1)
    local.benchmark(config, {"a": model}, {"w": feeds}, tmp_path / "out")
    assert local.load_speed(tmp_path / "out").speedup == {}


def test_errors_name_the_model(tmp_path, make_chain, feeds, config):
    good, bad = make_chain(tmp_path / "a.onnx", 32, 1), tmp_path / "b.onnx"
    with pytest.raises(BenchmarkError, match="'b' has no file"):
        local.benchmark(config, {"a": good, "b": bad}, {"w": feeds}, tmp_path / "out")
    bad.write_bytes(b"not an onnx file")
    with pytest.raises(BenchmarkError, match=r"found:   model 'b': .*Protobuf"):
        local.benchmark(config, {"a": good, "b": bad}, {"w": feeds}, tmp_path / "out")
    with pytest.raises(BenchmarkError, match="lacks the input 'x'"):
        local.benchmark(config, {"a": good}, {"w": {"y": feeds["x"]}}, tmp_path / "out")
    with pytest.raises(BenchmarkError, match="0 workloads"):
        local.benchmark(config, {"a": good}, {}, tmp_path / "out")
    with pytest.raises(BenchmarkError, match=r"cannot read .*speed\.json"):
        local.load_speed(tmp_path / "out")


def test_a_runner_that_hangs_is_ended(tmp_path, make_chain, feeds, config, monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", -0.99)
    with pytest.raises(BenchmarkError, match="hung"):
        local.benchmark(config, {"a": make_chain(tmp_path / "a.onnx", 32, 1)}, {"w": feeds}, tmp_path)
    assert [child for child in psutil.Process().children() if "runner.py" in " ".join(child.cmdline())] == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process(tmp_path, make_chain, how):
    make_chain(tmp_path / "a.onnx", 32, 1)
    script = """
import sys
from pathlib import Path
import numpy as np
from compress.benchmark.local import benchmark
from compress.config.target import LocalTarget
model = Path(sys.argv[1], "a.onnx")
feeds = {"w": {"x": np.ones((1, 32), np.float32)}}
benchmark(LocalTarget(max_seconds=600.0, ratio_ci=0.001), {"a": model, "b": model}, feeds, Path(sys.argv[1]))
"""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    descendants = []
    while len(descendants) < 3 and time.monotonic() < deadline:  # the runner and two workers
        time.sleep(0.05)
        descendants = psutil.Process(process.pid).children(recursive=True)
    assert len(descendants) >= 3
    process.send_signal(how)
    process.wait(timeout=10)
    _, alive = psutil.wait_procs(descendants, timeout=20)
    assert alive == []

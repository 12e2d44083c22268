import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from compress.benchmark import limits, timing
from compress.benchmark.profile import load_profiles, profile_model
from compress.benchmark.speed import load_speed
from compress.benchmark.timing import time_models
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import BrowserTarget, LocalTarget, NodeTarget, SshTarget
from compress.errors import BenchmarkError, ConfigError
from compress.graph.session import CPU
from compress.targets import open_target
from compress.targets.bundle import moved
from tests.ssh_server import with_host
from tests.targets.kinds import KINDS

SHORT = BenchmarkConfig(max_seconds=1.0)
OF_PYTHON = [LocalTarget, SshTarget]


@pytest.fixture(params=KINDS)
def kind(request):
    return with_host(request.param, request)


@pytest.fixture
def target(kind):
    return open_target(kind(threads=1))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0.05)
    monkeypatch.setattr(timing, "BLOCK_MS", 1.0)


def test_a_smaller_model_is_faster(tmp_path, make_chain, target):
    models = {
        "dense": make_chain(tmp_path / "dense.onnx", 256, 24),
        "small": make_chain(tmp_path / "small.onnx", 256, 1),
    }
    inputs = {name: {"x": np.ones((batch, 256), np.float32)} for name, batch in (("1", 1), ("16", 16))}
    time_models(target, SHORT, models, inputs, tmp_path / "out")
    speed = load_speed(tmp_path / "out")

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
    assert speed.own_memory_bytes["dense"] - speed.own_memory_bytes["small"] > 23 * 256 * 256 * 4 * 0.5
    assert speed.machine["session"]["threads"] == 1
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["spec"]["baseline"] == "dense"


def test_a_model_with_inputs_of_its_own(tmp_path, make_chain, target):
    """One whose vocabulary was cut cannot take the dense model's tokens."""
    models = {
        "dense": make_chain(tmp_path / "dense.onnx", 32, 1),
        "narrow": make_chain(tmp_path / "narrow.onnx", 16, 1),
    }
    wide, narrow = ({"w": {"x": np.ones((2, width), np.float32)}} for width in (32, 16))
    with pytest.raises(BenchmarkError, match="narrow"):
        time_models(target, SHORT, models, wide, tmp_path / "out")
    time_models(target, SHORT, models, wide, tmp_path / "out", own={"narrow": narrow})
    assert load_speed(tmp_path / "out").latency_ms["narrow"]["w"].p50 > 0


def test_the_shells_variables_do_not_reach_the_runner(tmp_path, make_chain, feeds, target, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = make_chain(tmp_path / "a.onnx", 32, 1)
    time_models(target, SHORT, {"a": model}, {"w": feeds}, tmp_path / "out")
    assert load_speed(tmp_path / "out").speedup == {}


def test_errors_name_the_model(tmp_path, make_chain, feeds, target):
    good, bad = make_chain(tmp_path / "a.onnx", 32, 1), tmp_path / "b.onnx"
    with pytest.raises(BenchmarkError, match="'b' has no file"):
        time_models(target, SHORT, {"a": good, "b": bad}, {"w": feeds}, tmp_path / "out")
    bad.write_bytes(b"not an onnx file")
    with pytest.raises(BenchmarkError, match=r"found:   model 'b': .*(Protobuf|no ONNX model)"):
        time_models(target, SHORT, {"a": good, "b": bad}, {"w": feeds}, tmp_path / "out")
    with pytest.raises(BenchmarkError, match="lacks the input 'x'"):
        time_models(target, SHORT, {"a": good}, {"w": {"y": feeds["x"]}}, tmp_path / "out")
    with pytest.raises(BenchmarkError, match="0 workloads"):
        time_models(target, SHORT, {"a": good}, {}, tmp_path / "out")
    with pytest.raises(BenchmarkError, match=r"cannot read .*speed\.json"):
        load_speed(tmp_path / "out")


def test_a_runner_that_hangs_is_ended(tmp_path, make_chain, feeds, target, monkeypatch):
    monkeypatch.setattr(timing, "GRACE_SECONDS", -0.99)
    with pytest.raises(BenchmarkError, match="hung"):
        time_models(target, SHORT, {"a": make_chain(tmp_path / "a.onnx", 32, 1)}, {"w": feeds}, tmp_path)
    assert [child for child in psutil.Process().children() if "runner" in " ".join(child.cmdline())] == []


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (LocalTarget, signal.SIGINT),
        (LocalTarget, signal.SIGTERM),
        (NodeTarget, signal.SIGINT),
        pytest.param(BrowserTarget, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_leaves_no_process(tmp_path, make_chain, how, kind):
    make_chain(tmp_path / "a.onnx", 32, 1)
    script = """
import sys
from pathlib import Path
import numpy as np
from compress.benchmark.timing import time_models
from compress.config import target
from compress.config.benchmark import BenchmarkConfig
from compress.targets import open_target
model = Path(sys.argv[1], "a.onnx")
feeds = {"w": {"x": np.ones((1, 32), np.float32)}}
timing = BenchmarkConfig(max_seconds=600.0, ratio_ci=0.001)
where = open_target(getattr(target, sys.argv[2])())
time_models(where, timing, {"a": model, "b": model}, feeds, Path(sys.argv[1]))
"""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), kind.__name__], cwd=root, stderr=subprocess.DEVNULL
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


def test_the_profile_and_the_limits_of_a_target(tmp_path, make_chain, target, monkeypatch):
    model = make_chain(tmp_path / "a.onnx", 512, 3)  # OpenVINO makes one kernel of a row of small products
    profile_model(target, "a", model, {"w": {"x": np.ones((4, 512), np.float32)}}, tmp_path)
    profile = load_profiles(tmp_path)["w"]
    assert [(each.nodes, each.macs) for each in profile.operators if each.macs] == [(3, 3 * 4 * 512 * 512)]
    assert profile.fallback_nodes == 0
    monkeypatch.setitem(target.facts(), "cache_bytes", 2**20)
    assert limits.calibrate(target).float32_gflops > 0


def test_flags_are_those_asked_for_or_the_machines(kind):
    assert open_target(kind(cpu_flags=["avx2"])).cpu_flags() == ("avx2",)
    assert open_target(kind()).cpu_flags() == tuple(open_target(kind()).facts()["flags"])


@pytest.mark.parametrize("kind", OF_PYTHON, indirect=True)
def test_what_is_asked_of_a_runtime_is_checked(kind):
    with pytest.raises(ConfigError, match=r"knows no such execution provider\n  found:   Gpu"):
        open_target(kind(provider="Gpu")).facts()
    with pytest.raises(
        ConfigError, match=r"lacks an execution provider\n  found:   CUDA(.|\n)*next: +install"
    ):
        open_target(kind(provider="cuda")).facts()


@pytest.mark.parametrize("kind", OF_PYTHON, indirect=True)
def test_a_provider_is_one_word_of_the_configuration(tmp_path, make_chain, feeds, kind):
    """One that comes with every onnxruntime and runs no operator of this graph."""
    target = open_target(kind(threads=1, provider="AzureExecutionProvider"))
    model = make_chain(tmp_path / "a.onnx", 32, 1)
    speed = time_models(target, SHORT, {"a": model}, {"w": feeds}, tmp_path / "out")
    assert speed.machine["session"]["providers"] == ["AzureExecutionProvider", CPU]
    profile_model(target, "a", model, {"w": feeds}, tmp_path)
    profile = load_profiles(tmp_path)["w"]
    assert profile.fallback_nodes == sum(operator.nodes for operator in profile.operators) > 0


def test_models_may_be_built_for_a_cpu_without_flags(kind):
    assert open_target(kind(cpu_flags=[])).cpu_flags() == ()
    assert kind(cpu_flags=[]).built_for(["avx2"]).cpu_flags == []
    assert kind().built_for(["avx2"]).cpu_flags == ["avx2"]


def test_paths_of_a_job_are_those_of_the_copies():
    job = {"models": {"a": "/m/a.onnx"}, "limits": {"x": ["/m/a.onnx", "/m/x.npz"]}, "other": ["a", 1, None]}
    copies = {"/m/a.onnx": "/t/0/a.onnx", "/m/x.npz": "/t/1/x.npz"}
    assert moved(job, copies) == {
        "models": {"a": "/t/0/a.onnx"},
        "limits": {"x": ["/t/0/a.onnx", "/t/1/x.npz"]},
        "other": ["a", 1, None],
    }

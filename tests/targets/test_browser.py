import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from compress.config.target import BrowserProvider, BrowserTarget
from compress.errors import BenchmarkError, ConfigError
from compress.graph.session import open_session
from compress.targets import open_target
from compress.targets.browser import check_page, find_browser
from compress.targets.outputs import outputs

PAGE = {
    "node": "22.1.0",
    "browser": "150",
    "webgpu": "nvidia ampere",
    "crossOriginIsolated": True,
    "simd": True,
}


def test_a_page_gives_what_a_session_here_gives(tmp_path, make_chain):
    """With weights in a file beside the graph, on two threads."""
    model = make_chain(tmp_path / "plain.onnx", 64, 3)
    apart = tmp_path / "a[1] b.onnx"
    onnx.save(onnx.load(model), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    rows = {"x": np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)}
    [given] = outputs(open_target(BrowserTarget(threads=2)), apart, [rows])
    [wanted] = open_session(model).run(["y2"], rows)
    np.testing.assert_allclose(given["y2"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_model_that_does_not_load_is_named(tmp_path):
    (tmp_path / "b.onnx").write_bytes(b"not an onnx file")
    with pytest.raises(BenchmarkError, match=r"'small': .*[Pp]rotobuf"):
        list(
            outputs(open_target(BrowserTarget(threads=1)), tmp_path / "b.onnx", [{"x": np.ones(1)}], "small")
        )


def test_what_a_browser_lacks_is_said_before_work():
    check_page("wasm", 2, PAGE)
    check_page("webgpu", 1, PAGE)
    for adapter in (None, "google swiftshader"):
        with pytest.raises(ConfigError, match=r"no GPU for WebGPU(.|\n)*target\.provider=wasm"):
            check_page("webgpu", 1, {**PAGE, "webgpu": adapter})
    check_page("wasm", 1, {**PAGE, "crossOriginIsolated": False})
    with pytest.raises(ConfigError, match=r"no threads(.|\n)*target\.threads=1"):
        check_page("wasm", 0, {**PAGE, "crossOriginIsolated": False})
    with pytest.raises(ConfigError, match="no SIMD"):
        check_page("wasm", 1, {**PAGE, "simd": False})
    with pytest.raises(ConfigError, match=r"Node\.js is too old\n  found:   16"):
        check_page("wasm", 1, {**PAGE, "node": "16.2.0"})


def test_no_chromium_is_said_with_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"no Chromium\n  found:   /none(.|\n)*target\.browser="):
        find_browser("/none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"none of chromium, (.|\n)*apt-get install chromium"):
        find_browser(None)


def test_a_browser_that_does_not_start_says_why(tmp_path):
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\necho no library libx >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(BenchmarkError, match=r"Chromium ended \(3\): no library libx"):
        open_target(BrowserTarget(browser=str(broken))).facts()


@pytest.mark.slow
def test_webgpu_computes_what_a_session_here_gives(tmp_path, make_chain):
    """By Chromium's emulation, where there is no GPU; it is refused as what times are taken with."""
    model = make_chain(tmp_path / "a.onnx", 64, 3)
    rows = {"x": np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)}
    [given] = outputs(open_target(BrowserTarget(threads=1, provider=BrowserProvider.webgpu)), model, [rows])
    [wanted] = open_session(model).run(["y2"], rows)
    np.testing.assert_allclose(given["y2"], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_runner_that_is_killed_leaves_no_browser(tmp_path, make_chain):
    """While its workers are stopped: nothing of ours is there to end them."""
    make_chain(tmp_path / "a.onnx", 32, 1)
    script = """
import sys
from pathlib import Path
import numpy as np
from compress.benchmark.timing import time_models
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import BrowserTarget
from compress.targets import open_target
model = Path(sys.argv[1], "a.onnx")
timing = BenchmarkConfig(max_seconds=600.0, ratio_ci=0.001)
feeds = {"w": {"x": np.ones((1, 32), np.float32)}}
time_models(open_target(BrowserTarget(threads=1)), timing, {"a": model, "b": model}, feeds, Path(sys.argv[1]))
"""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, stderr=subprocess.DEVNULL
    )
    stopped, deadline = [], time.monotonic() + 60
    while len(stopped) < 8 and time.monotonic() < deadline:  # a whole browser and its driver
        time.sleep(0.1)
        descendants = psutil.Process(process.pid).children(recursive=True)
        stopped = [each for each in descendants if each.status() == psutil.STATUS_STOPPED]
    assert len(stopped) >= 8
    [runner] = psutil.Process(process.pid).children()
    os.kill(runner.pid, signal.SIGKILL)
    process.wait(timeout=30)
    _, alive = psutil.wait_procs(descendants, timeout=20)
    assert alive == []

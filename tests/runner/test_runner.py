import ast
import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from compress.runner import collect, counters
from compress.runner.workers import Worker
from compress.targets.bundle import SOURCES, pack


@pytest.fixture
def spec(tmp_path, make_chain, feeds):
    np.savez(tmp_path / "feeds.npz", **feeds)
    model = str(make_chain(tmp_path / "a.onnx", 32, 2))
    return {
        "do": "time",
        "models": {"a": model, "b": model, "c": model},
        "workloads": {"w": str(tmp_path / "feeds.npz")},
        "baseline": "a",
        "threads": 1,
        "warmup_seconds": 0.05,
        "max_seconds": 0.1,
        "min_blocks": 4,
        "block_ms": 1.0,
        "ratio_ci": 0.03,
        "seed": 0,
    }


def start(spec, folder, through=()):
    """The runner alone: copied elsewhere, isolated from our package and from the environment."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    copy = pack(folder / "elsewhere")
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [*through, sys.executable, "-I", copy, str(folder / "spec.json"), str(folder / "samples.json")]
    return subprocess.Popen(command, cwd=folder / "elsewhere", stderr=subprocess.PIPE, text=True)


OTHER_RUNTIME = """
import sys
sys.path.insert(0, sys.argv[1])
from compress.runner import worker
class Model(worker.Model):
    inputs = prepare = compute = None
    def __init__(self, request):
        self.facts = {"load_ms": 1.0, "rss_before_bytes": 1, "providers": [request["path"]]}
    def first_run(self, workload):
        return {workload: 7.0}
    def calls(self, workload, count):
        return [2.5] * count
worker.work(Model)
"""


def test_models_of_another_runtime_are_timed_beside(spec, tmp_path):
    (tmp_path / "other.py").write_text(OTHER_RUNTIME)
    spec["models"]["b"] = "b.gguf"
    spec["with"] = {
        "b": {"threads": 1, "command": [sys.executable, str(tmp_path / "other.py"), str(SOURCES.parents[1])]}
    }
    process = start(spec, tmp_path)
    assert process.communicate(timeout=60)[1] == ""
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert {ms for block in samples["workloads"]["w"]["b"] for ms in block["ms"]} == {2.5}
    assert samples["processes"]["b"][0]["providers"] == ["b.gguf"]
    assert samples["processes"]["a"][0]["providers"] == ["CPUExecutionProvider"]
    assert len(samples["workloads"]["w"]["b"]) == len(samples["workloads"]["w"]["a"])


def last_line(spec, folder):
    process = start(spec, folder)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert not (folder / "samples.json").exists()
    assert "Traceback" not in stderr
    return stderr.strip().splitlines()[-1]


def test_it_imports_nothing_but_numpy_and_in_one_file_each_a_runtime():
    for file in SOURCES.glob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(node.module.split(".")[0])
        runtime = file.stem.removeprefix("with_")
        assert imported - sys.stdlib_module_names <= {"compress", "numpy", runtime}, file.name


def test_samples(spec, tmp_path):
    process = start(spec, tmp_path)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    samples = json.loads((tmp_path / "samples.json").read_text())

    blocks = samples["workloads"]["w"]
    repeats = [block["repeat"] for block in blocks["a"]]
    assert repeats == sorted(repeats)
    assert set(repeats) == set(range(collect.FEWEST_REPEATS))  # the time was up at once
    assert samples["stopped"] == "time"
    assert all([block["repeat"] for block in blocks[model]] == repeats for model in "bc")
    assert all(block["ms"] and min(block["ms"]) > 0 for model in "abc" for block in blocks[model])

    starts = {model: [block["start"] for block in blocks[model]] for model in "abc"}
    orders = [tuple(sorted("abc", key=lambda model, i=i: starts[model][i])) for i in range(len(repeats))]
    assert len(set(zip(repeats, orders, strict=True))) > len(set(repeats))  # anew in each round of a repeat
    flat = [time for i in range(len(repeats)) for time in sorted(starts[model][i] for model in "abc")]
    assert flat == sorted(flat)  # no block reaches into the next round

    for processes in samples["processes"].values():
        assert len(processes) == collect.FEWEST_REPEATS
        for each in processes:
            assert each["providers"] == ["CPUExecutionProvider"]
            assert (each["threads"], each["optimization_level"], each["arena"]) == (1, "ORT_ENABLE_ALL", True)
            assert each["affinity"] == sorted(os.sched_getaffinity(0))
            assert each["load_ms"] > 0
            assert each["first_run_ms"]["w"] > 0
            assert each["warm_up"]["w"]["calls"] > 0
            assert 0 < each["rss_before_bytes"] <= each["rss_bytes"] <= each["peak_rss_bytes"]
    for facts in samples["noise"]:
        assert facts["own_cpu_seconds"] > 0
        assert {"other_cpu_seconds", "steal_seconds", "waited_seconds", "throttled"} <= facts.keys()


def test_it_stops_when_the_interval_is_narrow(spec, tmp_path):
    del spec["models"]["c"]
    process = start(spec | {"ratio_ci": 1e6, "max_seconds": 600.0}, tmp_path)
    process.communicate(timeout=60)
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert samples["stopped"] == "precise"
    assert len(samples["processes"]["a"]) == collect.MIN_REPEATS


def test_a_missing_input_is_named(spec, tmp_path, make_chain):
    spec["models"]["b"] = str(make_chain(tmp_path / "b.onnx", 32, 2, inputs=("x", "mask")))
    said = last_line(spec, tmp_path)
    assert said == "model 'b': workload 'w' lacks the input 'mask' (it has x, unused)"


def test_a_corrupt_model_is_named(spec, tmp_path):
    (tmp_path / "c.onnx").write_bytes(b"not an onnx file")
    spec["models"]["c"] = str(tmp_path / "c.onnx")
    said = last_line(spec, tmp_path)
    assert said.startswith("model 'c': ")
    assert "Protobuf" in said


def test_a_wrong_shape_is_named(spec, tmp_path):
    np.savez(tmp_path / "feeds.npz", x=np.ones((2, 31), np.float32))
    said = last_line(spec, tmp_path)
    assert said.startswith("model ")
    assert "dimensions" in said


def workers_of(process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children()
        if len(children) == 3:
            return children
        time.sleep(0.01)
    raise AssertionError("no workers")


@pytest.fixture
def endless(spec):
    return spec | {"max_seconds": 600.0, "ratio_ci": 0.0}


def test_a_killed_worker_is_named(endless, tmp_path):
    process = start(endless, tmp_path)
    workers_of(process)[0].kill()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    said = stderr.strip().splitlines()[-1]
    assert said.startswith("model '")
    assert "was killed (SIGKILL), most often because memory ran out" in said


def test_workers_end_with_their_runner(endless, tmp_path):
    process = start(endless, tmp_path)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def test_a_worker_is_stopped_while_it_has_nothing_to_do(spec):
    worker = Worker("a", {"threads": 2})
    try:
        worker.ask("ready")
        seen = psutil.Process(worker.process.pid)
        deadline = time.monotonic() + 5  # a signal takes its time
        while seen.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline
        worker.load(spec["models"]["a"], spec["workloads"])
        worker.ask("first_run", workload="w")
        worker.ask("block", workload="w", count=20)
        time.sleep(0.05)
        before = seen.cpu_times()
        time.sleep(0.2)
        assert seen.cpu_times() == before  # not one tick of spinning
    finally:
        worker.close()
    assert not psutil.pid_exists(worker.process.pid)


class Answering:
    """A worker whose blocks take a second of CPU time each."""

    name = "a"

    def __init__(self):
        self.asked = 0

    def ask(self, do, **request):
        self.asked += 1
        return {"ms": [float(self.asked)], "cpu_seconds": 1.0, "waited_seconds": 0.0}


@pytest.mark.parametrize(
    ("stolen", "kept"),
    [([0.0], 1), ([0.05], 1), ([0.3, 0.01], 2), ([0.4, 0.2, 0.3, 0.5], 2), ([0.4, 0.4, 0.4, 0.4, 0.0], 1)],
)
def test_a_block_that_was_stolen_from_is_measured_again(stolen, kept, spec, monkeypatch):
    """And after four attempts the one with the least stolen counts."""
    total = iter([number for each in stolen for number in (0.0, each)])
    counters = {"busy_seconds": 0.0, "throttled": 0}
    monkeypatch.setattr(collect, "machine_counters", lambda: {**counters, "steal_seconds": next(total)})
    watch = type("Watch", (), {"add": lambda self, block: None})()
    run, worker = collect.Run(spec, {}, np.random.default_rng(0)), Answering()
    run.calls["w", "a"] = 1
    block = run.block(worker, "w", watch)
    assert block["ms"] == [kept]
    assert worker.asked == min(len(stolen), collect.ATTEMPTS)


def test_it_stops_when_its_parent_is_gone(endless, tmp_path):
    shell = ["sh", "-c", '"$@" & sleep 3', "sh"]
    _, stderr = start(endless, tmp_path, shell).communicate(timeout=60)
    assert stderr.strip() == "the process that asked for this benchmark is gone"


def test_energy_of_packages_over_a_wrap(tmp_path):
    def write(name, now, wrap):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "energy_uj").write_text(str(now))
        (tmp_path / name / "max_energy_range_uj").write_text(str(wrap))

    write("intel-rapl:0", 9_000_000, 9_999_999)
    write("intel-rapl:1", 1_000_000, 9_999_999)
    write("intel-rapl:0:0", 0, 9_999_999)  # a part of package 0
    before = counters.energy_counters(str(tmp_path))
    write("intel-rapl:0", 500_000, 9_999_999)
    write("intel-rapl:1", 3_000_000, 9_999_999)
    assert counters.energy_spent(before, counters.energy_counters(str(tmp_path))) == pytest.approx(1.5 + 2.0)
    assert counters.energy_counters(str(tmp_path / "nothing")) == {}


def test_a_busy_process_is_seen():
    loud = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        watch = counters.Watch()
        time.sleep(1.0)
        facts = watch.facts()
    finally:
        loud.kill()
        loud.wait()
    assert facts["other_cpu_seconds"] / facts["seconds"] > 0.25

"""The same sweep by every launcher: the same report but for times, and nothing lost with a worker."""

import importlib.util
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from compress.cli.points import alive, point, record_vanished
from compress.cli.sweep import _quoted, _refuse_another_sweep, _run_points, _sweep_folder
from compress.config.compose import load_config
from compress.errors import ConfigError

POINTS = [
    *("prune=transformer", "prune.keep.ffn=0.5", "prune.round_to=8", "quantize=int8_dynamic"),
    *("recover=distill", "recover.steps=4,6"),
]


def environment(cache: Path, **extra: str) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    offline = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, "PYTHONPATH": str(root), "COMPRESS_CACHE": str(cache), **offline, **extra}


def start(home: Path, *words: str, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "compress", "run", "-m", *words, "hydra.sweep.dir=swept"],
        cwd=home,
        env=environment(home / "cache", **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def sweep(home: Path, *words: str, **extra: str) -> str:
    process = start(home, *words, **extra)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return output


def statuses(home: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in sorted(home.glob("swept/[0-9]/point.json"))]


def outcome(home: Path) -> list[Any]:
    """What each point found, but for times: also the sha256 of its files and the digests of its stages."""
    measured = {"latency_ms", "speedup", "peak_memory_bytes", "load_ms", "seconds", "path"}
    measured |= {"profile", "floor", "not_faster"}
    found = []
    for path in sorted(home.glob("swept/[0-9]/report.json")):
        report = json.loads(path.read_text())
        variants = [{k: v for k, v in each.items() if k not in measured} for each in report["variants"]]
        stages = {
            (stage["name"], stage["digest"])
            for stage in report["stages"]
            if stage["name"].split()[0] not in ("benchmark", "profile", "limits")
        }
        for split in report["splits"].values():
            split.pop("looks")  # how many points were evaluated before depends on their order
        found.append((variants, stages, report["splits"], report["config"]))
    return found


@pytest.fixture
def words(tiny) -> list[str]:
    return [*tiny, *POINTS]


@pytest.fixture(scope="session")
def serial(once, tiny) -> Path:
    return once("serial", lambda home: sweep(home, *tiny, *POINTS))


def test_the_folder_of_a_sweep_may_have_any_name(tmp_path):
    folder = tmp_path / "it's a (new) folder, [or] not"
    assert _sweep_folder(["a=1,2", f"hydra.sweep.dir={_quoted(folder)}"], "tiny") == folder
    assert _sweep_folder(["hydra.sweep.dir=a", "hydra.sweep.dir=b/c"], "tiny") == Path("b/c")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_a_folder_that_holds_a_larger_sweep_is_refused(tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "point.json").write_text("{}")
    _refuse_another_sweep(tmp_path, 3)
    _refuse_another_sweep(tmp_path / "new", 1)
    with pytest.raises(ConfigError, match=r"a point 2, where this one has 2 points"):
        _refuse_another_sweep(tmp_path, 2)


def test_a_launcher_without_its_extra_names_it():
    with pytest.raises(ConfigError, match=r"extra \[ray\].*\n.*pip install 'compress-toolkit\[ray\]'"):
        load_config(["experiment=minilm", "hydra/launcher=ray"])


@pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="submitit is installed")
def test_slurm_without_its_extra_names_it():
    with pytest.raises(ConfigError, match=r"pip install 'compress-toolkit\[slurm\]'"):
        load_config(["experiment=minilm", "hydra/launcher=submitit_slurm"])


def test_a_misspelt_launcher():
    with pytest.raises(ConfigError, match=r"found: +joblob\n.*did you mean 'joblib'"):
        load_config(["experiment=minilm", "hydra/launcher=joblob"])


def test_the_vanished_and_the_absent_are_recorded_and_the_rest_is_left(tmp_path):
    for number in (0, 1, 2):
        (tmp_path / str(number)).mkdir()
    with point(tmp_path / "0", ["a=0"]):
        pass
    for number in (1, 2):
        content = {"overrides": [f"a={number}"], "status": "running", "error": None}
        (tmp_path / str(number) / "point.json").write_text(json.dumps(content))
    holder = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); "
        "lock.acquire(); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "2" / ".alive")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        jobs = [[f"a={number}", "hydra/launcher=x"] for number in range(4)]
        assert record_vanished(tmp_path, jobs) == [1, 3]
        other.kill()
    records = [json.loads((tmp_path / str(number) / "point.json").read_text()) for number in range(4)]
    assert [record["status"] for record in records] == ["done", "failed", "running", "failed"]
    assert [record["overrides"] for record in records] == [[f"a={number}"] for number in range(4)]
    assert record_vanished(tmp_path, jobs) == [2]  # killed by now


def test_alive_lets_go_at_the_end(tmp_path):
    with alive(tmp_path):
        pass
    FileLock(tmp_path / ".alive", blocking=False).acquire().lock.release()


def test_a_launcher_that_does_not_start_is_the_users_to_mend(tmp_path):
    def run() -> None:
        raise ConnectionError("nobody answers at 127.0.0.1:1\nmore")

    with pytest.raises(ConfigError, match=r"before any point began\n  found: +ConnectionError: nobody"):
        _run_points(run, tmp_path, [["a=1"], ["a=2"]])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.exhaustive
def test_joblib_gives_the_serial_report_and_readable_lines(tmp_path, words, serial):
    output = sweep(tmp_path, *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert outcome(tmp_path) == outcome(serial)
    stages = [line for line in output.splitlines() if re.search(r"(reused \(.* saved\)| \d+\.\d s)$", line)]
    told = sum(
        len(json.loads(path.read_text())["stages"]) for path in tmp_path.glob("swept/[01]/report.json")
    )
    assert len(stages) == told > 20
    assert all(re.match(r"#[01] [a-z]+ ", line) for line in stages)
    assert "HYDRA" not in output


def worker(process: psutil.Process, home: Path) -> psutil.Process:
    """The process below that holds the lock of a point; waits until one does and is past `load`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any((home / "cache" / "store" / "entries").glob("*")):
            for each in process.children(recursive=True):
                try:
                    if any(file.path.endswith("/.alive") for file in each.open_files()):
                        return each
                except psutil.Error:
                    continue
        time.sleep(0.2)
    raise AssertionError("no worker runs a point")


@pytest.mark.slow
def test_a_killed_worker_is_named_and_the_same_command_takes_up(tmp_path, words, serial):
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = start(tmp_path, *words, *joblib)
    worker(psutil.Process(process.pid), tmp_path).send_signal(signal.SIGKILL)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert "2 failed" in output
    assert "hydra.sweep.dir=swept takes up" in output
    assert statuses(tmp_path) == ["failed", "failed"]
    assert "vanished" in (tmp_path / "swept" / "report.md").read_text()
    before = {path.name for path in (tmp_path / "cache" / "store" / "entries").iterdir()}
    assert before
    assert "saved)" in sweep(tmp_path, *words, *joblib)
    assert outcome(tmp_path) == outcome(serial)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="the extra [slurm] is not installed")
def test_submitit_gives_the_serial_report(tmp_path, words, serial):
    sweep(tmp_path, *words, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10")
    assert outcome(tmp_path) == outcome(serial)


@pytest.fixture
def ray_head(tmp_path_factory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a cluster on loopback whose workers start elsewhere, and what reaches it."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra [ray] is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    # On Linux ray takes 127.0.0.1 for the address on the network, where anyone could run code, unless told
    # that it is alone.
    keys = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}", "--num-cpus=2"]
    quiet = ["--include-dashboard=false", "--disable-usage-stats"]
    process = psutil.Process()
    before = {each.pid for each in psutil.process_iter()}
    try:
        subprocess.run(
            [*command, "start", *head, *quiet],
            cwd=elsewhere,
            env=environment(elsewhere, **keys),
            check=True,
            capture_output=True,
            timeout=180,
        )
        yield address, keys
    finally:
        for each in psutil.process_iter():  # not `ray stop`, which would end other people's clusters too
            if each.pid not in before and each.username() == process.username() and _of_ray(each, keys):
                each.kill()


def _of_ray(process: psutil.Process, keys: dict[str, str]) -> bool:
    try:
        return process.environ().get("RAY_AUTH_TOKEN") == keys["RAY_AUTH_TOKEN"]
    except psutil.Error:
        return False


@pytest.mark.slow
def test_ray_gives_the_serial_report(tmp_path, words, serial, ray_head):
    address, keys = ray_head
    sweep(tmp_path, *words, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}", **keys)
    assert outcome(tmp_path) == outcome(serial)
    assert any((tmp_path / "cache" / "store" / "entries").iterdir())

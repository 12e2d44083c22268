"""A real ssh server on loopback, and what may go wrong between it and us."""

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from compress.benchmark.timing import time_models
from compress.config.benchmark import BenchmarkConfig
from compress.config.target import SshTarget
from compress.errors import BenchmarkError, ConfigError
from compress.graph.session import open_session
from compress.runner import host, jobs
from compress.targets import line, open_target, ssh
from compress.targets.outputs import outputs
from tests.ssh_server import SshServer, free_port


@pytest.fixture
def settings(ssh_host, tmp_path):
    """Of a target with a work folder and a connection of its own."""
    ssh.connect.cache_clear()
    yield {**ssh_host, "workdir": str(tmp_path / "there"), "threads": 1}
    ssh.connect.cache_clear()


@pytest.fixture
def model(tmp_path, make_chain):
    return make_chain(tmp_path / "a.onnx", 32, 1)


@pytest.fixture
def received(monkeypatch):
    """What was sent in each request: (place in the file, bytes)."""
    seen, request = [], line.Line.request

    def spied(self, do, *payload, **words):
        if do == "receive":
            seen.append([tuple(each[1:]) for each in words["files"]])
        return request(self, do, *payload, **words)

    monkeypatch.setattr(line.Line, "request", spied)
    return seen


def given(settings, model):
    x = np.ones((1, 32), np.float32)
    [arrays] = outputs(open_target(SshTarget(**settings)), model, [{"x": x}])
    session = open_session(model)
    [wanted] = session.run(None, {"x": x})
    np.testing.assert_allclose(arrays[session.get_outputs()[0].name], wanted, rtol=1e-5)


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runners():
    return with_word("runner.pyz")


def with_word(word):
    found = psutil.process_iter(["cmdline"])
    return [each for each in found if word in " ".join(each.info["cmdline"] or [])]


def running(tmp_path):
    return any(str(tmp_path) in cwd(each) for each in runners())


def cwd(process):
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def long_job(settings, model, tmp_path):
    feeds = {"w": {"x": np.ones((1, 32), np.float32)}}
    timing = BenchmarkConfig(max_seconds=4.0, ratio_ci=0.001)
    target, models = open_target(SshTarget(**settings)), {"a": model, "b": model}
    return time_models(target, timing, models, feeds, tmp_path / "out")


# ---------------------------------------------------------------- what is sent


def test_what_lies_there_is_not_sent_again_and_nothing_else_is_left(settings, model, tmp_path, received):
    """Weights beside the model are sent, too, and a shell that prints disturbs nothing."""
    chatty = tmp_path / "python"
    chatty.write_text(f'#!/bin/sh\necho "Welcome to bench"\nexec {sys.executable} "$@"\n')
    chatty.chmod(0o755)
    settings["python"] = str(chatty)
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    given(settings, model)
    sent = len(received)
    given(settings, model)
    assert len(received) == sent
    assert list((tmp_path / "there" / "jobs").iterdir()) == []
    ssh.connect.cache_clear()  # as the end of the process does
    assert not with_word("ControlPath")


def test_what_nobody_asked_for_lately_is_removed(settings, model, tmp_path, monkeypatch):
    given(settings, model)
    files = list((tmp_path / "there" / "files").iterdir())
    (tmp_path / "there" / "jobs" / "of a machine that was switched off").mkdir()
    for path in [*files, *(tmp_path / "there" / "jobs").iterdir()]:
        os.utime(path, (0, 0))
    open_target(SshTarget(**settings)).host.send([])
    assert [*(tmp_path / "there").glob("*/*")] == []


def test_a_line_that_breaks_while_a_file_is_sent_goes_on_where_it_was(
    settings, tmp_path, ssh_server, received, monkeypatch
):
    content = np.random.default_rng(0).bytes(8_000_000)
    (tmp_path / "big.bin").write_bytes(content)
    monkeypatch.setattr(line, "CHUNK_BYTES", 2**20)
    chunks, broken = ssh.chunks, []

    def breaking(files):
        for number, data in enumerate(chunks(files)):
            if number == 4 and not broken:
                wait_for(
                    lambda: any(each.stat().st_size > 2**20 for each in tmp_path.glob("there/files/*.part"))
                )
                broken.append(True)
                ssh_server.drop()
            yield data

    monkeypatch.setattr(ssh, "chunks", breaking)
    there, _ = ssh.placed([tmp_path / "big.bin"])
    open_target(SshTarget(**settings)).host.send(there)
    assert broken
    assert (tmp_path / "there" / "files" / there[0].sha256).read_bytes() == content
    assert received[0] == [(0, 8_000_000)]
    assert received[1][0][0] > 2**20


def test_what_came_damaged_is_sent_again(settings, tmp_path, received):
    (tmp_path / "file.bin").write_bytes(b"content")
    there, _ = ssh.placed([tmp_path / "file.bin"])
    (tmp_path / "there" / "files").mkdir(parents=True)
    (tmp_path / "there" / "files" / f"{there[0].sha256}.part").write_bytes(b"other")
    open_target(SshTarget(**settings)).host.send(there)
    assert (tmp_path / "there" / "files" / there[0].sha256).read_bytes() == b"content"
    assert received == [[(5, 2)], [(0, 7)]]


# ---------------------------------------------------------------- a line that breaks, a host that dies


@pytest.mark.slow
def test_a_job_outlives_the_line(settings, model, tmp_path, ssh_server):
    """The line breaks twice while it runs; the samples are those of the one run."""
    breaks = []

    def break_it():
        for _ in range(2):
            wait_for(lambda: running(tmp_path))
            time.sleep(0.5)
            breaks.append({each.pid for each in runners() if str(tmp_path) in cwd(each)})
            ssh_server.drop()
            time.sleep(1.2)

    thread = threading.Thread(target=break_it)
    thread.start()
    speed = long_job(settings, model, tmp_path)
    thread.join()
    assert speed.latency_ms["b"]["w"].p50 > 0
    assert breaks[0] & breaks[1], "it was started anew"
    assert not running(tmp_path)


def test_a_host_that_does_not_come_back_ends_its_job_by_itself(
    settings, model, tmp_path, ssh_server, monkeypatch
):
    monkeypatch.setattr(line, "RECONNECT_SECONDS", 1.5)

    def switch_off():
        wait_for(lambda: running(tmp_path))
        ssh_server.stop()

    thread = threading.Thread(target=switch_off)
    thread.start()
    try:
        with pytest.raises(ConfigError, match=r"refuses a connection(.|\n)*bench"):
            long_job(settings, model, tmp_path)
    finally:
        thread.join()
        ssh_server.start()
    wait_for(lambda: not running(tmp_path))
    wait_for(lambda: list((tmp_path / "there" / "jobs").iterdir()) == [])


def test_a_job_whose_machine_was_started_anew_is_told(settings, model, tmp_path):
    def kill():
        wait_for(lambda: running(tmp_path))
        ours = [each for each in runners() if str(tmp_path) in cwd(each)]
        [runner] = [each for each in ours if "job.json" in each.cmdline()]
        for each in (runner.parent(), runner):
            each.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(BenchmarkError, match=r"ended without a result(.|\n)*same command"):
        long_job(settings, model, tmp_path)
    thread.join()
    assert list((tmp_path / "there" / "jobs").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_leaves_nothing_on_either_side(settings, model, tmp_path, how):
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.targets.test_ssh import long_job
long_job({settings!r}, Path({str(model)!r}), Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    wait_for(lambda: running(tmp_path), 60)
    process.send_signal(how)
    process.wait(timeout=20)
    wait_for(lambda: not running(tmp_path))
    wait_for(lambda: list((tmp_path / "there" / "jobs").iterdir()) == [])


def test_one_of_us_measures_at_a_time(settings, model, tmp_path, caplog):
    feeds = {"w": {"x": np.ones((1, 32), np.float32)}}
    target, timing = open_target(SshTarget(**settings)), BenchmarkConfig(max_seconds=1.0)
    early = []
    target.facts()
    with open(host.lock_file()) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def let_go():
            wait_for(lambda: "waiting for another process" in caplog.text)
            early.append(running(tmp_path))
            fcntl.flock(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=let_go)
        thread.start()
        with caplog.at_level(logging.WARNING):
            time_models(target, timing, {"a": model}, feeds, tmp_path / "out")
        thread.join()
    assert early == [False]


# ---------------------------------------------------------------- what the user is told


def refused(settings):
    with pytest.raises((ConfigError, BenchmarkError)) as error:
        open_target(SshTarget(**settings)).facts()
    return str(error.value)


def test_a_host_that_cannot_be_reached(settings, ssh_server, with_settings, tmp_path):
    def changed(old, new):
        text = (ssh_server.folder / "config").read_text()
        assert old in text
        (tmp_path / "config").write_text(text.replace(old, new))
        with_settings(tmp_path / "config")
        ssh.connect.cache_clear()
        return refused(settings)

    said = changed(f"Port {ssh_server.port}", f"Port {free_port()}")
    assert "refuses a connection" in said
    assert "bench" in said
    assert "no host of this name" in changed("HostName 127.0.0.1", "HostName none.invalid")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    said = changed(f"{ssh_server.folder}/user", f"{tmp_path}/other")
    assert "accepts no key of yours" in said
    assert "ssh-copy-id bench" in said
    (tmp_path / "known").write_text("")
    said = changed(f"{ssh_server.folder}/known", f"{tmp_path}/known")
    assert "not known yet" in said
    assert "ssh bench" in said
    key = (tmp_path / "other.pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{ssh_server.port} {key}")
    said = changed(f"{ssh_server.folder}/known", f"{tmp_path}/known")
    assert "another host than before" in said
    assert "ssh-keygen -R bench" in said


@pytest.mark.parametrize("name", ["", "-oProxyCommand=touch x"])
def test_a_target_without_a_host(settings, name):
    assert "target.host=NAME" in refused({**settings, "host": name})


def test_a_host_whose_python_will_not_do(settings, tmp_path, monkeypatch):
    said = refused({**settings, "python": "/no/python3"})
    assert "no Python of this name" in said
    assert "target.python=" in said
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    said = refused({**settings, "python": str(tmp_path / "bare/bin/python")})
    assert "cannot run models" in said
    assert "No module named" in said
    assert "target.venv=true" in said
    monkeypatch.setattr(line, "LOADER", line.LOADER.replace("(3,11)", "(9,0)"))
    ssh.connect.cache_clear()
    said = refused(settings)
    assert "too old" in said
    assert f"is {sys.version_info[0]}.{sys.version_info[1]}" in said
    assert "3.11" in said


def test_a_host_without_the_flags_that_models_are_built_for(settings):
    said = refused({**settings, "cpu_flags": ["avx1024_quantum"]})
    assert "lacks avx1024_quantum" in said


def test_a_work_folder_that_cannot_be_used(settings, tmp_path):
    (tmp_path / "file").write_text("")
    said = refused({**settings, "workdir": str(tmp_path / "file" / "below")})
    assert "cannot use its work folder" in said
    assert "target.workdir=" in said


def test_a_disk_that_is_too_small(settings, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        (tmp_path / "big.bin").write_bytes(np.random.default_rng(0).bytes(2_000_000))
        there, _ = ssh.placed([tmp_path / "big.bin"])
        target = open_target(SshTarget(**{**settings, "workdir": str(small)}))
        with pytest.raises(BenchmarkError, match=r"disk of bench is too small(.|\n)*2\.0 MB(.|\n)*workdir"):
            target.host.send(there)
        (small / "others").write_bytes(bytes(2**20 - 2**14))  # full while it is sent, too
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(host, "__file__", str(tmp_path / "blind.py"))
            blind = Path(host.__spec__.origin).read_text().replace("disk_usage(folder)", "disk_usage('/')")
            (tmp_path / "blind.py").write_text(blind)
            with pytest.raises(BenchmarkError, match=r"disk is full(.|\n)*workdir"):
                target.host.send(there)
    finally:
        subprocess.run(["umount", small], check=True)


# ---------------------------------------------------------------- other machines


def test_the_other_end_knows_the_names_of_results():
    assert host.RESULTS == (ssh.RESULT, jobs.OUTPUTS)


@pytest.mark.slow
def test_an_environment_is_made_there_on_request(settings, model, tmp_path):
    system = Path(sys.executable).resolve()
    given({**settings, "python": str(system), "venv": True}, model)
    [ready] = (tmp_path / "there").glob("venv-*/ready")
    made = ready.stat().st_mtime
    of_card = "from tokenizers import Tokenizer; import numpy, onnxruntime"
    subprocess.run([ready.parent / "bin" / "python", "-I", "-c", of_card], check=True)
    ssh.connect.cache_clear()
    given({**settings, "python": str(system), "venv": True}, model)
    assert ready.stat().st_mtime == made
    with pytest.MonkeyPatch.context() as patched:
        none = {"distribution": "onnxruntime", "version": "0.0.1"}
        patched.setattr(ssh.with_onnxruntime, "runtime_facts", lambda: none)
        ssh.connect.cache_clear()
        said = refused({**settings, "python": str(system), "venv": True})
    assert "no environment could be made" in said
    assert "0.0.1" in said
    assert len(list((tmp_path / "there").glob("venv-*/"))) == 1


@pytest.fixture
def second_host(tmp_path, with_settings):
    """A server in a network namespace: a machine with a network of its own, but for its disk."""
    name, folder = f"bench{free_port()}", tmp_path / "second"
    ip = lambda *words: subprocess.run(["ip", *words], capture_output=True, check=False).returncode  # noqa: E731
    if not shutil.which("ip") or ip("netns", "add", name):
        pytest.skip("this user may not make a network namespace")
    folder.mkdir()
    server = None
    try:
        for words in (
            ["link", "add", "cmp0", "type", "veth", "peer", "name", "cmp1", "netns", name],
            ["address", "add", "10.213.7.1/30", "dev", "cmp0"],
            ["link", "set", "cmp0", "up"],
            ["-n", name, "address", "add", "10.213.7.2/30", "dev", "cmp1"],
            ["-n", name, "link", "set", "cmp1", "up"],
        ):
            if ip(*words):
                pytest.skip("this machine has no virtual network cards")
        server = SshServer(folder, "second", "10.213.7.2", 2222)
        server.start("ip", "netns", "exec", name)
        with_settings(folder / "config")
        yield server
    finally:
        if server:
            server.stop()
        ip("netns", "delete", name)
        ip("link", "delete", "cmp0")


@pytest.mark.slow
def test_a_second_host_whose_network_fails_for_a_while(second_host, model, tmp_path):
    """Nothing tells us: the line just stays silent, until ssh counts it as down."""
    settings = {"host": "second", "python": sys.executable, "workdir": str(tmp_path / "there"), "threads": 1}

    def cut():
        wait_for(lambda: running(tmp_path))
        subprocess.run(["ip", "link", "set", "cmp0", "down"], check=True)
        time.sleep(20)
        subprocess.run(["ip", "link", "set", "cmp0", "up"], check=True)

    thread = threading.Thread(target=cut)
    thread.start()
    speed = long_job(settings, model, tmp_path)
    thread.join()
    ssh.connect.cache_clear()
    assert speed.latency_ms["b"]["w"].p50 > 0

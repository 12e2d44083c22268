"""Results are whole or absent, whatever happens while they are made."""

import errno
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import BenchmarkError, ModelError, StoreError
from compress.stages.store import Store, entry_digest
from compress.system.disk import sha256_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def writes(text, calls=None):
    def build(out, scratch):
        (out / "inner").mkdir()
        (out / "inner" / "result.txt").write_text(text)
        (out / "other.bin").write_bytes(b"\x00\x01")
        if calls is not None:
            calls.append(text)

    return build


def entries(store):
    return sorted(path.name for path in (store.root / "entries").iterdir())


def test_a_result_is_made_once(store):
    calls = []
    first = store.make("stage", {"a": 1}, writes("x", calls))
    second = store.make("stage", {"a": 1}, writes("y", calls))
    assert (first.reused, second.reused) == (False, True)
    assert calls == ["x"]
    assert first.path == second.path
    assert first.seconds == second.seconds
    assert first.sums == second.sums
    assert first.sums == {name: sha256_file(first.path / name) for name in ("inner/result.txt", "other.bin")}
    assert (second.path / "inner" / "result.txt").read_text() == "x"
    assert entries(store) == [first.digest]
    assert not (store.root / "partial" / first.digest).exists()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells, others do not")
def test_the_peak_of_memory_is_that_of_one_result(store):
    """Which the peak of a process's whole life would not be."""

    def greedy(out, scratch):
        with mmap.mmap(-1, 200_000_000) as memory:  # numpy's may be what another test gave back
            for page in range(0, len(memory), 4096):
                memory[page] = 1

    large = store.make("large", {}, greedy)
    small = store.make("small", {}, writes("x"))
    assert large.peak_memory_bytes - small.peak_memory_bytes > 150e6
    assert store.make("large", {}, greedy).peak_memory_bytes == large.peak_memory_bytes


keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(one=keys, other=keys)
def test_digests_tell_keys_apart(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (entry_digest("s", one) == entry_digest("s", other)) == same
    assert entry_digest("s", one) != entry_digest("t", one)


def test_the_order_of_keys_does_not_matter():
    assert entry_digest("s", {"a": 1, "b": 2}) == entry_digest("s", {"b": 2, "a": 1})


@pytest.mark.parametrize("error", [ValueError("x"), ModelError("x"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_no_entry_and_its_scratch(store, error):
    def build(out, scratch):
        (out / "half").write_text("half")
        (scratch / "progress").write_text("3")
        raise error

    with pytest.raises(type(error)):
        store.make("stage", 1, build)
    assert entries(store) == []

    def resume(out, scratch):
        assert list(out.iterdir()) == []
        (out / "result").write_text((scratch / "progress").read_text())

    assert (store.make("stage", 1, resume).path / "result").read_text() == "3"


def flip(path, at=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


DAMAGES = {
    "flip": lambda path: flip(path / "inner" / "result.txt"),
    "truncate": lambda path: (path / "inner" / "result.txt").write_text(""),
    "delete": lambda path: (path / "other.bin").unlink(),
    "delete a folder": lambda path: shutil.rmtree(path / "inner"),
    "delete the seal": lambda path: (path / "entry.json").unlink(),
    "empty the seal": lambda path: (path / "entry.json").write_text(""),
    "other JSON": lambda path: (path / "entry.json").write_text("[1]"),
    "no seconds": lambda path: (path / "entry.json").write_text('{"files": {}}'),
    "files a list": lambda path: (path / "entry.json").write_text('{"files": [], "seconds": 1}'),
    "no text": lambda path: (path / "entry.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_made_again_and_never_given(store, damage):
    path = store.make("stage", 1, writes("x")).path
    DAMAGES[damage](path)
    assert store.find(entry_digest("stage", 1)) is None
    assert store.typical_seconds("other") is None
    again = store.make("stage", 1, writes("x"))
    assert not again.reused
    assert (again.path / "inner" / "result.txt").read_text() == "x"
    assert store.find(again.digest) is not None


def test_any_flipped_byte_of_the_seal_is_survived(store):
    path = store.make("stage", 1, writes("x")).path / "entry.json"
    original = path.read_bytes()
    for at in range(len(original)):
        for bit in (1, 16):
            damaged = bytearray(original)
            damaged[at] ^= bit
            path.write_bytes(bytes(damaged))
            found = store.find(entry_digest("stage", 1))
            assert found is None or (found.path / "inner" / "result.txt").read_text() == "x"
            store.typical_seconds("stage")


def test_typical_seconds_is_a_median(store):
    for key, seconds in enumerate((5.0, 1.0, 3.0)):
        seal = store.make("stage", key, writes("x")).path / "entry.json"
        seal.write_text(json.dumps({**json.loads(seal.read_text()), "seconds": seconds}))
    assert store.typical_seconds("stage") == 3.0
    assert store.typical_seconds("never") is None


# ---------------------------------------------------------------- other processes

SLOW = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from compress.stages.store import Store

    def build(out, scratch):
        with open(sys.argv[2], "a") as log:
            log.write("built\\n")
        (out / "half").write_text("half")
        (scratch / "progress").write_text("3")
        time.sleep(float(sys.argv[3]))
        (out / "result").write_text("whole")

    entry = Store(Path(sys.argv[1])).make("stage", 1, build)
    print(entry.reused)
    """
)


def slow(root, log, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(root), str(log), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_build_leaves_no_entry_and_the_next_run_succeeds(store, tmp_path):
    log = tmp_path / "log"
    killed = slow(store.root, log, 60)
    wait_for(store.root / "partial" / entry_digest("stage", 1) / "scratch" / "progress")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert entries(store) == []

    def build(out, scratch):
        assert list(out.iterdir()) == []
        (out / "result").write_text((scratch / "progress").read_text())

    assert (store.make("stage", 1, build).path / "result").read_text() == "3"


def test_two_processes_that_want_the_same_share_one_build(store, tmp_path):
    log = tmp_path / "log"
    both = [slow(store.root, log, 1.5) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert said == ["False", "True"]
    assert log.read_text() == "built\n"


# ---------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_advice(small_disk):
    store = Store(small_disk / "cache")
    kept = store.make("stage", 1, writes("x"))

    def build(out, scratch):
        (out / "large").write_bytes(bytes(2_000_000))

    with pytest.raises(StoreError, match=r"the disk is full\n(.*\n)*  next:    .*COMPRESS_CACHE"):
        store.make("stage", 2, build)
    assert entries(store) == [kept.digest]
    assert store.make("stage", 1, writes("x")).reused


def test_a_read_only_disk_still_serves(small_disk):
    kept = Store(small_disk / "cache").make("stage", 1, writes("x"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    store = Store(small_disk / "cache")
    assert store.make("stage", 1, writes("x")).path == kept.path
    with pytest.raises(StoreError, match=r"the cache cannot be written\n.*\n  next:    set COMPRESS_CACHE"):
        store.make("stage", 2, writes("x"))
    with pytest.raises(StoreError, match="the cache cannot be written"):
        Store(small_disk / "another")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (RuntimeError("Error while serializing: No space left on device (os error 28)"), "the disk is full"),
        (
            BenchmarkError("it could not be timed", found="OSError: No space left on device", next="look"),
            "the disk is full",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "the cache cannot be written"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "the cache cannot be written"),
    ],
)
def test_errors_of_the_disk_are_told_as_such(store, error, message):
    def build(out, scratch):
        raise error

    with pytest.raises(StoreError, match=f"{message}\n  found: .*\n  next: "):
        store.make("stage", 1, build)


def test_an_error_of_ours_that_is_not_the_disks_passes(store):
    def build(out, scratch):
        raise BenchmarkError("it could not be timed", found="OSError: it is broken")

    with pytest.raises(BenchmarkError, match="it could not be timed"):
        store.make("stage", 1, build)


def test_other_errors_pass_unchanged(store):
    def build(out, scratch):
        raise OSError(errno.ENOENT, "x")

    with pytest.raises(FileNotFoundError):
        store.make("stage", 1, build)


def test_a_file_where_the_cache_should_be(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StoreError, match="the cache cannot be written"):
        Store(tmp_path / "cache")

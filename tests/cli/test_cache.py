import os
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from compress.cli.cache import Held, held, prune, seconds, size, to_remove
from compress.errors import ConfigError
from compress.stages.store import Store

entries = st.lists(
    st.builds(
        Held,
        st.uuids().map(str),
        st.just("export"),
        st.integers(0, 1000),
        st.floats(0, 1000, allow_nan=False),
    ),
    max_size=8,
    unique_by=lambda entry: entry.digest,
)


@given(entries, st.none() | st.floats(0, 1000), st.none() | st.integers(0, 5000))
def test_what_is_left_fits_and_nothing_old_stays(found, older_than, max_size):
    gone = to_remove(found, 1000.0, older_than, max_size)
    left = [entry for entry in found if entry not in gone]
    if max_size is not None:
        assert sum(entry.size_bytes for entry in left) <= max_size
    if older_than is not None:
        assert all(1000.0 - entry.used <= older_than for entry in left)
    if older_than is None and max_size is None:
        assert gone == []


def test_the_longest_unused_go_first():
    found = [Held(name, "export", 10, used) for name, used in (("new", 3.0), ("old", 1.0), ("mid", 2.0))]
    assert [entry.digest for entry in to_remove(found, 4.0, None, 15)] == ["old", "mid"]


@pytest.mark.parametrize(("text", "expected"), [("7d", 604800), ("1.5h", 5400), ("30s", 30), ("2w", 1209600)])
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("5GB", 5 * 10**9), ("1.5 MB", 1_500_000), ("10kb", 10_000)])
def test_sizes(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 days"])
def test_a_bad_duration_names_what_is_allowed(text):
    with pytest.raises(ConfigError, match="such as 7d"):
        seconds(text)


@pytest.mark.parametrize("text", ["", "5", "GB", "-1GB", "5 XB"])
def test_a_bad_size_names_what_is_allowed(text):
    with pytest.raises(ConfigError, match="such as 5GB"):
        size(text)


def fill(store: Store, name: str, length: int) -> str:
    return store.make(name, name, lambda out, _: (out / "data").write_bytes(b"x" * length) and None).digest


def test_prune_removes_the_longest_unused_and_the_rest_still_serves(tmp_path: Path):
    store = Store(tmp_path)
    first = fill(store, "first", 5000)
    time.sleep(0.02)
    second = fill(store, "second", 5000)
    time.sleep(0.02)
    assert store.find(first)  # used again: now the second is the longest unused
    sizes = {entry.digest: entry.size_bytes for entry in held(store)}
    assert [entry.digest for entry in held(store)] == [second, first]
    gone = prune(store, None, sizes[first])
    assert [entry.digest for entry in gone] == [second]
    assert store.find(first)
    assert store.find(second) is None


def test_prune_spares_what_is_being_made(tmp_path: Path):
    store = Store(tmp_path)
    digest = fill(store, "busy", 10)
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / "partial" / f"{digest}.lock"):
            taken.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(10)
    try:
        assert prune(store, None, 0) == []
    finally:
        done.set()
        holder.join()
    assert [entry.digest for entry in prune(store, None, 0)] == [digest]


def test_prune_drops_what_a_killed_build_left_long_ago(tmp_path: Path):
    store = Store(tmp_path)
    for name, age in (("old", 1000), ("new", 0)):
        progress = store.root / "partial" / name / "scratch" / "training.pt"
        progress.parent.mkdir(parents=True)
        progress.write_bytes(b"x")
        for path in (progress, progress.parent, progress.parent.parent):
            os.utime(path, (time.time() - age,) * 2)
    prune(store, None, 10)
    assert [(store.root / "partial" / name).exists() for name in ("old", "new")] == [True, True]
    prune(store, 500, None)
    assert [(store.root / "partial" / name).exists() for name in ("old", "new")] == [False, True]

"""Killed at any moment and started again, a sweep ends as if nothing had happened."""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

EVERY_MOMENT = textwrap.dedent(
    """
    import itertools, os, signal, sys
    from pathlib import Path
    from compress.stages.store import Store, entry_digest

    def build(out, scratch):
        assert not list(out.iterdir())
        (scratch / "progress").write_text("3")
        (out / "inner").mkdir()
        (out / "inner" / "result.txt").write_text("whole")
        (out / "other.bin").write_bytes(bytes(1000))

    def killed_at(root, number):
        '''A child makes the entry and kills itself before its `number`-th call that touches the disk.'''
        child = os.fork()
        if child == 0:
            left = number

            def count(event, _):
                nonlocal left
                if event.startswith(("open", "os.", "shutil.")):
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            store = Store(root)
            sys.addaudithook(count)
            store.make("stage", 1, build)
            os._exit(0)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])

    damaged = sys.argv[2] == "damaged"
    digest = entry_digest("stage", 1)
    for number in itertools.count(1):
        store = Store(Path(sys.argv[1]) / str(number))
        if damaged:
            (store.make("stage", 1, build).path / "inner" / "result.txt").write_text("damage")
        killed = killed_at(store.root, number)
        found = store.find(digest)
        seal = found and (found.path / "entry.json").stat().st_ino
        entry = store.make("stage", 1, build)
        assert entry.reused == bool(found), number
        if found:
            assert (entry.path / "entry.json").stat().st_ino == seal, number
        files = {str(p.relative_to(entry.path)) for p in entry.path.rglob("*") if p.is_file()}
        assert files == {"inner/result.txt", "other.bin", "entry.json"}, number
        assert (entry.path / "inner" / "result.txt").read_text() == "whole", number
        assert [p.name for p in (store.root / "entries").iterdir()] == [digest], number
        assert not (store.root / "partial" / digest).exists(), number
        if not killed:
            print(number)
            break
    """
)


@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_a_kill_at_any_moment_of_a_build_leaves_a_whole_entry_or_none(tmp_path, before):
    """Every call that touches the disk, one after another; also while a damaged entry is made again."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY_MOMENT, str(tmp_path), before],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20  # so many moments


def crash_study():
    spec = importlib.util.spec_from_file_location("study", ROOT / "experiments" / "sweep_crash" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_like_one_that_is_not(tmp_path):
    study = crash_study()
    found = study.study(2, 1, tmp_path, tmp_path)
    assert len(found["kills"]) == 2
    assert found["compared_numbers"] > 1000
    for sweep in found["sweeps"]:
        assert sweep["unequal"] == []
        assert (sweep["damaged_entries"], sweep["redone_entries"]) == (0, 0)
        assert sweep["entries"] == found["undisturbed"]["entries"]
        assert sweep["left_over"]["half_artifacts"] == 0
        assert sweep["left_over"]["store_partial_folders"] == 0


def test_the_study_would_see_a_difference():
    """What is left out of the comparison is what is measured, and nothing else."""
    study = crash_study()
    report = {
        "verdict": {"ships": True, "reasons": ["slower at 1x16: 0.9x", "not faster at 2x16", "1 MB"]},
        "variants": [{"drop": {"value": 0.1}, "latency_ms": {"1x16": 2}, "seconds": 3, "size_bytes": 5}],
        "stages": [{"name": "load", "digest": "a", "reused": True, "seconds": 1.0}],
    }
    assert study.unmeasured(report) == {
        "verdict": {"ships": True, "reasons": ["1 MB"]},
        "variants": [{"drop": {"value": 0.1}, "size_bytes": 5}],
        "stages": [{"name": "load", "digest": "a"}],
    }


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_sweeps_at_once_on_one_cache_share_their_stages(tmp_path, tiny):
    """Both finish; every stage is made once, by one or the other, and taken over by the rest."""
    offline = {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1"}
    own = {"PYTHONPATH": str(ROOT), "COMPRESS_CACHE": str(tmp_path / "cache")}
    words = [*tiny, "quantize=int8_dynamic", "quantize.per_channel=true,false"]
    sweeps = [
        subprocess.Popen(
            [sys.executable, "-m", "compress", "run", "-m", *words, f"hydra.sweep.dir={name}"],
            cwd=tmp_path,
            env={**os.environ, **offline, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("one", "other")
    ]
    said = [sweep.communicate(timeout=600)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], said
    lines = [line for log in tmp_path.glob("o*/[01]/run.log") for line in log.read_text().splitlines()]
    stages = [match for line in lines if (match := re.search(r" - .* ([0-9a-f]{32}): (made|reused)", line))]
    taken = Counter(stage[1] for stage in stages)
    made = Counter(stage[1] for stage in stages if stage[2] == "made")
    assert set(made) == set(taken) == {path.name for path in (tmp_path / "cache/store/entries").iterdir()}
    assert set(made.values()) == {1}
    assert sum(taken.values()) >= 2 * len(made)
    reports = [
        sorted(path.name for path in tmp_path.glob(f"{name}/*/report.json")) for name in ("one", "other")
    ]
    assert [len(each) for each in reports] == [2, 2]

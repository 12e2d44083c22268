"""Every look at the test sets is counted once, by whoever it was taken."""

import json
import threading

import pytest

from compress.errors import StoreError
from compress.judge import test_set_uses
from compress.schema.report import UseCount


def note(cache, model, **sets):
    test_set_uses.note(cache, experiment="e", model=model, command="compress run", sets=sets)


def test_looks_and_models_are_counted_by_fingerprint(tmp_path):
    assert test_set_uses.count(tmp_path, "f1") == UseCount(looks=0, models=0)
    note(tmp_path, "m1", test="f1", other="f2")
    note(tmp_path, "m2", test="f1")
    note(tmp_path, "m2", test="f1", other="f3")
    assert test_set_uses.count(tmp_path, "f1") == UseCount(looks=3, models=2)
    assert test_set_uses.count(tmp_path, "f2") == UseCount(looks=1, models=1)
    assert test_set_uses.count(tmp_path, "m1") == UseCount(looks=0, models=0)
    first = json.loads((tmp_path / "test_use.jsonl").read_text().splitlines()[0])
    assert set(first) == {"time", "experiment", "model", "command", "sets"}


def test_a_torn_line_does_not_hide_the_others(tmp_path):
    note(tmp_path, "m1", test="f1")
    with (tmp_path / "test_use.jsonl").open("ab") as file:
        file.write(b'{"model": "m2", "se\xff\n[]\n{"sets": {"test": "f1"}}\n')
    note(tmp_path, "m3", test="f1")
    assert test_set_uses.count(tmp_path, "f1") == UseCount(looks=2, models=2)


def test_processes_do_not_overwrite_one_another(tmp_path):
    workers = [
        threading.Thread(target=lambda k=k: [note(tmp_path, f"m{k}", test="f1") for _ in range(20)])
        for k in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert test_set_uses.count(tmp_path, "f1") == UseCount(looks=80, models=4)


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        note(tmp_path / "file", "m1", test="f1")


def test_a_run_notes_the_models_it_made_and_says_so(finished):
    """Pruned and int8, each on all test sets; the dense model is nobody's choice."""
    lines = [json.loads(line) for line in (finished.cache / "test_use.jsonl").read_text().splitlines()]
    report = json.loads((finished.folder / "report.json").read_text())
    made = {variant["sha256"]: variant["name"] for variant in report["variants"]}
    named = [made[line["model"]] for line in lines if line["model"] in made]
    assert named[:2] == ["pruned", "int8"]
    assert "dense" not in named
    for line in lines[:2]:
        assert line["sets"] == {
            name: report["splits"][name]["fingerprint"] for name in ("test", "pairs/test")
        }
        assert line["experiment"] == "tiny"
        assert line["command"] == report["command"]
    assert report["splits"]["test"]["looks"] == {"looks": 2, "models": 2}
    assert report["splits"]["select"]["looks"] is None
    said = "looked at 2 times on this machine, for 2 models beside the dense one"
    assert said in (finished.folder / "report.md").read_text()
    assert said in (finished.folder / "report.html").read_text()

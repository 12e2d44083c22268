import json
from pathlib import Path

import pytest

from compress.cli.points import failed, point
from compress.errors import GateError


def read(folder: Path) -> dict[str, object]:
    return json.loads((folder / "point.json").read_text())


def test_a_point_records_its_overrides_and_its_end(tmp_path: Path):
    with point(tmp_path, ["prune=none"]):
        assert read(tmp_path)["status"] == "running"
    assert read(tmp_path) == {"overrides": ["prune=none"], "status": "done", "error": None}


def test_a_users_error_is_recorded_and_the_sweep_goes_on(tmp_path: Path):
    with point(tmp_path, []):
        raise GateError("too far off", found=3)
    assert read(tmp_path)["status"] == "failed"
    assert "too far off" in str(read(tmp_path)["error"])


def test_a_bug_is_recorded_and_not_swallowed(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), point(tmp_path, []):
        raise ZeroDivisionError("oops")
    assert read(tmp_path)["error"] == "ZeroDivisionError: oops"


def test_failed_names_every_point_that_is_not_done(tmp_path: Path):
    for name, status in (("0", "done"), ("2", "running"), ("10", "failed")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "point.json").write_text(json.dumps({"status": status}))
    assert failed(tmp_path) == ["2", "10"]


def test_a_record_that_is_missing_or_damaged_is_a_point_that_did_not_finish(tmp_path: Path):
    for name in ("0", "1", "2", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "0" / "point.json").write_text('{"status": "done"}')
    (tmp_path / "1" / "point.json").write_text('{"status": ')
    (tmp_path / "notes" / "point.json").write_text("[]")
    assert failed(tmp_path) == ["1", "2"]


def test_a_finished_point_that_is_walked_again_stays_finished_if_that_is_killed(tmp_path: Path):
    with point(tmp_path, ["prune=none"]):
        pass
    done = read(tmp_path)
    with point(tmp_path, ["prune=none"]):
        assert read(tmp_path) == done
    with pytest.raises(KeyboardInterrupt), point(tmp_path, ["prune=none"]):
        raise KeyboardInterrupt
    assert read(tmp_path) == done
    with point(tmp_path, ["prune=none"]):
        raise GateError("too far off")
    assert read(tmp_path)["status"] == "failed"


def test_another_point_in_the_folder_of_a_finished_one_runs(tmp_path: Path):
    with point(tmp_path, ["prune=none"]):
        pass
    with point(tmp_path, ["prune=transformer"]):
        assert read(tmp_path)["status"] == "running"

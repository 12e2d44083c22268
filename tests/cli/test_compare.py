"""Finished runs beside each other: what is told of them is what their own reports say."""

import json
import shutil
from pathlib import Path

import pytest

from compress.cli import main as cli
from compress.cli.compare import different

REPORT = Path(__file__).parents[1] / "fixtures" / "report_of_version_1.json"


@pytest.fixture
def other(finished, tmp_path):
    """The same run, said to have kept more, in a folder of its own."""
    folder = shutil.copytree(finished.folder, tmp_path / "other")
    report = json.loads((folder / "report.json").read_text())
    report["config"]["recover"]["steps"] = 9
    report["variants"][-1]["size_bytes"] = 1_234_567
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_compare(finished, other, tmp_path, capsys):
    out = tmp_path / "out"
    given = [str(finished.folder / "artifact"), str(other)]
    assert cli.main(["compare", *given, "--out", str(out)]) == 0
    points = json.loads((out / "sweep.json").read_text())["points"]
    steps = json.loads((finished.folder / "report.json").read_text())["config"]["recover"]["steps"]
    assert [each["overrides"] for each in points] == [
        [f"run={given[0]}", f"recover.steps={steps}"],
        [f"run={given[1]}", "recover.steps=9"],
    ]
    assert points[1]["kept"]["size_bytes"] == 1_234_567
    assert {"report.html", "report.md", "pareto_size.svg"} <= {path.name for path in out.iterdir()}
    assert (out / "1" / "report.html").is_file()
    capsys.readouterr()
    assert cli.main(["compare", *given, "--out", str(out)]) == 1
    assert "the folder exists" in capsys.readouterr().err


def test_nothing_to_compare(finished, tmp_path, capsys):
    artifact = str(finished.folder / "artifact")
    assert cli.main(["compare", artifact, str(finished.folder)]) == 1
    assert "nothing to compare with" in capsys.readouterr().err
    assert cli.main(["compare", artifact, str(tmp_path / "missing")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_what_all_have_is_not_told():
    settings = [{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": None}]
    assert list(different(settings, 0)) == ["b=2"]
    assert list(different(settings, 1)) == ["b=3"]


def test_settings_of_different_options_are_told_by_the_options():
    settings = [
        {"quantize": "int8", "quantize.bits": 8, "quantize.block": 1},
        {"quantize": "int8", "quantize.bits": 8, "quantize.block": 2},
        {"quantize": "int4", "quantize.bits": 4, "quantize.block": 3},
    ]
    assert list(different(settings, 0)) == ["quantize=int8", "quantize.block=1"]
    assert list(different(settings, 2)) == ["quantize=int4"]


def test_a_long_value_is_one_short_line():
    (told,) = different([{"a": "x\n" * 500 + "end"}, {"a": 1}], 0)
    assert len(told) == len("a=") + 60
    assert (told[:8], told[-5:]) == ("a=x x x ", "x end")


def test_out_that_is_of_no_use(tmp_path, capsys):
    runs = [tmp_path / name for name in ("a[/b]", "c")]
    for folder in runs:
        folder.mkdir(parents=True)
        shutil.copy(REPORT, folder / "report.json")
    (tmp_path / "file").touch()
    for out, said in ((runs[0] / "x", "lies in a run"), (tmp_path / "file" / "x", "cannot be made")):
        assert cli.main(["compare", *map(str, runs), "--out", str(out)]) == 1
        assert said in capsys.readouterr().err
    assert [file.name for file in runs[0].iterdir()] == ["report.json"]
    out = tmp_path / "out[/b]"
    assert cli.main(["compare", *map(str, runs), "--out", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out


def test_runs_of_different_tasks(finished, other, capsys):
    report = json.loads((other / "report.json").read_text())
    report["options"]["evaluate"] = "language_modeling"
    (other / "report.json").write_text(json.dumps(report))
    assert cli.main(["compare", str(finished.folder), str(other)]) == 1
    assert "different tasks" in capsys.readouterr().err

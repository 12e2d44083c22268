"""The command line in a process of its own: exit codes, messages, and what it leaves behind."""

import json
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from compress.cli import job
from compress.cli import list as list_command
from compress.cli import main as cli
from compress.config.compose import options
from compress.schema.report import Report


def clean(text):
    return " ".join(re.sub(r"[│┃━─┏┳┓┡╇┩└┴┘]", " ", text).split())


def test_list_names_every_option(capsys):
    assert cli.main(["list"]) == 0
    printed = clean(capsys.readouterr().out)
    for group, found in options().items():
        for option in found:
            assert f"{group} {option}" in printed


def test_list_of_a_group(capsys):
    assert cli.main(["list", "prune"]) == 0
    printed = clean(capsys.readouterr().out)
    assert "prune transformer" in printed
    assert "quantize" not in printed


def test_list_of_nonsense(capsys):
    assert cli.main(["list", "prnue"]) == 1
    assert "did you mean 'prune'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["list", "prune", "recover"], ["verify"]])
def test_what_argparse_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: compress" in capsys.readouterr().err


def test_an_unknown_flag_of_run(capsys):
    assert cli.main(["run", "--dryrun", "model.source=path:x"]) == 1
    assert "did you mean '--dry-run'" in capsys.readouterr().err


def test_ctrl_c_anywhere(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_command, "options", interrupt)
    assert cli.main(["list"]) == 130
    assert capsys.readouterr().err.count("\n") == 2


def test_debug_shows_the_traceback(capsys):
    assert cli.main(["list", "prnue"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main(["list", "prnue", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_verify(finished, tmp_path, capsys):
    artifact = shutil.copytree(finished.folder / "artifact", tmp_path / "artifact")
    assert cli.main(["verify", str(artifact)]) == 0
    assert "intact: tiny" in capsys.readouterr().out
    with (artifact / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert cli.main(["verify", str(artifact)]) == 1
    assert "model.onnx is not the file that was shipped" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path / "missing")]) == 1


def test_check(finished, tmp_path, capsys):
    """As a reader of JUnit's XML sees it."""
    artifact, xml = str(finished.folder / "artifact"), tmp_path / "new" / "check.xml"
    assert cli.main(["check", artifact, "--max-drop", "10", "--max-mb", "1", "--junit", str(xml)]) == 0
    assert capsys.readouterr().out.count("passed") == 3
    [suite] = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "0")
    missing = str(tmp_path / "missing")
    assert cli.main(["check", artifact, missing, "--min-speedup", "1e9", "--junit", str(xml)]) == 1
    root = ElementTree.parse(xml).getroot()
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    workloads = Report.load(finished.folder / "report.json").variants[-1].speedup
    assert failed == [*(f"speed-up at {each}" for each in workloads), "intact"]
    assert cli.main(["check", artifact]) == 1
    assert "nothing to check" in capsys.readouterr().err


def test_report_redraws_the_same_bytes(finished, tmp_path, capsys):
    copy = shutil.copytree(finished.folder, tmp_path / "run")
    for name in ("report.md", "report.html"):
        (copy / name).unlink()
    assert cli.main(["report", str(copy)]) == 0
    for name in ("report.json", "report.md", "report.html"):
        assert (copy / name).read_bytes() == (finished.folder / name).read_bytes()
    printed = capsys.readouterr().out
    assert printed.count(f"{copy}/") == 2  # the report and the artifact
    end = [line.split(":")[0] for line in finished.done.stdout.splitlines()[-2:]]
    assert [line.split(":")[0] for line in printed.splitlines()[-2:]] == end == ["report", "artifact"]
    for reason in Report.load(copy / "report.json").verdict.reasons:
        assert clean(reason) in clean(printed)


def test_report_says_which_folder_it_wants(finished, tmp_path, capsys):
    experiment = finished.folder.parent
    for given, found, advice in (
        (tmp_path, "no report.json in", ""),
        (tmp_path / "missing", "no folder", ""),
        (experiment, "no report.json in", f"next:    compress report {experiment}/latest\n"),
        (finished.folder / "artifact", "no report.json", f"next:    compress report {finished.folder}\n"),
    ):
        assert cli.main(["report", str(given)]) == 1
        said = capsys.readouterr().err
        assert f"found:   {found}" in said
        assert "allowed: the folder of a finished run or of a sweep" in said
        assert advice in said
        assert ("next:" in said) == bool(advice)


def test_run_prints_the_verdict_and_names_what_it_wrote(finished):
    assert "int8 ships" in finished.done.stdout
    assert f"artifact: {finished.folder}/artifact" in finished.done.stdout
    assert finished.done.stderr == ""
    assert [p.name for p in finished.home.iterdir()] == ["outputs"]


def test_a_dry_run_from_another_folder_writes_nothing(finished, tmp_path):
    before = sorted(finished.cache.rglob("*"))
    done = finished.run("run", "--dry-run", *finished.overrides, "recover.steps=5", home=tmp_path)
    assert done.returncode == 0, done.stderr
    said = {}
    for line in done.stdout.splitlines():
        said.setdefault(line.split()[0], line)
    assert "would be reused" in said["prune"]
    assert re.search(r"would run, about \d+ s", said["recover"])
    assert list(tmp_path.iterdir()) == []
    assert sorted(finished.cache.rglob("*")) == before


def test_latest_points_to_the_newest(tmp_path):
    for run in ("1", "2"):
        (tmp_path / run).mkdir()
        job.point_latest(tmp_path / run)
        assert (tmp_path / "latest").resolve() == tmp_path / run
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "latest"]


def test_latest_does_not_replace_what_is_no_link(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "latest").write_text("mine")
    job.point_latest(tmp_path / "1")
    assert (tmp_path / "latest").read_text() == "mine"


def test_two_points_with_the_same_settings_are_an_error_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "-m", "experiment=minilm", "prune.keep.ffn=0.5,0.50"]) == 1
    assert "same settings" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_job_that_fails(finished, tmp_path):
    overrides = [word for word in finished.overrides if not word.startswith("prune.keep")]
    done = finished.run(
        "run", "-m", *overrides, "name=swept", "prune.keep.ffn=0.5", "benchmark.workloads=[1x16],[1x600]"
    )
    jobs = sorted((finished.home / "outputs" / "swept").glob("sweep-*/[0-9]"))
    assert len(jobs) == 2
    assert [(job / "report.json").exists() for job in jobs] == [True, False], done.stdout + done.stderr
    assert done.returncode == 1
    states = [json.loads((job / "point.json").read_text()) for job in jobs]
    assert [state["status"] for state in states] == ["done", "failed"]
    assert "600" in states[1]["error"]
    sweep = jobs[0].parent
    assert "1 failed" in done.stdout
    reports = {path.name: path.read_bytes() for path in sweep.iterdir() if path.is_file()}
    assert {"report.html", "report.md", "sweep.json", "sweep.csv"} <= set(reports)
    again = finished.run("report", str(sweep))
    assert again.returncode == 1
    assert {path.name: path.read_bytes() for path in sweep.iterdir() if path.is_file()} == reports


def test_help_names_every_command_and_imports_none():
    script = (
        "import sys\nfrom compress.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'hydra', 'omegaconf', 'rich', 'pydantic', 'numpy', 'compress.cli.run'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    help_text, _, heavy = done.stdout.rstrip().rpartition("\n")
    assert heavy == "[]"
    listed = set(re.findall(r"^    ([a-z-]+)", help_text, re.MULTILINE))
    assert listed == set(cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_command_declares_its_arguments(command, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main([command, "--help"])
    assert raised.value.code == 0
    assert "--debug" in capsys.readouterr().out

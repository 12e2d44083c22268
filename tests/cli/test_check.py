"""The gate for CI: each artifact ends in a line and in readable XML, whatever its manifest says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from compress import artifact
from compress.cli import main as cli

KEPT = Path(__file__).parents[1] / "fixtures" / "artifact_of_version_1"


@pytest.fixture
def sealed(tmp_path):
    """Make an intact artifact whose manifest says other things."""

    def make(**says):
        folder = shutil.copytree(KEPT, tmp_path / "artifact")
        manifest = replace(artifact.check_files(folder), **says)
        (folder / "manifest.json").write_bytes(artifact._ADAPTER.dump_json(manifest))
        (folder / "SHA256SUMS").write_text(artifact._sums(folder, manifest))
        return folder

    return make


def test_what_a_manifest_says_steers_neither_terminal_nor_xml(sealed, tmp_path, capsys):
    speedup = {"1x1 [/red]\x1b[2J": {"value": 3, "ci95": [2, 4]}}
    found = {"metric": "\x01\uffff", "dense": 1, "drop": None, "speedup": speedup, "not_timed": ""}
    folder = sealed(name="[/green]\x1b[31m\0", headline={"size_bytes": 1, "measured": found})
    xml = tmp_path / "check.xml"
    assert cli.main(["check", str(folder), "--min-speedup", "2", "--junit", str(xml)]) == 0
    out = capsys.readouterr().out
    assert "passed intact: [/green]?[31m?\n" in out
    assert "passed speed-up at 1x1 [/red]?[2J: 3.00x" in out
    names = [case.get("name") for case in ElementTree.parse(xml).iter("testcase")]
    assert names == ["intact", "speed-up at 1x1 [/red]?[2J"]
    assert cli.main(["verify", str(folder)]) == 0
    assert "intact: [/green]?[31m?, " in capsys.readouterr().out


def test_an_artifact_of_an_earlier_release_is_intact_but_not_measured(tmp_path, capsys):
    xml = tmp_path / "check.xml"
    words = ["check", str(KEPT), "--max-mb", "1", "--max-drop", "1", "--junit", str(xml)]
    assert cli.main(words) == 1
    assert "compress reproduce" in capsys.readouterr().out
    cases = {case.get("name"): case.find("failure") for case in ElementTree.parse(xml).iter("testcase")}
    assert {name: failure is None for name, failure in cases.items()} == {
        "intact": True,
        "size": True,
        "measured": False,
    }


@pytest.mark.parametrize("limit", ["nan", "inf", "-1"])
def test_a_limit_that_is_none(limit, capsys):
    assert cli.main(["check", str(KEPT), "--max-drop", limit]) == 1
    assert "--max-drop is no limit" in capsys.readouterr().err


def test_where_results_cannot_go(tmp_path, capsys):
    before = json.loads((KEPT / "manifest.json").read_text())["files"]
    for file, said in ((KEPT / "check.xml", "would lie in an artifact"), (tmp_path, "cannot be written")):
        assert cli.main(["check", str(KEPT), "--max-mb", "1", "--junit", str(file)]) == 1
        assert said in capsys.readouterr().err
    assert set(artifact.check_files(KEPT).files) == set(before)

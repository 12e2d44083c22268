"""report.json: what is saved is what is loaded, and nothing else is taken for a report."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import ArtifactError
from compress.report import redraw
from compress.schema.report import SCHEMA_VERSION, Report

finite = st.floats(allow_nan=False, allow_infinity=False)


def report(value=1.0, name="dense"):
    from compress.schema.estimates import Estimate, Score
    from compress.schema.gate import Gate
    from compress.schema.report import Split, Stage, Variant, Verdict

    variant = Variant(
        name=name,
        stage="export",
        path="x/model.onnx",
        sha256="0" * 64,
        size_bytes=1,
        parameters=2,
        macs=None,
        quality={"m": Score(value=value, ci95=(value, value), n=3, higher_is_better=True)},
        drop_from_dense={"m": Estimate(value=value, ci95=(value, value))},
        widths={"ffn": (1, 2)},
    )
    return Report(
        experiment="e",
        config={"a": [1, None]},
        environment={"cpu": "c"},
        splits={"test": Split(examples=1, fingerprint="f")},
        primary_metric="m",
        variants=(variant,),
        verdict=Verdict(ships=True, best=name, reasons=("r",)),
        stages=(Stage(name="load", digest="d", reused=False, seconds=0.5),),
        gates=(Gate(name="g", passed=True, numbers={"x": value}),),
    )


@given(value=finite, name=st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, value, name):
    path = tmp_path_factory.mktemp("report") / "report.json"
    report(value, name).save(path)
    assert Report.load(path) == report(value, name)


def test_another_schema_version_is_refused(tmp_path):
    path = tmp_path / "report.json"
    report().save(path)
    content = json.loads(path.read_text())
    assert content["schema_version"] == SCHEMA_VERSION
    path.write_text(json.dumps({**content, "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(ArtifactError, match="another schema version"):
        Report.load(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"experiment": 3}', "\x00"])
def test_what_is_no_report(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match="cannot read the report"):
        Report.load(path)
    with pytest.raises(ArtifactError, match="cannot read the report"):
        Report.load(tmp_path / "missing.json")


def test_a_report_of_version_1_is_read_and_redrawn(tmp_path: Path) -> None:
    """Its notes had no types."""
    stored = Path(__file__).parents[1] / "fixtures" / "report_of_version_1.json"
    old = json.loads(stored.read_text())
    assert old["schema_version"] == 1
    report = Report.load(stored)
    assert report.schema_version == SCHEMA_VERSION
    notes = old["notes"]
    assert (list(report.lineage), list(report.noise)) == (notes["lineage"], notes["noise"])
    assert report.command == notes["command"]
    assert list(report.recovery.train_loss) == notes["recover"]["train_loss"]
    assert {kind: list(widths) for kind, widths in report.pruning.after.items()} == notes["prune"]["after"]
    shutil.copy(stored, tmp_path / "report.json")
    redraw(tmp_path)
    for name in ("report.md", "report.html"):
        assert notes["command"] in (tmp_path / name).read_text()
    report.save(tmp_path / "again.json")
    assert Report.load(tmp_path / "again.json") == report


@pytest.mark.parametrize("notes", [{}, {"recover": {}, "prune": {}}, {"recover": None}])
def test_a_report_of_version_1_without_notes(tmp_path: Path, notes: dict[str, None]) -> None:
    stored = Path(__file__).parents[1] / "fixtures" / "report_of_version_1.json"
    (tmp_path / "report.json").write_text(json.dumps(json.loads(stored.read_text()) | {"notes": notes}))
    report = Report.load(tmp_path / "report.json")
    assert (report.command, report.noise, report.recovery, report.pruning) == ("", (), None, None)

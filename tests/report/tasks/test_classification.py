"""Answers of a classifier in the reports: the worst class named, confusions, pictures that open."""

import base64
import dataclasses
import io
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from compress.report.card import model_card
from compress.report.html import report_html
from compress.report.markdown import report_markdown
from compress.report.sections import sections
from compress.report.tasks import classification
from compress.report.tasks.classification import CLASSES_SHOWN, summary
from compress.schema.details import ClassDrop
from compress.schema.estimates import Estimate
from compress.schema.report import Report, Verdict

pytestmark = pytest.mark.usefixtures("without_drawings")  # test_reports.py draws them


def section(report: Report, anchor: str):
    return next((each for each in sections(report) if each.anchor == anchor), None)


def with_kept(report: Report, **changes) -> Report:
    """The kept variant's classification, changed."""
    *others, last = report.variants
    found = dataclasses.replace(last.classification, **changes)
    return dataclasses.replace(report, variants=(*others, dataclasses.replace(last, classification=found)))


def test_the_worst_class_is_named_with_its_drop(vision):
    found = section(vision, "answers")
    assert found.rows[0] == ("dense", "0.0213", "-", "-", "-", "-", "-")
    assert found.rows[-1] == ("int8", "0.0417", "84", "51", "0.006", "shirt", "0.0240 [0.0130, 0.0360]")
    text = " ".join(found.lines)
    assert "84 examples went from right to wrong, 51 from wrong to right" in text
    assert "p = 0.006" in text
    assert "shirt: its accuracy dropped by 0.0240 [0.0130, 0.0360] to 0.789" in text
    assert "0.0417, where dense has 0.0213" in text


def test_where_no_class_lost(vision):
    better = tuple(
        dataclasses.replace(each, drop=Estimate(value=-0.01, ci95=(-0.02, 0.0)))
        for each in vision.variants[-1].classification.per_class
    )
    found = with_kept(vision, per_class=better, mcnemar_p=1e-9)
    assert "No class lost accuracy." in summary(found)
    assert "p < 0.001" in summary(found)[0]


def test_a_row_for_each_class_the_kept_variants_worst_first(vision):
    found = section(vision, "classes")
    assert found.header == (
        *("class", "examples", "dense", "pruned", "pruned-recovered", "int8"), "drop of int8"
    )  # fmt: skip
    assert [row[0] for row in found.rows] == ["shirt", "coat", "dress"]
    assert found.rows[0] == (
        *("shirt", "1000", "0.930", "0.789", "0.789", "0.789"), "0.0240 [0.0130, 0.0360]"
    )  # fmt: skip


def test_of_a_thousand_classes_the_worst_are_shown(vision):
    many = tuple(
        ClassDrop(
            name=f"class {i}", examples=50, accuracy=0.8, drop=Estimate(value=-i / 1e4, ci95=(-1.0, 1.0))
        )
        for i in range(1000)
    )
    found = section(with_kept(vision, per_class=many), "classes")
    assert len(found.rows) == CLASSES_SHOWN
    assert found.rows[0][:3] == ("class 0", "50", "-")  # which no other variant tells of
    assert found.lines == (f"{1000 - CLASSES_SHOWN} more classes lost less.",)


def test_confusions_with_their_change(vision):
    assert section(vision, "confusions").rows == [
        ("shirt", "coat", "61", "79", "+18"),
        ("dress", "shirt", "30", "22", "-8"),
    ]


def test_the_pictures_are_in_the_page_and_open(vision):
    page = report_html(vision)
    root = ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    sources = [e.attrib["src"] for e in root.iter() if e.tag == "img"]
    assert len(sources) == 3
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.getpixel((0, 0)) == 128
    text = " ".join("".join(root.itertext()).split())
    assert "dense: shirt (61 %)" in text
    assert "int8: coat (53 %)" in text
    assert not {"script", "link", "iframe"} & {e.tag for e in root.iter()}


def test_markdown_lists_the_images_without_pixels(vision):
    text = report_markdown(vision)
    assert "| 200 | shirt | shirt (61 %) | coat (53 %) |" in text
    assert "base64" not in text
    assert "| shirt | coat | 61 | 79 | +18 |" in text


def test_the_card_says_it_too(vision, report):
    text = model_card(vision, {})
    assert "- The class that lost the most is shirt: its accuracy dropped by 0.0240 [0.0130, 0.0360]" in text
    assert "calibration error is 0.0417, where dense has 0.0213" in text
    assert "calibration error" not in model_card(report, {})


def test_only_the_dense_model(vision):
    alone = dataclasses.replace(
        vision, variants=vision.variants[:1], verdict=Verdict(ships=True, best="dense", reasons=())
    )
    assert summary(alone) == ["The expected calibration error is 0.0213."]
    assert section(alone, "classes").header == ("class", "examples", "dense")
    assert section(alone, "confusions") is None
    assert section(alone, "changed") is None
    report_html(alone)


def test_hostile_names_and_pictures_stay_text(vision):
    evil = "\"/><script>alert('x')</script>"
    changed = tuple(
        dataclasses.replace(each, label=evil, dense=evil, answer=evil, png=evil)
        for each in vision.variants[-1].classification.changed
    )
    found = with_kept(vision, changed=changed)
    assert "<script" not in report_html(found)
    assert "<script" not in report_markdown(found)


def test_nothing_of_it_for_other_models(report):
    assert [each for each in classification.sections(report) if each.lines or each.rows] == []


def test_a_report_that_counts_images_loads_as_one_of_examples(vision, tmp_path):
    vision.save(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    (tmp_path / "old.json").write_text(text.replace('"examples": 1000', '"images": 1000'))
    assert (tmp_path / "old.json").read_text() != text
    assert Report.load(tmp_path / "old.json") == vision


def test_without_pictures_the_examples_are_listed(vision):
    changed = vision.variants[-1].classification.changed
    bare = with_kept(vision, changed=tuple(dataclasses.replace(answer, png="") for answer in changed))
    assert "<img" not in report_html(bare)
    assert "shirt (61 %)" in report_html(bare)


@pytest.mark.parametrize("absent", ["classification", "layer_names"])
def test_a_report_of_an_earlier_release_loads(vision, absent, tmp_path):
    """Both are optional: version 1 of the schema had neither."""
    import json

    vision.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == vision
    content = json.loads((tmp_path / "report.json").read_text())
    del content["pruning_sensitivity"]
    for variant in content["variants"]:
        del variant[absent]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = Report.load(tmp_path / "old.json")
    assert not getattr(old.variants[-1], absent)
    report_html(old)

"""report.md, report.html and the model card, as files a reader opens."""

import dataclasses
import io
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from rich.console import Console

import compress.schema.report
from compress.errors import ArtifactError
from compress.report import figures, layer_figures, redraw, write_reports
from compress.report.card import model_card
from compress.report.figures import quality_axis
from compress.report.html import report_html
from compress.report.markdown import report_markdown
from compress.report.table import console_summary
from compress.schema.estimates import Latency
from compress.schema.gate import Gate
from compress.schema.report import Report, Stage, Verdict

FACTS = {
    "base_model": "sentence-transformers/all-MiniLM-L6-v2",
    "license": "apache-2.0",
    "source": "package:weights==1.0/model",
    "inputs": {"input_ids": "int64 [batch, tokens]", "attention_mask": "int64 [batch, tokens]"},
    "outputs": {"sentence_embedding": "float32 [batch, 384]"},
    "max_length": 256,
    "pipeline_tag": "sentence-similarity",
    "example_code": "import onnxruntime\nsession = onnxruntime.InferenceSession('model.onnx')",
}
EVIL = "<script>alert('x')</script>&\"|$x^2$"


@pytest.fixture(scope="session")
def hostile(report: Report) -> Report:
    """The same report with markup in every name."""
    variants = tuple(dataclasses.replace(v, name=f"{v.name}{EVIL}", stage=EVIL) for v in report.variants)
    variants = tuple(
        dataclasses.replace(v, widths={EVIL: (1536 // (i + 1),)}, layer_names={EVIL: (EVIL,)})
        for i, v in enumerate(variants)
    )
    return dataclasses.replace(
        report,
        experiment=EVIL,
        variants=variants,
        verdict=Verdict(ships=True, best=variants[-1].name, reasons=(EVIL,)),
        stages=(Stage(name=EVIL, digest=EVIL, reused=False, seconds=1.0),),
        gates=(Gate(name=EVIL, passed=False, numbers={EVIL: 1.0}),),
        environment={EVIL: EVIL, "packages": {EVIL: EVIL}},
        config={EVIL: EVIL, "prune": {EVIL: EVIL}},
        noise=(EVIL,),
        command=EVIL,
    )


@pytest.fixture(scope="session")
def pages(report: Report, bare: Report, hostile: Report, vision: Report) -> dict[str, str]:
    """Drawing takes a second or two, so each page is drawn once for all tests."""
    reports = {"report": report, "bare": bare, "hostile": hostile, "vision": vision}
    return {name: report_html(each) for name, each in reports.items()}


def parsed(html: str) -> ElementTree.Element:
    """The page is written so that an XML parser takes it too: every tag is closed."""
    return ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


@pytest.mark.parametrize("name", ["report", "bare", "hostile", "vision"])
def test_html_is_well_formed_and_its_ids_are_unique(name: str, pages: dict[str, str]) -> None:
    root = parsed(pages[name])
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    targets = [value for e in root.iter() for key, value in e.attrib.items() if key.endswith("href")]
    targets += [f"#{found}" for e in root.iter() for v in e.attrib.values()
                for found in re.findall(r"url\(#(.*?)\)", v)]  # fmt: skip
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_html_needs_nothing_from_outside(pages: dict[str, str]) -> None:
    html = pages["report"]
    root = parsed(html)
    assert not {"script", "link", "img", "iframe"} & {element.tag.split("}")[-1] for element in root.iter()}
    for element in root.iter():
        for key, value in element.attrib.items():
            assert key.split("}")[-1] not in {"src", "href"} or value.startswith("#")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_words_of_html_tables_are_not_broken(pages: dict[str, str]) -> None:
    cells = [cell for cell in parsed(pages["report"]).iter("td") if cell.text == "passed"]
    assert cells
    assert {cell.get("class") for cell in cells} == {"short"}
    assert ".grid .short { white-space: nowrap; }" in pages["report"]


def test_html_shows_every_variant_every_number_and_every_figure(
    report: Report, pages: dict[str, str]
) -> None:
    root = parsed(pages["report"])
    text = " ".join("".join(root.itertext()).split())
    for number in ("15.9 MB", "2.07 x", "[2.00, 2.15] faster", "0.0021", "98.7 %", "0.9999998", "10 min"):
        assert number in text
    # the names again, in the figures
    svg = [e for e in root.iter() if e.tag.endswith("}svg")]
    assert len(svg) == 6
    for variant in report.variants:
        assert variant.name in "".join(svg[0].itertext())
        assert variant.name in "".join(svg[1].itertext())


def test_hostile_names_stay_text(hostile: Report, pages: dict[str, str]) -> None:
    html = pages["hostile"]
    assert "<script" not in html.lower()
    text = "".join(parsed(html).itertext())
    assert text.count(EVIL) > 20
    assert "<script" not in report_markdown(hostile).replace(f"    {EVIL}", "")  # indented code is verbatim
    assert "<script" not in re.sub("`[^`\n]*`", "", model_card(hostile, FACTS))


def test_redraw_gives_the_same_bytes(bare: Report, tmp_path: Path) -> None:
    # values that JSON turns into others must not be drawn as they were in memory
    stages = (Stage(name="load", digest="0", reused=False, seconds=1.0),)
    write_reports(
        dataclasses.replace(bare, stages=stages, config={"at": Path("a/b"), "two": (1, 2)}), tmp_path
    )
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert b"at: a/b" in files["report.html"]
    redraw(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.mark.slow
def test_redraw_in_another_process_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    write_reports(report, tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {"report.json", "report.md", "report.html"}
    for name in ("report.md", "report.html"):
        (tmp_path / name).unlink()
    code = "import pathlib, sys; from compress.report import redraw; redraw(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(Path(compress.schema.report.__file__).parents[2]),
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_report_that_cannot_be_read_back_replaces_nothing(bare: Report, tmp_path: Path) -> None:
    write_reports(bare, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    nan = Latency(p50=math.nan, p90=1.0, p99=1.0, ci95=(1.0, 1.0), samples=1)  # JSON has no NaN
    broken = dataclasses.replace(bare.variants[0], latency_ms={"1x1": nan})
    with pytest.raises(ArtifactError):
        write_reports(dataclasses.replace(bare, variants=(broken,)), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_where_the_time_goes_is_in_both_drawings(report: Report, pages: dict[str, str]) -> None:
    html = " ".join("".join(parsed(pages["report"]).itertext()).split())
    markdown = " ".join(report_markdown(report).replace("| ", "").split())
    for text in (html, markdown):
        for piece in ("Why pruned is not faster at 1x32", "EXPLAINED", "DynamicQuantizeMatMul"):
            assert piece in text
        assert "13.9 (80 %)" in text  # of 17.4 ms in dense's operators
        assert "5.67 x" in text  # p50 of 7.66 ms, a limit of 0.81 + 0.54
        assert "281 GFLOP/s" in text
    svg = figures.operators(report)
    assert all(name in svg for name in ("integer products", "attention", "1x128"))


def test_markdown_says_what_html_says(report: Report, pages: dict[str, str]) -> None:
    text = report_markdown(report)
    titles = re.findall("^## (.*)$", text, flags=re.MULTILINE)
    headings = [e.text for e in parsed(pages["report"]).iter() if e.tag == "h2"]
    assert set(titles[1:]) <= set(headings)
    for piece in ("**Ships: int8**", "passed", "reused", "prune.keep.ffn=0.5", "6 x 1536", "differ by 1.2 %"):
        assert piece in text
    failed = dataclasses.replace(report, verdict=dataclasses.replace(report.verdict, ships=False))
    assert "**Does not ship: int8**" in report_markdown(failed)


def test_the_axis_of_quality_turns_drops_over(report: Report) -> None:
    axis = quality_axis(report)
    assert axis.points["dense"] == (0.0, (0.0, 0.0))
    assert axis.points["pruned"] == (-0.0368, (-0.0633, -0.0121))
    assert axis.budget == pytest.approx(-0.05 * 0.5081)
    variants = tuple(dataclasses.replace(v, drop_from_dense={}) for v in report.variants)
    scores = quality_axis(dataclasses.replace(report, variants=variants))
    assert scores.points["int8"][0] == 0.5060
    assert scores.budget is None


def test_a_report_with_one_variant_and_all_its_numbers(report: Report) -> None:
    single = dataclasses.replace(
        report, variants=report.variants[:1], verdict=Verdict(ships=True, best="dense", reasons=())
    )
    text = "".join(parsed(report_html(single)).itertext())
    assert "Ships: dense" in text
    assert "lee_spearman (up is better)" in text
    assert "0.508 [0.418, 0.599]" in text
    assert "speed-up" not in text.split("Results", 2)[1]


def test_a_figure_without_data_is_empty(bare: Report) -> None:
    drawn = (
        *(figures.tradeoff, figures.latency, figures.operators),
        *(figures.training, figures.stages),
        *(layer_figures.widths, layer_figures.errors, layer_figures.damage, layer_figures.cuts),
    )
    assert [draw(bare) for draw in drawn] == [""] * 9


def test_the_card_is_what_the_hub_reads(report: Report) -> None:
    text = model_card(report, FACTS)
    data = ModelCard(text).data.to_dict()  # an independent reader of the front matter
    assert data["base_model"] == FACTS["base_model"]
    assert data["base_model_relation"] == "quantized"
    assert data["pipeline_tag"] == "sentence-similarity"
    assert data["license"] == "apache-2.0"
    assert {"onnx", "int8"} <= set(data["tags"])
    for piece in ("0.0021 [-0.0188, 0.0229]", "50.0 % of ffn", "98.7 %", "InferenceSession", "256 tokens"):
        assert piece in text
    assert report.variants[-1].sha256 in text


def test_the_card_repeats_the_verdict_and_the_noise(report: Report) -> None:
    text = model_card(report, FACTS)
    assert "**The verdict: it meets its budget.**" in text
    assert "The machine was not quiet" in text
    for line in (*report.verdict.reasons, *report.noise):
        assert f"- {line}\n" in text
    quiet = dataclasses.replace(
        report, noise=(), verdict=Verdict(ships=False, best="int8", reasons=("too big",))
    )
    text = model_card(quiet, FACTS)
    assert "**The verdict was not to ship it.**\n\n- too big\n" in text
    assert "quiet" not in text


@pytest.mark.parametrize(("kind", "weights"), [("f16", "float16"), ("q8_0", "8 bits"), ("q4_0", "4 bits")])
def test_the_card_tells_of_the_file_for_llama_cpp(report: Report, kind: str, weights: str) -> None:
    name = f"model-{kind}.gguf"
    told = {"name": name, "format": kind, "size_bytes": 145_300_000, "kl_of_rounding_nats": 0.001234}
    text = model_card(report, FACTS | {"gguf": told}).split("## As GGUF")[1].split("\n## ")[0]
    for piece in (f"`{name}` (145 MB)", f"llama-cli -m {name} ", f"matrices in {weights}", " 0.0012 nats"):
        assert piece in text
    assert "GGUF" not in model_card(report, FACTS)


def test_the_card_guesses_nothing(bare: Report) -> None:
    text = model_card(bare, {})
    front = yaml.safe_load(text.split("---")[1])
    assert set(front) == {"library_name", "tags"}
    assert "The weights are float" in text
    assert "The verdict was not to ship it" in text
    assert "None" not in text


def test_code_in_the_card_cannot_end_its_block(report: Report) -> None:
    code = 'text = """\n```\n# heading\n```\n"""'
    assert f"````python\n{code}\n````" in model_card(report, FACTS | {"example_code": code})


def test_every_drawing_names_what_meets_the_budget(report: Report) -> None:
    verdict = Verdict(ships=False, best="int8", reasons=("too much",), instead="recovered")
    failed = dataclasses.replace(report, verdict=verdict)
    line = "recovered meets the budget: budget.fallback=true ships it instead"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(console_summary(failed, 200))
    for text in (
        report_markdown(failed),
        report_html(failed),
        model_card(failed, FACTS),
        console.export_text(),
    ):
        assert line in text.replace("\\", "")
        assert line not in report_markdown(report)

"""A language model in the reports: both domains, nearness to dense, continuations side by side."""

import dataclasses

import pytest

from compress.report.html import report_html
from compress.report.markdown import report_markdown
from compress.report.sections import sections
from compress.schema.details import Continuation, LanguageDetails, LanguageDomain
from compress.schema.estimates import Estimate, Score
from compress.schema.report import Report

pytestmark = pytest.mark.usefixtures("without_drawings")  # test_reports.py draws them


def score(value, higher=False):
    return Score(value=value, ci95=(value - 0.01, value + 0.01), n=100, higher_is_better=higher)


@pytest.fixture
def language(report):
    """Of the hand-made report, the last variant with other tokens than the first."""
    changed = []
    for i, variant in enumerate(report.variants):
        last = variant is report.variants[-1]
        domains = tuple(
            LanguageDomain(name=name, documents=9, tokens=1000 + 250 * last, bytes=4500)
            for name in ("news", "wiki")
        )
        written = Continuation(
            domain="news",
            prompt="The river | <b>runs",
            dense="down\nto the sea",
            variant="" if last else "down to the city",
            tokens=20,
            shared_tokens=2 + i,
            dense_repeated=0.0,
            variant_repeated=0.25,
        )
        quality = {f"bits_per_byte_{name}": score(1.0 + i / 10) for name in ("news", "wiki")}
        if not last:
            quality |= {f"perplexity_{name}": score(28.0 + i) for name in ("news", "wiki")}
        changed.append(
            dataclasses.replace(
                variant,
                quality=quality,
                fidelity={"kl": score(0.1 * i), "top1_agreement": score(0.9, True)},
                drop_from_dense={"bits_per_byte_news": Estimate(value=0.1, ci95=(0.0, 0.2))},
                language=LanguageDetails(
                    context=512, stride=256, domains=domains, compared_share=0.875, continuations=(written,)
                ),
            )
        )
    return dataclasses.replace(report, variants=tuple(changed), primary_metric="bits_per_byte_news")


def section(report: Report, anchor: str):
    return next((each for each in sections(report) if each.anchor == anchor), None)


def test_each_domain_has_a_row_for_each_variant(language):
    found = section(language, "reading")
    count = len(language.variants)
    assert [row[0] for row in found.rows] == ["news"] * count + ["wiki"] * count
    assert found.rows[0][1:5] == ("dense", "9", "1000", "4.50")
    assert found.rows[0][5:] == ("1.00 [0.99, 1.01]", "28.0 [28.0, 28.0]")
    assert found.rows[count - 1][3:5] == ("1250", "3.60")
    assert found.rows[count - 1][6] == "-"
    assert "512 tokens, 256 from one to the next" in found.lines[0]
    assert "has other tokens" in found.lines[1]
    assert "87.5 %" in found.lines[1]
    assert len(found.lines) == 2


def test_nearness_and_repetition(language):
    found = section(language, "writing")
    assert found.rows[0][0] == "dense"
    assert found.rows[0][3:] == ("2.00 of 20.0", "25.0 %")
    assert found.rows[1][1].startswith("0.100 [")


def test_continuations_are_side_by_side_and_escaped(language):
    found = section(language, "continuations")
    best = language.verdict.best
    assert found.header == ("domain", "beginning", "dense", best, "shared tokens")
    assert found.rows[0][2] == "down to the sea"
    assert found.rows[0][3] == "(ends at once)"
    page, text = report_html(language), report_markdown(language)
    assert "&lt;b&gt;runs" in page
    assert "<b>runs" not in page
    assert "## Continuations" in text
    assert "The river \\| " in text


def test_other_models_have_no_such_sections(report):
    for anchor in ("reading", "writing", "continuations"):
        assert section(report, anchor) is None


def test_it_survives_a_file(language, tmp_path):
    language.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == language

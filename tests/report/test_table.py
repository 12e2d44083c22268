import dataclasses
import io

import pytest
from rich.console import Console

from compress.report.grid import escape_markdown
from compress.report.quantization import by_reason
from compress.report.sections import curves, sections
from compress.report.table import console_summary, markdown_table, table_rows
from compress.report.timing import noise_advice
from compress.schema.estimates import Estimate, Score
from compress.schema.pruning import Recovery
from compress.schema.quantization import SkippedNode
from compress.schema.report import CutTexts, NearDuplicates, Noninferiority, Report, UseCount


def printed(report: Report, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(console_summary(report, width))
    return console.file.getvalue()


def markdown_rows(report: Report) -> dict[str, list[str]]:
    lines = markdown_table(report).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_the_table_holds_the_numbers_of_the_report(report: Report) -> None:
    rows = markdown_rows(report)
    assert rows["size, MB"] == ["90.4", "62.1", "62.1", "15.9"]
    assert rows["parameters, M"] == ["22.7", "15.6", "15.6", "15.6"]
    assert rows["MACs in integers"] == ["-", "-", "-", "98.7 %"]
    assert rows["lee_spearman, up is better"][3] == "0.506 [0.416, 0.596]"
    assert rows["drop in lee_spearman"][1] == "0.0368 [0.0121, 0.0633]"
    assert rows["cosine to dense, up is better"][0] == "-"
    assert rows["p50 at 1x128, ms"][3] == "7.66 [7.57, 7.75]"
    assert rows["speed-up at 1x32, x"][1:] == [
        "1.03 [0.98, 1.07] not told apart",
        "1.02 [0.98, 1.06] not told apart",
        "2.07 [2.00, 2.15] faster",
    ]
    assert rows["peak memory, MB"] == ["311", "249", "249", "148"]


def test_a_language_model_is_told_in_tokens(report: Report) -> None:
    def told(variant):
        rate = Estimate(value=52.1, ci95=(50.2, 53.9))
        return dataclasses.replace(
            variant,
            latency_ms={"1x442": variant.latency_ms["1x128"], "1x1+442": variant.latency_ms["1x32"]},
            speedup={},
            tokens_per_second={"1x442": rate, "1x1+442": rate},
            bandwidth_share={"1x1+442": 0.314},
        )

    rows = markdown_rows(dataclasses.replace(report, variants=tuple(map(told, report.variants))))
    assert rows["time to first token at 1x442, ms"][3] == "7.66 [7.57, 7.75]"
    assert "p50 at 1x1+442, ms" in rows
    assert rows["prefill at 1x442, tokens/s"][0] == "52.1 [50.2, 53.9]"
    assert rows["decode at 1x1+442, tokens/s"][0] == "52.1 [50.2, 53.9]"
    assert rows["of the memory's limit at 1x1+442"][0] == "31.4 %"


def test_the_stage_that_needed_the_most_memory_is_named(report: Report) -> None:
    stages = tuple(
        dataclasses.replace(stage, peak_memory_bytes=size * 10**6)
        for stage, size in zip(report.stages, (200, 361, 300), strict=False)
    )
    [found] = [s for s in sections(dataclasses.replace(report, stages=stages)) if s.anchor == "stages"]
    assert found.lines[0].startswith("The most memory was needed by export dense: 361 MB, 3.99 times")
    assert [row[2] for row in found.rows] == ["200", "361", "300"]


def test_the_primary_metric_leads_and_the_kept_variant_is_marked(report: Report) -> None:
    quality = [row for row in table_rows(report) if row.group == "Quality"]
    assert quality[0].label.startswith("lee_spearman")
    assert [row.primary for row in quality] == [True, False, True, False, False]
    last = dataclasses.replace(report, primary_metric="wordsim353_spearman")
    quality = [row for row in table_rows(last) if row.group == "Quality"]
    assert quality[0].label.startswith("wordsim353_spearman")
    assert markdown_table(report).splitlines()[0].endswith("int8 (ships) |")
    failed = dataclasses.replace(report, verdict=dataclasses.replace(report.verdict, ships=False))
    assert "int8 (does not ship)" in markdown_table(failed)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_console_table_fits_its_columns_and_cuts_no_number(
    report: Report, count: int, width: int
) -> None:
    variants = (*report.variants, dataclasses.replace(report.variants[1], name="fifth"))[:count]
    text = printed(dataclasses.replace(report, variants=variants), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for variant in variants:
        assert variant.name[:10] in text  # a long name may be folded
    fits = count <= {80: 3, 100: 4, 120: 5}[width]
    whole = ("90.4", "[0.418, 0.599]", "[161, 165]") if fits else ("90.4", "[0.418,", "0.599]")
    for number in whole:
        assert number in text


def test_the_summary_says_verdict_reasons_and_noise(report: Report) -> None:
    lines = printed(report, 200).splitlines()
    end = [line.strip() for line in lines[lines.index("int8 ships:") :]]
    assert end == [
        "int8 ships:",
        *(f"- {reason}" for reason in report.verdict.reasons),
        "noise: dense against itself: 1.00 [0.99, 1.01] at 1x128",
        "noise: 1x32: the first and the last third differ by 1.2 %",
        "noise: later runs reuse this timing; to time again, on a quieter machine: benchmark.seed=1",
    ]
    failed = dataclasses.replace(report, verdict=dataclasses.replace(report.verdict, ships=False))
    assert "int8 does not meet the budget:" in printed(failed)


def test_a_noisy_timing_that_is_reused_says_so(report: Report) -> None:
    *others, timed = report.stages
    assert timed.name == "benchmark"
    reused = dataclasses.replace(
        report,
        stages=(*others, dataclasses.replace(timed, reused=True)),
        config=report.config | {"benchmark": {"seed": 4}},
    )
    advice = "timed by an earlier run; to time again, on a quieter machine: benchmark.seed=5"
    assert noise_advice(reused)[-1] == advice
    before = {key: value for key, value in report.config.items() if key != "benchmark"}
    older = dataclasses.replace(reused, config=before | {"target": {"seed": 4}})
    assert noise_advice(older)[-1] == advice
    assert noise_advice(dataclasses.replace(reused, noise=())) == ()


def test_lower_is_better_is_said(report: Report) -> None:
    perplexity = Score(value=28.05, ci95=(27.2, 28.9), n=64, higher_is_better=False)
    dense = dataclasses.replace(report.variants[0], quality={"perplexity": perplexity})
    rows = markdown_rows(dataclasses.replace(report, variants=(dense,), primary_metric="perplexity"))
    assert rows["perplexity, down is better"] == ["28.1 [27.2, 28.9]"]


def test_dense_over_dense_is_no_finding(report: Report) -> None:
    dense = dataclasses.replace(report.variants[0], speedup=report.variants[3].speedup)
    rows = markdown_rows(dataclasses.replace(report, variants=(dense,)))
    assert rows["speed-up at 1x32, x"] == ["2.07 [2.00, 2.15]"]


def test_rows_without_any_value_are_left_out(bare: Report) -> None:
    assert [row.label for row in table_rows(bare)] == ["size, MB", "parameters, M"]
    assert "22.7" in printed(bare)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a|b", "a\\|b"),
        ("[x](javascript:y)", "[x]\\(javascript:y)"),
        ("two\nlines", "two lines"),
        ("`*\\", "\\`\\*\\\\"),
        ("0.5 [0.4, 0.6]", "0.5 [0.4, 0.6]"),
    ],
)
def test_markdown_is_escaped(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped


def test_console_markup_in_a_name_is_text(report: Report) -> None:
    hostile = dataclasses.replace(report.variants[0], name="[red]x[/blue]")
    assert "[red]x[/blue]" in printed(dataclasses.replace(report, variants=(hostile,)))


def test_skipped_nodes_are_grouped_the_most_frequent_reason_first(report: Report) -> None:
    skipped = [SkippedNode(node=node, reason=reason) for node, reason in ("az", "bx", "cy", "dx")]
    assert by_reason(skipped) == [("x", ["b", "d"]), ("y", ["c"]), ("z", ["a"])]
    (section,) = [section for section in sections(report) if section.anchor == "skipped"]
    assert section.rows[0][:3] == ("int8", "both inputs vary", "12")
    assert section.rows[0][3].endswith("and 9 more")


def test_splits_say_what_nearly_repeats_and_how_often_test_was_looked_at(report: Report) -> None:
    nearly = NearDuplicates(
        examples=5, share=0.01, limit=0.8, similarity=0.863, text="One.", other="Won.", other_split="train"
    )
    test = dataclasses.replace(
        report.splits["test"], near_duplicates=nearly, looks=UseCount(looks=12, models=9)
    )
    changed = dataclasses.replace(report, splits={**report.splits, "test": test})
    (section,) = [section for section in sections(changed) if section.anchor == "splits"]
    assert section.rows[-1][:5] == ("test", "500", "500", "5 (1.00 %)", "12 times, 9 models")
    assert section.rows[0][3:5] == ("-", "-")
    used, repeated = section.lines
    assert "looked at 12 times on this machine, for 9 models beside the dense one: the best of" in used
    assert "5 of 500 examples of test" in repeated
    assert "0.863: One. | Won. (train)" in repeated
    cut = CutTexts(texts=500, cut=25, limit=64, words=9000, unread=130)
    changed = dataclasses.replace(
        report, splits={"test": dataclasses.replace(test, near_duplicates=None, looks=None, cut=cut)}
    )
    (section,) = [section for section in sections(changed) if section.anchor == "splits"]
    assert section.lines == (
        "25 of 500 texts of test (5.00 %) are longer than the 64 tokens that the model reads: their rest is "
        "left out, so that 130 of 9000 words get no tag.",
    )
    once = dataclasses.replace(test, near_duplicates=None, looks=UseCount(looks=1, models=1))
    changed = dataclasses.replace(report, splits={"test": once})
    (section,) = [section for section in sections(changed) if section.anchor == "splits"]
    (used,) = section.lines
    assert used.endswith("looked at once on this machine, for 1 model beside the dense one.")


def test_the_tests_against_the_budget_are_told(report: Report) -> None:
    tests = tuple(
        Noninferiority(
            metric=metric, drop=Estimate(value=0.01, ci95=(-0.02, 0.04)), margin=0.05, p_value=p, p_holm=2 * p
        )
        for metric, p in (("lee_spearman", 0.0001), ("wordsim353_spearman", 0.02))
    )
    changed = dataclasses.replace(report, verdict=dataclasses.replace(report.verdict, noninferiority=tests))
    (section,) = [section for section in sections(changed) if section.anchor == "noninferiority"]
    assert section.rows[0] == (
        "lee_spearman (primary)", "0.0100 [-0.0200, 0.0400]", "0.0500", "< 0.001", "< 0.001", "yes"
    )  # fmt: skip
    assert section.rows[1][3:] == ("0.020", "0.040", "not shown")
    assert "noninferiority" not in [section.anchor for section in sections(report)]


def test_a_section_without_content_is_left_out(bare: Report) -> None:
    assert [section.anchor for section in sections(bare)] == ["files"]


@pytest.mark.parametrize(
    ("recovery", "points"),
    [
        (None, {}),
        (Recovery(steps=()), {}),
        (Recovery(steps=(0, 1, 2), train_loss=(3.0, 2.0)), {"train": [(0, 3.0), (1, 2.0)]}),
        (Recovery(steps=(), train_loss=(3.0, 2.0)), {}),
        (
            Recovery(steps=(0, 1), train_loss=(3.0, None), select_loss=(1.0, 0.5)),
            {"train": [(0, 3.0)], "select": [(0, 1.0), (1, 0.5)]},
        ),
    ],
)
def test_a_curve_with_gaps(
    report: Report, recovery: Recovery | None, points: dict[str, list[tuple[int, float]]]
) -> None:
    assert curves(dataclasses.replace(report, recovery=recovery)) == points

"""report.html: one file that opens offline, with its style and its figures inside."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compress.report import figures, layer_figures
from compress.report.format import bracket, interval, megabytes, number, percent, speed_word
from compress.report.section import best_variant, fallback_line
from compress.report.sections import sections
from compress.report.table import mark, table_rows
from compress.schema.report import Report

TEMPLATES = Path(__file__).parent / "templates"


def templates(autoescape: bool = True) -> Environment:
    """HTML escapes everything, Markdown by the filter `md`; a name that is missing is an error."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def report_html(report: Report) -> str:
    environment = templates()
    # Our own SVG is the only text that is not escaped: matplotlib escapes the names inside it.
    drawn = {
        "time": Markup(figures.operators(report)),
        "layers": Markup(layer_figures.errors(report)),
        "sensitivity": Markup(layer_figures.damage(report)),
        "widths": Markup(layer_figures.widths(report)),
        "cuts": Markup(layer_figures.cuts(report)),
        "recovery": Markup(figures.training(report)),
        "stages": Markup(figures.stages(report)),
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        dense=report.variants[0].name,
        instead=fallback_line(report.verdict),
        columns=[(variant.name, mark(report, variant)) for variant in report.variants],
        rows=table_rows(report),
        cards=_cards(report),
        tradeoff=Markup(figures.tradeoff(report)),
        latency=Markup(figures.latency(report)),
        sections=sections(report),
        figures=drawn,
        config=yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True) if report.config else "",
    )


def _cards(report: Report) -> list[dict[str, Any]]:
    """Headline numbers of the kept variant: title, big number, small print, tone (good, bad or none)."""

    def add(title: str, big: str, *small: str, tone: str = "") -> None:
        cards.append({"title": title, "big": big, "small": small, "tone": tone})

    cards: list[dict[str, Any]] = []
    dense, best, metric = report.variants[0], best_variant(report), report.primary_metric
    beside = "" if best is dense else f"dense {megabytes(dense.size_bytes)} MB"
    add("size", f"{megabytes(best.size_bytes)} MB", beside)
    for workload, speedup in best.speedup.items() if best is not dense else ():
        word = speed_word(speedup)
        value, limits = bracket(speedup.value, speedup.ci95)
        before, after = dense.latency_ms.get(workload), best.latency_ms.get(workload)
        times = f"p50 {number(before.p50)} to {number(after.p50)} ms" if before and after else ""
        tone = {"faster": "good", "slower": "bad"}.get(word, "")
        add(f"speed-up at {workload}", f"{value} x", f"{limits} {word}", times, tone=tone)
    if (drop := best.drop_from_dense.get(metric)) is not None and best is not dense:
        value, limits = bracket(drop.value, drop.ci95)
        scores = [v.quality[metric].value for v in (dense, best) if metric in v.quality]
        add(f"drop in {metric}", value, limits, " to ".join(map(number, scores)))
    elif (score := best.quality.get(metric)) is not None:
        add(metric, number(score.value), interval(score.value, score.ci95), f"n {score.n}")
    if best.quantization is not None:
        add("in integers", percent(best.quantization.coverage_macs), "of the multiply-accumulates")
    return cards

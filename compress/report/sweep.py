"""Draws a sweep: the files in its folder, from what its points have in common."""

from pathlib import Path

from pydantic import TypeAdapter

from compress.report.files import publish
from compress.report.sweep_figures import parallel, pareto
from compress.report.sweep_pages import sweep_html, sweep_markdown
from compress.report.sweep_table import sweep_csv
from compress.schema.sweep import Sweep

_SWEEP = TypeAdapter(Sweep)


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """Write sweep.json, sweep.csv, report.md, report.html and the figures as svg, each whole or not at all.

    The same sweep gives the same bytes. A figure without data is removed.
    """
    figures = {
        "pareto_latency": pareto(sweep, "latency"),
        "pareto_size": pareto(sweep, "size"),
        "pareto_memory": pareto(sweep, "memory"),
        "settings": parallel(sweep),
    }
    texts = {
        "sweep.json": _SWEEP.dump_json(sweep, indent=2).decode() + "\n",
        "sweep.csv": sweep_csv(sweep),
        **{f"{name}.svg": svg for name, svg in figures.items()},
        "report.md": sweep_markdown(sweep, figures),
        "report.html": sweep_html(sweep, figures),
    }
    for name, text in texts.items():
        if text:
            publish(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)

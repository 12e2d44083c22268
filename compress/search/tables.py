"""What a search prints and writes: its trials, and what the winner promised beside what it holds."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from compress.config.target import BudgetConfig
from compress.judge.verdict import misses, score_of
from compress.report.files import publish
from compress.schema.estimates import Estimate
from compress.schema.report import Report
from compress.search.space import Measured, geometric_mean, relative, total_violation
from compress.search.study import Record


def describe(settings: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name.rpartition('.')[2]}={f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in settings.items()
    )


def trials_table(records: Sequence[Record]) -> Table:
    table = Table("trial", "settings", "drop on select", "speed-up", "MB", "s", "state")
    for record in records:
        seen = record.measured or record.glance
        table.add_row(
            str(record.number),
            describe(record.settings),
            _percent(seen.drop) if seen else "",
            _times(seen.speedup) if seen else "",
            f"{seen.size_mb:.1f}" if seen else "",
            f"{record.seconds:.0f}",
            f"{record.state.lower()}{': ' if record.reason else ''}{record.reason}",
            style=None if record.measured else "dim",
        )
    table.caption = "dim: at a glance, before recovery"
    return table


def _percent(drop: Estimate) -> str:
    return f"{drop.value:+.1%} [{drop.ci95[0]:+.1%}, {drop.ci95[1]:+.1%}]"


def _times(speedup: Estimate) -> str:
    return f"{speedup.value:.2f}x [{speedup.ci95[0]:.2f}, {speedup.ci95[1]:.2f}]"


def promise_table(measured: Measured, report: Report, budget: BudgetConfig) -> Table:
    """Select, where it was chosen, beside test: the difference is the optimism of choosing."""
    dense, small, metric = report.variants[0], report.variants[-1], report.primary_metric
    drop = relative(small.drop_from_dense[metric], score_of(dense, metric))
    met = {True: "met", False: "not met"}
    table = Table("", f"select ({measured.metric})", f"test ({metric})")
    table.add_row("quality drop", _percent(measured.drop), _percent(drop))
    table.add_row("speed-up", _times(measured.speedup), _times(geometric_mean(small.speedup.values())))
    table.add_row("size", f"{measured.size_mb:.1f} MB", f"{small.size_bytes / 1e6:.1f} MB")
    table.add_row(
        "budget",
        met[total_violation(measured, budget) == 0],
        met[not misses(small, dense, metric, budget)],
    )
    return table


def save(records: Sequence[Record], folder: Path) -> None:
    """trials.json, with all there is, and trials.csv, a row a trial."""
    rows = [_row(record) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    publish(folder / "trials.json", json.dumps([asdict(record) for record in records], indent=1) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(rows)
    publish(folder / "trials.csv", table.getvalue())


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": record.number, "state": record.state, "reason": record.reason}
    row |= {"seconds": round(record.seconds, 1), **record.settings}
    for when in ("glance", "measured"):
        if (seen := getattr(record, when)) is not None:
            for name, value in asdict(seen).items():
                if isinstance(value, dict):
                    row[f"{when}_{name}"] = value["value"]
                    row[f"{when}_{name}_low"], row[f"{when}_{name}_high"] = value["ci95"]
                else:
                    row[f"{when}_{name}"] = value
    return row

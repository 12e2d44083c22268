"""The table of a sweep as cells, csv and console: points as rows, fastest first, with what varies."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table
from rich.text import Text

from compress.report.format import MISSING, brief, megabytes, number
from compress.report.grid import Cell, Line, compared, console_grid, estimated, plain
from compress.schema.estimates import Estimate
from compress.schema.sweep import Baseline, Kept, Point, Sweep

_LAYOUTS = ("{value} {interval}", "{value}\n{interval}")  # of the console, where a colour says the word


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    point: Point
    settings: tuple[str, ...]
    cells: tuple[Cell, ...]
    verdict: str
    fronts: str  # the fronts that the point is on


def ordered(sweep: Sweep) -> list[Point]:
    """Points that are done by the latency of the first workload; those without it last."""

    def key(point: Point) -> tuple[bool, float, int]:
        latency = _first_latency(sweep, point)
        return latency is None, latency.value if latency else 0.0, point.number

    return sorted((point for point in sweep.points if point.kept), key=key)


def _first_latency(sweep: Sweep, point: Point) -> Estimate | None:
    return point.kept.comparable_ms.get(sweep.workloads[0]) if point.kept and sweep.workloads else None


def headers(sweep: Sweep) -> tuple[str, ...]:
    """Of the cells of a row."""
    latency = (f"latency at {workload}, ms" for workload in sweep.workloads)
    return f"drop in {sweep.primary_metric}", *latency, "size, MB", "peak memory, MB"


def rows(sweep: Sweep) -> list[SweepRow]:
    return [
        SweepRow(
            point=point,
            settings=tuple(point.settings.get(key, MISSING) for key in sweep.varying),
            cells=_cells(sweep, point.kept),
            verdict="ships" if point.kept.verdict.ships else "does not ship",
            fronts=_fronts(sweep, point),
        )
        for point in ordered(sweep)
        if point.kept
    ]


def _fronts(sweep: Sweep, point: Point) -> str:
    costs = [front.workload or front.cost for front in sweep.fronts if point.number in front.members]
    return "all" if costs and len(costs) == len(sweep.fronts) else ", ".join(costs)


def _cells(sweep: Sweep, kept: Kept) -> tuple[Cell, ...]:
    return (
        estimated(kept.drop),
        *(_latency(kept, workload) for workload in sweep.workloads),
        plain(kept.size_bytes, 1e6),
        plain(kept.peak_memory_bytes, 1e6),
    )


def _latency(kept: Kept, workload: str) -> Cell:
    """Milliseconds on the common scale, the speed-up they come from, and what that allows to say."""
    latency, speedup = kept.comparable_ms.get(workload), kept.speedup.get(workload)
    if latency is None or speedup is None:
        return plain(latency.value if latency else None)
    ratio = compared(speedup)
    return replace(ratio, value=number(latency.value), interval=f"{ratio.value} x {ratio.interval}")


def baseline_cells(sweep: Sweep, baseline: Baseline) -> tuple[Cell, ...]:
    return (
        Cell(value="0"),
        *(plain(baseline.latency_ms.get(workload)) for workload in sweep.workloads),
        plain(baseline.size_bytes, 1e6),
        plain(baseline.peak_memory_bytes, 1e6),
    )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """`prune.keep.ffn -> ffn`, or as many parts of it as tell the keys apart."""

    def suffix(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    def short(key: str) -> str:
        others = [other for other in keys if other != key]
        counts = range(1, key.count(".") + 2)
        return next(
            (suffix(key, n) for n in counts if suffix(key, n) not in [suffix(o, n) for o in others]), key
        )

    return {key: short(key) for key in keys}


# ---------------------------------------------------------------- console


def sweep_table(sweep: Sweep, width: int) -> Table:
    """A row a point, fastest first, then those without a result; a star marks the first front.

    The first workload's speed-up, the drop and the size; the other numbers are in the files. Intervals
    go to a line of their own where `width` columns do not hold them. A speed-up is green where its whole
    interval is above 1, red below, else yellow.
    """
    first = sweep.workloads[0] if sweep.workloads else ""
    front = sweep.fronts[0].members if sweep.fronts else ()
    names = short_names(sweep.varying)
    header = ["", *(names[key] for key in sweep.varying), f"speed-up\nat {first}", "drop", "MB", "ships"]
    lines = []
    if sweep.baseline:
        numbers = ("1", "0", megabytes(sweep.baseline.size_bytes), MISSING)
        texts = (sweep.baseline.name, *[MISSING] * len(sweep.varying), *numbers)
        lines.append(Line(cells=[Cell(value=text) for text in texts], style="dim"))
    for point in [*ordered(sweep), *(point for point in sweep.points if point.kept is None)]:
        mark = Cell(value=f"#{point.number}{'*' if point.number in front else ''}")
        settings = [Cell(value=point.settings.get(key, MISSING)) for key in sweep.varying]
        cells = [mark, *settings, *_console_cells(point, first)]
        lines.append(Line(cells=cells, style="" if point.kept else "red"))
    table = console_grid(
        sweep.experiment, header, lines, width, text_columns=1 + len(sweep.varying), layouts=_LAYOUTS
    )
    if front:
        table.caption = Text(
            f"* on the Pareto front of drop in {sweep.primary_metric} against {sweep.fronts[0].cost}; "
            "brackets are 95 % intervals; more in the report"
        )
    return table


def _console_cells(point: Point, workload: str) -> list[Cell]:
    """Speed-up, drop, size, and whether it ships or what became of it."""
    if point.kept is None:
        return [Cell(), Cell(), Cell(), Cell(value=point.status)]
    ships = Cell(value="yes", word="faster") if point.kept.verdict.ships else Cell(value="no")
    speedup, drop = point.kept.speedup.get(workload), point.kept.drop
    return [
        compared(speedup, brief),
        estimated(drop, rounded=brief),
        plain(point.kept.size_bytes, 1e6),
        ships,
    ]


# ---------------------------------------------------------------- csv


def sweep_csv(sweep: Sweep) -> str:
    """A row a point, by number, with all digits; an unknown number is an empty cell."""
    output = io.StringIO()
    rows = [_csv_row(sweep, point) for point in sweep.points]
    writer = csv.DictWriter(output, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue()


def _csv_row(sweep: Sweep, point: Point) -> dict[str, object]:
    """Column -> number; None where it is unknown."""
    kept = point.kept
    row: dict[str, object] = {"point": point.number, "status": point.status}
    row |= {key: point.settings.get(key) for key in sweep.varying}
    row |= {"variant": kept and kept.variant, "ships": kept and int(kept.verdict.ships)}
    row[sweep.primary_metric or "quality"] = kept and kept.quality and kept.quality.value
    row |= _csv_interval("drop", kept.drop if kept else None)
    row |= {"size_bytes": kept and kept.size_bytes, "peak_memory_bytes": kept and kept.peak_memory_bytes}
    for workload in sweep.workloads:
        comparable, own = kept and kept.comparable_ms.get(workload), kept and kept.latency_ms.get(workload)
        row |= _csv_interval("speedup", kept.speedup.get(workload) if kept else None, f"_{workload}")
        row |= {f"comparable_ms_{workload}": comparable and comparable.value}
        row |= {f"p50_ms_{workload}": own and own.p50}
    for front in sweep.fronts:
        row[f"on_front_{front.cost.replace(' ', '_')}"] = int(point.number in front.members)
    return {**row, "error": point.error}


def _csv_interval(name: str, estimate: Estimate | None, end: str = "") -> dict[str, float | None]:
    value, low, high = (estimate.value, *estimate.ci95) if estimate else (None, None, None)
    return {f"{name}{end}": value, f"{name}_low{end}": low, f"{name}_high{end}": high}

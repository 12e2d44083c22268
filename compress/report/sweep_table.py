"""The table of a sweep as cells, csv and console: points as rows, fastest first, with what varies."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from compress.report.format import MISSING, bracket, brief, megabytes, number, speed_word
from compress.report.table import _GAP, _STYLES, Cell, widest
from compress.schema.report import Estimate
from compress.schema.sweep import Baseline, Kept, Point, Sweep


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    point: Point
    settings: tuple[str, ...]
    cells: tuple[Cell, ...]
    verdict: str
    fronts: str  # on which it is


def ordered(sweep: Sweep) -> list[Point]:
    """Points that are done by the latency of the first workload; those without it last."""

    def key(point: Point) -> tuple[bool, float, int]:
        found = _first_latency(sweep, point)
        return found is None, found.value if found else 0.0, point.number

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
    found = [front.workload or front.cost for front in sweep.fronts if point.number in front.members]
    return "all" if found and len(found) == len(sweep.fronts) else ", ".join(found)


def _estimate(found: Estimate | None) -> Cell:
    if found is None:
        return Cell()
    value, limits = bracket(found.value, found.ci95)
    return Cell(value=value, interval=limits)


def _cells(sweep: Sweep, kept: Kept) -> tuple[Cell, ...]:
    memory = kept.peak_memory_bytes
    return (
        _estimate(kept.drop),
        *(_latency(kept, workload) for workload in sweep.workloads),
        Cell(value=megabytes(kept.size_bytes)),
        Cell() if memory is None else Cell(value=megabytes(memory)),
    )


def _latency(kept: Kept, workload: str) -> Cell:
    """Milliseconds on the common scale, the speed-up they come from, and what that allows to say."""
    found, speedup = kept.comparable_ms.get(workload), kept.speedup.get(workload)
    if found is None or speedup is None:
        return Cell(value=number(found.value)) if found else Cell()
    cell = _estimate(speedup)
    return Cell(
        value=number(found.value), interval=f"{cell.value} x {cell.interval}", word=speed_word(speedup)
    )


def baseline_cells(sweep: Sweep, baseline: Baseline) -> tuple[Cell, ...]:
    memory = baseline.peak_memory_bytes
    return (
        Cell(value="0"),
        *(
            Cell(value=number(baseline.latency_ms[w])) if w in baseline.latency_ms else Cell()
            for w in sweep.workloads
        ),
        Cell(value=megabytes(baseline.size_bytes)),
        Cell() if memory is None else Cell(value=megabytes(memory)),
    )


def plain(value: str | None) -> float | str | None:
    """0.5 and 0.50 are the same setting."""
    try:
        found = float(value) if value is not None else None
    except ValueError:
        return value
    return value if found is None or math.isnan(found) else found  # NaN does not equal itself


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """`prune.keep.ffn -> ffn`, or as many parts of it as tell the keys apart."""

    def suffix(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    names = {}
    for key in keys:
        parts = 1
        while suffix(key, parts) != key and any(
            suffix(other, parts) == suffix(key, parts) for other in keys if other != key
        ):
            parts += 1
        names[key] = suffix(key, parts)
    return names


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
    lines: list[tuple[list[Cell], str]] = []  # cells and style
    if sweep.baseline:
        blank = [Cell()] * len(sweep.varying)
        numbers = [Cell(value=text) for text in ("1", "0", megabytes(sweep.baseline.size_bytes), MISSING)]
        lines.append(([Cell(value=sweep.baseline.name), *blank, *numbers], "dim"))
    for point in [*ordered(sweep), *(point for point in sweep.points if point.kept is None)]:
        mark = Cell(value=f"#{point.number}{'*' if point.number in front else ''}")
        settings = [Cell(value=point.settings.get(key, MISSING)) for key in sweep.varying]
        numbers = _console_cells(point, first)
        lines.append(([mark, *settings, *numbers], "" if point.kept else "red"))
    columns = [list(cells) for cells in zip(*(cells for cells, _ in lines), strict=True)]

    def needed(layout: str) -> int:
        texts = (
            [name, *(c.text(layout) for c in cells)] for name, cells in zip(header, columns, strict=True)
        )
        return sum(_GAP + widest(each) for each in texts)

    layout = next((each for each in _LAYOUTS if needed(each) <= width), _LAYOUTS[-1])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=Text(sweep.experiment))
    for index, name in enumerate(header):  # folded where it must be: a cut number would be a lie
        justify: Literal["left", "right"] = "left" if index <= len(sweep.varying) else "right"
        table.add_column(Text(name), justify=justify, overflow="fold")
    for cells, style in lines:
        table.add_row(*(Text(c.text(layout), style=_STYLES.get(c.word, "")) for c in cells), style=style)
    if front:
        table.caption = Text(
            f"* on the Pareto front of drop in {sweep.primary_metric} against {sweep.fronts[0].cost}; "
            "brackets are 95 % intervals; more in the report"
        )
    return table


_LAYOUTS = ("{value} {interval}", "{value}\n{interval}")


def _console_cells(point: Point, workload: str) -> list[Cell]:
    """Speed-up, drop, size, and whether it ships or what became of it."""
    if point.kept is None:
        return [Cell(), Cell(), Cell(), Cell(value=point.status)]
    speedup, drop, ships = point.kept.speedup.get(workload), point.kept.drop, point.kept.verdict.ships
    return [
        _brief(speedup, speed_word(speedup)) if speedup else Cell(),
        _brief(drop) if drop else Cell(),
        Cell(value=megabytes(point.kept.size_bytes)),
        Cell(value="yes", word="faster") if ships else Cell(value="no"),
    ]


def _brief(found: Estimate, word: str = "") -> Cell:
    value, limits = brief(found.value, found.ci95)
    return Cell(value=value, interval=limits, word=word)


# ---------------------------------------------------------------- csv


def sweep_csv(sweep: Sweep) -> str:
    """A row a point, by number, with all digits; an unknown number is an empty cell."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    header = ["point", "status", *sweep.varying, "variant", "ships", sweep.primary_metric or "quality"]
    header += ["drop", "drop_low", "drop_high", "size_bytes", "peak_memory_bytes"]
    for w in sweep.workloads:
        header += [
            f"speedup_{w}",
            f"speedup_low_{w}",
            f"speedup_high_{w}",
            f"comparable_ms_{w}",
            f"p50_ms_{w}",
        ]
    writer.writerow(
        [*header, *(f"on_front_{front.cost.replace(' ', '_')}" for front in sweep.fronts), "error"]
    )
    for point in sweep.points:
        settings = [point.settings.get(key) for key in sweep.varying]
        on = [int(point.number in front.members) for front in sweep.fronts]
        writer.writerow(
            [point.number, point.status, *settings, *_csv_numbers(sweep, point.kept), *on, point.error]
        )
    return output.getvalue()


def _csv_numbers(sweep: Sweep, kept: Kept | None) -> list[object]:
    if kept is None:
        return [None] * (8 + 5 * len(sweep.workloads))
    found: list[object] = [
        kept.variant,
        int(kept.verdict.ships),
        kept.quality.value if kept.quality else None,
    ]
    found += [*_triple(kept.drop), kept.size_bytes, kept.peak_memory_bytes]
    for w in sweep.workloads:
        comparable, own = kept.comparable_ms.get(w), kept.latency_ms.get(w)
        found += _triple(kept.speedup.get(w))
        found += [comparable.value if comparable else None, own.p50 if own else None]
    return found


def _triple(found: Estimate | None) -> list[float | None]:
    return [found.value, *found.ci95] if found else [None, None, None]

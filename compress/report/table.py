"""The table of a run: metrics as rows, variants as columns, dense first, the kept one marked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from compress.report.format import MISSING, bracket, number, percent, speed_word
from compress.report.sections import noise_advice
from compress.schema.report import Estimate, Latency, Report, Score, Variant
from compress.schema.workload import Workload

_LABEL_WIDTHS = (24, 16)  # of the first column, in a wide and in a narrow console
_GAP = 3  # between columns
# From roomy to narrow; the first one that fits is used.
_LAYOUTS = ("{value} {interval} {word}", "{value} {word}\n{interval}", "{value}\n{interval}\n{word}")


@dataclass(frozen=True, kw_only=True)
class Cell:
    value: str = MISSING
    interval: str = ""
    word: str = ""  # faster, slower, not told apart

    def text(self, layout: str = _LAYOUTS[0]) -> str:
        filled = layout.format(value=self.value, interval=self.interval, word=self.word)
        return "\n".join(" ".join(line.split()) for line in filled.split("\n") if line.strip())


@dataclass(frozen=True, kw_only=True)
class Row:
    group: str
    label: str  # with its unit
    cells: tuple[Cell, ...]
    primary: bool = False


def mark(report: Report, variant: Variant) -> str:
    """What the header says under a variant's name."""
    if variant.name == report.verdict.best:
        return "ships" if report.verdict.ships else "best, does not ship"
    return "baseline" if variant is report.variants[0] else ""


def table_rows(report: Report) -> list[Row]:
    """Every row that has a value in at least one variant."""
    rows = _size_rows(report) + _quality_rows(report) + _speed_rows(report)
    return [row for row in rows if any(cell != Cell() for cell in row.cells)]


def _row(group: str, label: str, cells: Iterable[Cell | None], primary: bool = False) -> Row:
    return Row(group=group, label=label, cells=tuple(cell or Cell() for cell in cells), primary=primary)


def _names(report: Report, field: str) -> list[str]:
    """Names of metrics or workloads in the order in which they first appear."""
    return list(dict.fromkeys(name for variant in report.variants for name in getattr(variant, field)))


def _plain(value: float | None, unit: float = 1.0) -> Cell | None:
    return None if value is None else Cell(value=number(value / unit))


def _estimate(found: Score | Estimate | None) -> Cell | None:
    if found is None:
        return None
    value, interval = bracket(found.value, found.ci95)
    return Cell(value=value, interval=interval)


def _size_rows(report: Report) -> list[Row]:
    variants = report.variants
    coverage = [v.quantization.coverage_macs if v.quantization else None for v in variants]
    return [
        _row("Size", "size, MB", (_plain(v.size_bytes, 1e6) for v in variants)),
        _row("Size", "parameters, M", (_plain(v.parameters, 1e6) for v in variants)),
        _row("Size", "MACs, G", (_plain(v.macs, 1e9) for v in variants)),
        _row("Size", "MACs in integers", (None if c is None else Cell(value=percent(c)) for c in coverage)),
    ]


def direction(report: Report, metric: str, field: str = "quality") -> str:
    """`up is better` or `down is better`, as the first variant that has the metric says."""
    scores: list[dict[str, Score]] = [getattr(variant, field) for variant in report.variants]
    higher = next((found[metric].higher_is_better for found in scores if metric in found), True)
    return "up is better" if higher else "down is better"


def _quality_rows(report: Report) -> list[Row]:
    def primary_first(field: str) -> list[str]:
        return sorted(_names(report, field), key=lambda metric: metric != report.primary_metric)

    rows = []
    for m in primary_first("quality"):
        cells = [_estimate(v.quality.get(m)) for v in report.variants]
        rows.append(_row("Quality", f"{m}, {direction(report, m)}", cells, m == report.primary_metric))
    fidelities = _names(report, "fidelity")  # their drop is what they lack to 1: the same number twice
    for m in (
        name
        for name in primary_first("drop_from_dense")
        if name not in fidelities or name == report.primary_metric
    ):
        cells = [_estimate(v.drop_from_dense.get(m)) for v in report.variants]
        rows.append(_row("Quality", f"drop in {m}", cells, m == report.primary_metric))
    for m in _names(report, "fidelity"):
        cells = [_estimate(v.fidelity.get(m)) for v in report.variants]
        rows.append(_row("Quality", f"{m} to dense, {direction(report, m, 'fidelity')}", cells))
    return rows


def latency_label(report: Report, workload: str) -> str:
    """What the p50 of a workload is: a prompt's is the time to the first token."""
    prompt = not Workload.parse(workload).past and any(
        workload in v.tokens_per_second for v in report.variants
    )
    return f"{'time to first token' if prompt else 'p50'} at {workload}, ms"


def _speed_rows(report: Report) -> list[Row]:
    def p50(found: Latency | None) -> Cell | None:
        return _estimate(Estimate(value=found.p50, ci95=found.ci95)) if found else None

    def speedup(variant: Variant, workload: str) -> Cell | None:
        found, cell = variant.speedup.get(workload), _estimate(variant.speedup.get(workload))
        # dense over dense is 1 by definition, which is no finding
        if found is None or cell is None or variant is report.variants[0]:
            return cell
        return replace(cell, word=speed_word(found))

    variants = report.variants
    rows = [
        _row("Speed", latency_label(report, workload), [p50(v.latency_ms.get(workload)) for v in variants])
        for workload in _names(report, "latency_ms")
    ]
    rows += [
        _row(
            "Speed",
            f"{'decode' if '+' in workload else 'prefill'} at {workload}, tokens/s",
            [_estimate(v.tokens_per_second.get(workload)) for v in variants],
        )
        for workload in _names(report, "tokens_per_second")
    ]
    for workload in _names(report, "bandwidth_share"):
        shares = [v.bandwidth_share.get(workload) for v in variants]
        cells = [None if share is None else Cell(value=percent(share)) for share in shares]
        rows.append(_row("Speed", f"of the memory's limit at {workload}", cells))
    rows += [
        _row("Speed", f"speed-up at {workload}, x", [speedup(v, workload) for v in variants])
        for workload in _names(report, "speedup")
    ]
    return [
        *rows,
        _row("Speed", "peak memory, MB", (_plain(v.peak_memory_bytes, 1e6) for v in variants)),
        _row("Speed", "load, ms", (_plain(v.load_ms) for v in variants)),
    ]


def console_summary(report: Report, width: int) -> Group:
    """What a run prints at its end: the table, the verdict with its reasons, why it is not faster, noise."""
    verdict, noise = report.verdict, noise_advice(report)
    word = "ships" if verdict.ships else "does not meet the budget; kept as the best there is"
    headline = Text.assemble((verdict.best, "green" if verdict.ships else "yellow"), f" {word}:")
    doubts = [Text.assemble("  ", ("noise:", "yellow"), f" {line}") for line in noise]
    why = [
        Text.assemble("  ", (f"not faster at {workload}:", "yellow"), f" {sentence}")
        for variant in report.variants
        if variant.name == verdict.best
        for workload, sentences in variant.not_faster.items()
        for sentence in sentences
    ]
    reasons = [Text(f"  - {line}") for line in verdict.reasons]
    return Group(console_table(report, width), headline, *reasons, *why, *doubts)


def console_table(report: Report, width: int) -> Table:
    """Fits `width` columns: cells take two or three lines where they must, and fold beyond that."""
    rows = table_rows(report)
    headers = ["\n".join(filter(None, (v.name, mark(report, v)))) for v in report.variants]

    def needed(layout: str) -> int:
        columns = [[h, *(row.cells[i].text(layout) for row in rows)] for i, h in enumerate(headers)]
        return _GAP + sum(_GAP + widest(column) for column in columns)

    label_width, layout = next(
        (pair for pair in product(_LABEL_WIDTHS, _LAYOUTS) if pair[0] + needed(pair[1]) <= width),
        (_LABEL_WIDTHS[-1], _LAYOUTS[-1]),
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=Text(report.experiment))
    table.add_column("", max_width=label_width, overflow="fold")
    for header in headers:
        table.add_column(Text(header), justify="right", overflow="fold")  # a cut number would be a lie
    for i, row in enumerate(rows):
        if i and row.group != rows[i - 1].group:
            table.add_section()
        label = Text(row.label, style="bold" if row.primary else "")
        cells = [Text(cell.text(layout), style=_STYLES.get(cell.word, "")) for cell in row.cells]
        table.add_row(label, *cells)
    return table


def widest(texts: Iterable[str]) -> int:
    """Columns that the longest line takes."""
    return max((len(line) for text in texts for line in text.split("\n")), default=0)


_STYLES = {"faster": "green", "slower": "red", "not told apart": "yellow"}


def escape_markdown(text: object) -> str:
    """Text as it is: no tag, no table cell, no link and no emphasis can come out of it."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*|":
        line = line.replace(character, "\\" + character)
    return line.replace("](", "]\\(")


def markdown_grid(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: bool = False) -> str:
    """A GitHub table; with `numbers`, all columns but the first are aligned to the right."""
    rule = ["---", *("--:" if numbers else "---" for _ in header[1:])]
    lines = [[escape_markdown(cell) for cell in header], rule]
    lines += [[escape_markdown(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_table(report: Report) -> str:
    headers = [f"{v.name} ({mark(report, v)})" if mark(report, v) else v.name for v in report.variants]
    rows = [(row.label, *(cell.text() for cell in row.cells)) for row in table_rows(report)]
    return markdown_grid(("", *headers), rows, numbers=True)

"""The table of a run: metrics as rows, variants as columns, dense first, the one that is kept marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from compress.report.format import percent
from compress.report.grid import Cell, Line, compared, console_grid, estimated, markdown_grid, plain
from compress.report.section import names, reasons
from compress.report.timing import noise_advice
from compress.schema.estimates import Estimate, Latency, Score
from compress.schema.report import Report, Variant
from compress.schema.workload import Workload

_LABEL_WIDTHS = (24, 16)  # characters of the first column, in a wide and in a narrow console


@dataclass(frozen=True)
class Row:
    group: str
    label: str  # with its unit
    cells: Sequence[Cell]
    primary: bool = False


def mark(report: Report, variant: Variant) -> str:
    """What the header says under a variant's name."""
    if variant.name == report.verdict.best:
        return "ships" if report.verdict.ships else "does not ship"
    return "baseline" if variant is report.variants[0] else ""


def table_rows(report: Report) -> list[Row]:
    """Every row that has a value in at least one variant."""
    rows = _size_rows(report) + _quality_rows(report) + _speed_rows(report)
    return [row for row in rows if any(cell != Cell() for cell in row.cells)]


def _share(share: float | None) -> Cell:
    return Cell() if share is None else Cell(value=percent(share))


def _size_rows(report: Report) -> list[Row]:
    variants = report.variants
    coverage = [v.quantization.coverage_macs if v.quantization else None for v in variants]
    return [
        Row("Size", "size, MB", [plain(v.size_bytes, 1e6) for v in variants]),
        Row("Size", "parameters, M", [plain(v.parameters, 1e6) for v in variants]),
        Row("Size", "MACs, G", [plain(v.macs, 1e9) for v in variants]),
        Row("Size", "MACs in integers", [_share(share) for share in coverage]),
    ]


def direction(report: Report, metric: str, field: str = "quality") -> str:
    """`up is better` or `down is better`, as the first variant that has the metric says."""
    by_variant: list[dict[str, Score]] = [getattr(variant, field) for variant in report.variants]
    higher = next((scores[metric].higher_is_better for scores in by_variant if metric in scores), True)
    return "up is better" if higher else "down is better"


def _quality_rows(report: Report) -> list[Row]:
    def primary_first(field: str) -> list[str]:
        return sorted(names(report, field), key=lambda metric: metric != report.primary_metric)

    rows = []
    for m in primary_first("quality"):
        cells = [estimated(v.quality.get(m)) for v in report.variants]
        rows.append(Row("Quality", f"{m}, {direction(report, m)}", cells, m == report.primary_metric))
    fidelities = names(report, "fidelity")  # their drop is what they lack to 1: the same number twice
    for m in primary_first("drop_from_dense"):
        if m in fidelities and m != report.primary_metric:
            continue
        cells = [estimated(v.drop_from_dense.get(m)) for v in report.variants]
        rows.append(Row("Quality", f"drop in {m}", cells, m == report.primary_metric))
    for m in fidelities:
        cells = [estimated(v.fidelity.get(m)) for v in report.variants]
        rows.append(Row("Quality", f"{m} to dense, {direction(report, m, 'fidelity')}", cells))
    return rows


def latency_label(report: Report, workload: str) -> str:
    """What the p50 of a workload is: a prompt's is the time to the first token."""
    prompt = not Workload.parse(workload).past and any(
        workload in v.tokens_per_second for v in report.variants
    )
    return f"{'time to first token' if prompt else 'p50'} at {workload}, ms"


def _speed_rows(report: Report) -> list[Row]:
    def p50(latency: Latency | None) -> Cell:
        return estimated(Estimate(value=latency.p50, ci95=latency.ci95) if latency else None)

    def speedup(variant: Variant, workload: str) -> Cell:
        ratio = variant.speedup.get(workload)
        # dense over dense is 1 by definition, which is no finding
        return estimated(ratio) if variant is report.variants[0] else compared(ratio)

    variants = report.variants
    rows = [
        Row("Speed", latency_label(report, workload), [p50(v.latency_ms.get(workload)) for v in variants])
        for workload in names(report, "latency_ms")
    ]
    rows += [
        Row(
            "Speed",
            f"{'decode' if Workload.parse(workload).past else 'prefill'} at {workload}, tokens/s",
            [estimated(v.tokens_per_second.get(workload)) for v in variants],
        )
        for workload in names(report, "tokens_per_second")
    ]
    for workload in names(report, "bandwidth_share"):
        shares = [v.bandwidth_share.get(workload) for v in variants]
        rows.append(Row("Speed", f"of the memory's limit at {workload}", [_share(share) for share in shares]))
    rows += [
        Row("Speed", f"speed-up at {workload}, x", [speedup(v, workload) for v in variants])
        for workload in names(report, "speedup")
    ]
    return [
        *rows,
        Row("Speed", "peak memory, MB", [plain(v.peak_memory_bytes, 1e6) for v in variants]),
        Row("Speed", "load, ms", [plain(v.load_ms) for v in variants]),
    ]


def console_summary(report: Report, width: int) -> Group:
    """What a run prints at its end: the table, the verdict with its reasons, why it is not faster, noise."""
    verdict, noise = report.verdict, noise_advice(report)
    word = "ships" if verdict.ships else "does not meet the budget"
    headline = Text.assemble((verdict.best, "green" if verdict.ships else "yellow"), f" {word}:")
    doubts = [Text.assemble("  ", ("noise:", "yellow"), f" {line}") for line in noise]
    why = [
        Text.assemble("  ", (f"not faster at {workload}:", "yellow"), f" {sentence}")
        for variant in report.variants
        if variant.name == verdict.best
        for workload, sentences in variant.not_faster.items()
        for sentence in sentences
    ]
    lines = [Text(f"  - {line}") for line in reasons(verdict)]
    return Group(console_table(report, width), headline, *lines, *why, *doubts)


def console_table(report: Report, width: int) -> Table:
    rows = table_rows(report)
    header = ["", *("\n".join(filter(None, (v.name, mark(report, v)))) for v in report.variants)]
    lines = [
        Line(
            cells=(Cell(value=row.label), *row.cells),
            label_style="bold" if row.primary else "",
            starts_section=i > 0 and row.group != rows[i - 1].group,
        )
        for i, row in enumerate(rows)
    ]
    return console_grid(report.experiment, header, lines, width, label_widths=_LABEL_WIDTHS)


def markdown_table(report: Report) -> str:
    headers = [f"{v.name} ({mark(report, v)})" if mark(report, v) else v.name for v in report.variants]
    rows = [(row.label, *(cell.text() for cell in row.cells)) for row in table_rows(report)]
    return markdown_grid(("", *headers), rows, numbers=True)

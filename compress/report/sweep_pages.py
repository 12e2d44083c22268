"""report.md and report.html of a sweep: the same statements and tables twice."""

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from compress.report.format import interval, number
from compress.report.grid import Cell, escape_markdown, markdown_grid, markdown_list
from compress.report.html import templates
from compress.report.sweep_table import SweepRow, baseline_cells, headers, rows
from compress.schema.sweep import Domination, Front, Kind, Sweep

_TITLES: dict[Kind, str] = {
    "latency": "Quality against latency",
    "size": "Quality against size",
    "memory": "Quality against peak memory",
}
HOW_COMPARED = (
    "Every point was timed in a run of its own, beside the dense model: what compares between points is the "
    "speed-up over the dense model of the same run. A latency here is the dense model's p50, its median over "
    "all runs, divided by that speed-up."
)
HOW_CHOSEN = (
    "Every point was evaluated on the test split: the numbers of the best of {} points, chosen by them, "
    "are optimistic. compress search chooses on the select split and uses test once."
)
HOW_CERTAIN = (
    "A domination is certain where the 95 % intervals of the two points overlap neither in latency nor in "
    "drop; else it holds for the point estimates only. Size and peak memory have no interval and count as "
    "exact."
)


def headline(sweep: Sweep) -> str:
    if sweep.ships:
        return f"Fastest that meets the budget: #{sweep.ships[0]}"
    return "No point meets the budget" if any(p.kept for p in sweep.points) else "No point has a result"


def findings(sweep: Sweep) -> Iterator[str]:
    """What a reader wants first, a sentence each."""
    if sweep.ships:
        best = sweep.point(sweep.ships[0])
        yield f"#{best.number}: {', '.join(best.overrides) or 'no overrides'}."
        if best.kept:
            facts = [f"{interval(s.value, s.ci95)} x at {w}" for w, s in best.kept.speedup.items()]
            if drop := best.kept.drop:
                facts.append(f"drop {interval(drop.value, drop.ci95)} in {sweep.primary_metric}")
            yield f"#{best.number} against the dense model: {', '.join(facts)}." if facts else ""
        yield f"Meet the budget, fastest first: {numbers(sweep.ships)}."
        if sweep.not_told_apart:
            yield f"May be as fast as #{best.number}, the intervals overlap: {numbers(sweep.not_told_apart)}."
    nowhere = [
        p.number
        for p in sweep.points
        if p.kept and not any(p.number in front.members for front in sweep.fronts)
    ]
    if nowhere and sweep.fronts:
        yield f"On no front: {numbers(nowhere)}."
    for same in sweep.same_settings:
        yield f"The same settings: {numbers(same)}."
    if (measured := sum(point.kept is not None for point in sweep.points)) > 1:
        yield HOW_CHOSEN.format(measured)
    yield from sweep.doubts


def numbers(points: Sequence[int]) -> str:
    return ", ".join(f"#{number}" for number in points) or "none"


def counts(sweep: Sweep) -> str:
    states = [point.status for point in sweep.points]
    parts = [f"{states.count(s)} {s}" for s in ("done", "failed", "running") if s in states]
    return f"{len(states)} point{'s' if len(states) > 1 else ''}: {', '.join(parts)}"


def dense_spread(sweep: Sweep) -> str:
    """How far the runs agree about one and the same model."""
    if sweep.baseline is None or not sweep.baseline.latency_ms:
        return ""
    ranges = sweep.baseline.latency_range_ms
    spread = (f"{number(low)} to {number(high)} ms at {w}" for w, (low, high) in ranges.items())
    return f"p50 of the dense model over the runs: {', '.join(spread)}."


def front_lines(sweep: Sweep, front: Front) -> Iterator[str]:
    dense = sweep.baseline.name if sweep.baseline else "dense"
    cost, drop = (number(value) for value in front.reference)
    least = {"latency": "fastest", "size": "smallest", "memory": "least memory"}[front.kind]
    yield f"On the front, {least} first: {numbers(front.members)}."
    yield (
        f"Hypervolume {number(front.hypervolume)} {front.unit} x drop, between the front and the reference "
        f"{cost} {front.unit} (the {dense} model), {drop} (the worst drop seen)."
    )
    if front.beaten_by_dense:
        yield f"No better than the {dense} model itself: {numbers(front.beaten_by_dense)}."
    if front.missing:
        yield f"Not measured: {numbers(front.missing)}."


def _by_kind(sweep: Sweep) -> list[tuple[Kind, str, list[Front]]]:
    fronts = {kind: [front for front in sweep.fronts if front.kind == kind] for kind in _TITLES}
    return [(kind, title, fronts[kind]) for kind, title in _TITLES.items() if fronts[kind]]


def tag(sweep: Sweep, row: SweepRow) -> str:
    """What to know of a row beside its numbers."""
    others = [
        n for same in sweep.same_settings if row.point.number in same for n in same if n != row.point.number
    ]
    return f"same settings as {numbers(others)}" if others else ""


# ---------------------------------------------------------------- Markdown


def sweep_markdown(sweep: Sweep, figures: Mapping[str, str]) -> str:
    """`figures`: svg text by name, beside the report in files of these names; empty where there is none."""
    parts = [
        f"# {escape_markdown(sweep.experiment)}: {counts(sweep)}",
        f"**{headline(sweep)}**",
        markdown_list(findings(sweep)),
        *_points(sweep),
        *_unfinished(sweep),
        "## Settings\n\n![Settings](settings.svg)" if figures["settings"] else "",
        f"## Pareto fronts\n\n{HOW_CERTAIN}" if sweep.fronts else "",
    ]
    for kind, title, fronts in _by_kind(sweep):
        parts.append(f"![{title}](pareto_{kind}.svg)")
        for front in fronts:
            title = f"### Drop against {escape_markdown(front.cost)}"
            parts += [title, markdown_list(front_lines(sweep, front))]
            parts.append(markdown_list(f"#{d.number}: {d.why} ({how_sure(d)})" for d in front.dominated))
    return "\n\n".join(part for part in parts if part) + "\n"


def how_sure(domination: Domination) -> str:
    return "certain" if domination.certain else "point estimates only"


def _points(sweep: Sweep) -> list[str]:
    if sweep.baseline is None:
        return []
    header = ("point", *sweep.varying, *headers(sweep), "verdict", "on the front against")
    blank = [""] * len(sweep.varying)
    cells = [cell.text() for cell in baseline_cells(sweep, sweep.baseline)]
    lines: list[list[str | Cell]] = [[sweep.baseline.name, *blank, *cells, "baseline", ""]]
    for row in rows(sweep):
        n = row.point.number
        link = Cell(value=f"#{n}", link=f"{n}/report.html", note=tag(sweep, row))
        lines.append([link, *row.settings, *map(_in_line, row.cells), row.verdict, row.fronts])
    legend = [
        f"Fastest at {sweep.workloads[0]} first." if sweep.workloads else "",
        HOW_COMPARED,
        dense_spread(sweep),
        f"All points: {', '.join(sweep.fixed)}." if sweep.fixed else "",
    ]
    return ["## Points", markdown_grid(header, lines), *map(escape_markdown, legend)]


def _in_line(cell: Cell) -> str:
    """A latency and, in brackets, the speed-up that it comes from."""
    return cell.text("{value} ({interval}, {word})" if cell.word else "{value} {interval}")


def _unfinished(sweep: Sweep) -> list[str]:
    lines = [
        (Cell(value=f"#{p.number}", link=f"{p.number}/"), p.status, ", ".join(p.overrides), p.error or "")
        for p in sweep.points
        if p.kept is None
    ]
    title = "## Points without a result"
    return [title, markdown_grid(("point", "status", "settings", "error"), lines)] if lines else []


# ---------------------------------------------------------------- HTML


def sweep_html(sweep: Sweep, figures: Mapping[str, str]) -> str:
    return (
        templates()
        .get_template("sweep.html.j2")
        .render(
            sweep=sweep,
            counts=counts(sweep),
            headline=headline(sweep),
            findings=[line for line in findings(sweep) if line],
            headers=headers(sweep),
            baseline=baseline_cells(sweep, sweep.baseline) if sweep.baseline else (),
            rows=[(row, tag(sweep, row)) for row in rows(sweep)],
            unfinished=[point for point in sweep.points if point.kept is None],
            sections=[
                (kind, title, [(front, list(front_lines(sweep, front))) for front in fronts])
                for kind, title, fronts in _by_kind(sweep)
            ],
            how_compared=HOW_COMPARED,
            how_certain=HOW_CERTAIN,
            how_sure=how_sure,
            spread=dense_spread(sweep),
            # Our own SVG is the only text that is not escaped: matplotlib escapes the names inside it.
            figures={name: Markup(svg) for name, svg in figures.items()},
        )
    )

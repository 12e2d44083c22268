"""What `compress bench` prints."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.graph.untrusted import Graph
from compress.report.format import MISSING, interval, megabytes, number, speed_word

if TYPE_CHECKING:
    from compress.benchmark.speed import Speed


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")  # no number is cut
    return table


def show(speed: "Speed", graphs: Mapping[str, Graph], workloads: Sequence[str], console: Console) -> None:
    names, unit = list(graphs), "tokens/s" if speed.tokens else "a second"
    for workload in workloads:
        table = _table("", "p50 [95 %], ms", "p90", "p99", unit, "speed-up [95 %]", title=workload)
        for name in names:
            latency, ratio = speed.latency_ms[name][workload], speed.speedup.get(name, {}).get(workload)
            table.add_row(
                Text(name),
                interval(latency.p50, latency.ci95),
                number(latency.p90),
                number(latency.p99),
                number(speed.throughput_per_second[name][workload]),
                "baseline" if ratio is None else f"{interval(ratio.value, ratio.ci95)} {speed_word(ratio)}",
            )
        console.print(table)
    energy = "joules a call" if speed.energy_joules else "CPU ms a call"
    table = _table("", "size, MB", "load, ms", "first run, ms", "peak, MB", "steady, MB", energy)
    for name in names:
        spent = speed.energy_joules[name] if speed.energy_joules else speed.cpu_ms.get(name, {})
        steady = speed.steady_memory_bytes.get(name)
        table.add_row(
            Text(name),
            megabytes(graphs[name].size_bytes),
            number(speed.load_ms[name]),
            ", ".join(number(speed.first_run_ms[name][workload]) for workload in workloads),
            megabytes(speed.peak_memory_bytes[name]),
            MISSING if steady is None else megabytes(steady),
            ", ".join(number(spent[workload]) for workload in workloads if workload in spent) or MISSING,
        )
    console.print(table)
    if not speed.energy_joules:
        console.print("[dim]no energy counter here: CPU time of all threads stands in for it[/]")
    for reason in speed.noise:
        console.print(f"[yellow]noise[/]: {reason}", highlight=False, soft_wrap=True)
    if not speed.noise:
        console.print("noise: none seen")
    console.print(_environment(speed), highlight=False, soft_wrap=True, markup=False)


def _environment(speed: "Speed") -> str:
    machine, session = speed.machine, speed.machine["session"]
    runtime = machine["runtime"]
    chosen = [session[key] for key in ("optimization_level", "precision") if key in session]
    return (
        f"{machine['model']}, {session['threads']} threads, {runtime['distribution']} {runtime['version']}, "
        f"{', '.join([*chosen, *session['providers']])}; "
        f"{machine['seconds']:.0f} s, stopped by {'precision' if machine['stopped'] == 'precise' else 'time'}"
    )

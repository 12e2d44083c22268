"""What the reports say of `target.tune=true`: what was tried on the target, and what is kept."""

from compress.report.format import MISSING, interval
from compress.report.section import Section
from compress.schema.report import Report
from compress.schema.speed import Tried


def tuning_section(report: Report) -> Section:
    title, tuning = "What was tried on the target", report.tuning
    if tuning is None:
        return Section("tuning", title)
    workloads = list(dict.fromkeys(name for each in tuning.tried for name in each.speedup))
    header = ("", "tried", "beside", *workloads, f"drop in {report.primary_metric} on select", "result")
    rows = [_row(each, workloads) for each in tuning.tried]
    lines = (
        "Times as fast as what was kept until then, timed in one job. A candidate is kept where the interval "
        "of the mean over all workloads lies above 1 and that of none below, and where its numbers are the "
        "same but for rounding, or its quality on select allows it; more threads where they are faster in "
        "every one of the fresh processes.",
        _choice(report),
    )
    return Section("tuning", title, header, rows, lines)


def tuning_line(report: Report) -> str:
    """One sentence; empty where nothing was tried."""
    return _choice(report) if report.tuning else ""


def _choice(report: Report) -> str:
    assert report.tuning
    words = [f"{name}={_word(value)}" for name, value in report.tuning.chosen.items()]
    tried = f"Of {len(report.tuning.tried)} candidates timed or checked on the target"
    threads = report.tuning.dense_threads
    dense = f"the dense model was timed with {threads} thread{'s' * (threads > 1)}, its fastest"
    if not words:
        return f"{tried} none was kept: it runs as it was asked for; {dense}."
    return f"{tried} these are kept, with which all numbers were taken: {' '.join(words)}; {dense}."


def _word(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value).lower()


def _row(tried: Tried, workloads: list[str]) -> tuple[str, ...]:
    ratios = [
        interval(tried.speedup[name].value, tried.speedup[name].ci95) if name in tried.speedup else MISSING
        for name in workloads
    ]
    drop = interval(tried.drop.value, tried.drop.ci95) if tried.drop else MISSING
    result = "kept" if tried.kept else tried.reason or "a faster one is kept"
    return (tried.kind, tried.name, tried.beside, *ratios, drop, result)

"""The report of a sweep, from the files of its points only, so that it can be made again at any time.

A sweep's folder holds a folder a point, named 0, 1, ...; each holds `point.json` (overrides, status, error)
and, where the point is done, the `report.json` of its run.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compress.errors import ArtifactError
from compress.judge.sweep_fronts import fronts
from compress.report.section import best_variant
from compress.schema.estimates import Estimate
from compress.schema.report import Report
from compress.schema.sweep import Baseline, Kept, Point, Status, Sweep, setting_value


@dataclass(frozen=True, kw_only=True)
class _PointFile:
    overrides: list[str]
    status: Status
    error: str | None = None


_POINT = TypeAdapter(_PointFile)


def read_sweep(folder: Path) -> Sweep:
    """Raises ArtifactError when `folder` holds no point; a damaged point is one that failed."""
    numbers = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.is_dir() and _numbered(path))
    if not numbers:
        raise ArtifactError(
            f"no sweep in {folder}",
            found="no folder 0, 1, ... of a point",
            next="name the folder of a sweep, as `compress run -m` printed it",
        )
    read = [_read_point(folder, number) for number in numbers]
    return summarise([point for point, _ in read], {p.number: report for p, report in read if report})


def _numbered(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and str(int(path.name)) == path.name


def _read_point(folder: Path, number: int) -> tuple[Point, Report | None]:
    path = folder / str(number)
    try:
        record = _POINT.validate_json((path / "point.json").read_bytes())
    except (OSError, ValidationError):
        error = "point.json is missing or damaged"
        return Point(number=number, overrides=(), settings={}, status="failed", error=error), None
    point = Point(
        number=number,
        overrides=tuple(record.overrides),
        settings=_settings(record.overrides),
        status=record.status,
        error=record.error,
    )
    if point.status != "done":
        return point, None
    try:
        return point, Report.load(path / "report.json")
    except ArtifactError:
        error = "the point is done, but its report.json is missing, damaged or of another version"
        return replace(point, status="failed", error=error), None


def _settings(overrides: Iterable[str]) -> dict[str, str]:
    """`["+prune.keep=0.5"] -> {"prune.keep": "0.5"}`; Hydra lets the last of a key win."""
    pairs = (override.partition("=") for override in overrides)
    return {key.strip().lstrip("+"): value.strip() for key, _, value in pairs}


# ---------------------------------------------------------------- what the points have in common


def summarise(points: Sequence[Point], reports: dict[int, Report]) -> Sweep:
    """`reports`: of the points that are done, by number."""
    reports = by_target(reports)
    runs = list(reports.values())
    metric = runs[0].primary_metric if runs else ""
    workloads = tuple(
        dict.fromkeys(w for run in runs for variant in run.variants for w in variant.latency_ms)
    )
    baseline = _baseline(runs, metric, workloads) if runs else None
    one_dense = _same_dense(runs, metric)
    points = [
        replace(p, kept=_kept(reports[p.number], metric, baseline if one_dense else None))
        if p.number in reports
        else p
        for p in points
    ]
    ships, not_told_apart = _ships(points, workloads)
    varying = _varying(points)
    known = [point for point in points if point.overrides]
    return Sweep(
        experiment=runs[0].experiment if runs else "sweep",
        primary_metric=metric,
        points=tuple(points),
        varying=varying,
        fixed=tuple(f"{k}={v}" for k, v in known[0].settings.items() if k not in varying) if known else (),
        workloads=workloads,
        baseline=baseline,
        max_drop=_max_drop(runs, baseline),
        fronts=tuple(fronts(points, baseline, workloads)) if baseline else (),
        ships=ships,
        not_told_apart=not_told_apart,
        same_settings=_same_settings(points),
        doubts=tuple(_doubts(runs, one_dense)),
    )


def by_target(reports: dict[int, Report]) -> dict[int, Report]:
    """Where the points were timed on several targets, each workload under the name of its target, so that the
    baseline, the fronts and the fastest are those of one target; else as they are."""
    targets = {report.options.get("target", "") for report in reports.values()}
    return reports if len(targets) < 2 else {number: _on_its_target(r) for number, r in reports.items()}


def _on_its_target(report: Report) -> Report:
    target = report.options.get("target", "")

    def named(of_workloads: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{workload} on {target}": value for workload, value in of_workloads.items()}

    variants = (
        replace(variant, latency_ms=named(variant.latency_ms), speedup=named(variant.speedup))
        for variant in report.variants
    )
    return replace(report, variants=tuple(variants))


def _same_dense(runs: Sequence[Report], metric: str) -> bool:
    """Not by the digest: two exports of one model may differ in a name, two machines in the last digits."""
    every = [run.variants[0] for run in runs]
    scores = [score.value for dense in every if (score := dense.score(metric))]
    same_score = not scores or math.isclose(min(scores), max(scores), rel_tol=1e-3, abs_tol=1e-6)
    return len({dense.parameters for dense in every}) <= 1 and same_score


def _baseline(runs: Sequence[Report], metric: str, workloads: Sequence[str]) -> Baseline:
    dense_models = [run.variants[0] for run in runs]
    times = {w: [v.latency_ms[w].p50 for v in dense_models if w in v.latency_ms] for w in workloads}
    memory = [v.peak_memory_bytes for v in dense_models if v.peak_memory_bytes is not None]
    return Baseline(
        name=dense_models[0].name,
        quality=dense_models[0].score(metric),
        size_bytes=dense_models[0].size_bytes,
        peak_memory_bytes=statistics.median(memory) if memory else None,
        latency_ms={w: statistics.median(p50s) for w, p50s in times.items() if p50s},
        latency_range_ms={w: (min(p50s), max(p50s)) for w, p50s in times.items() if p50s},
    )


def _kept(report: Report, metric: str, baseline: Baseline | None) -> Kept:
    """Without a baseline in common that was timed, latencies stay as they were timed."""
    best, dense = best_variant(report), report.variants[0]
    drop, speedup = best.drop_from_dense.get(metric), best.speedup
    if best is dense:  # it neither drops nor gains
        drop = Estimate(value=0.0, ci95=(0.0, 0.0))
        speedup = {workload: Estimate(value=1.0, ci95=(1.0, 1.0)) for workload in dense.latency_ms}
    own = {w: Estimate(value=latency.p50, ci95=latency.ci95) for w, latency in best.latency_ms.items()}
    return Kept(
        variant=best.name,
        verdict=report.verdict,
        quality=best.score(metric),
        drop=drop,
        size_bytes=best.size_bytes,
        peak_memory_bytes=best.peak_memory_bytes,
        latency_ms=best.latency_ms,
        speedup=speedup,
        comparable_ms=_divided(baseline.latency_ms, speedup) if baseline and baseline.latency_ms else own,
    )


def _divided(dense_ms: dict[str, float], speedup: dict[str, Estimate]) -> dict[str, Estimate]:
    return {
        w: Estimate(value=dense_ms[w] / s.value, ci95=(dense_ms[w] / s.ci95[1], dense_ms[w] / s.ci95[0]))
        for w, s in speedup.items()
        if w in dense_ms and s.ci95[0] > 0
    }


def _max_drop(runs: Sequence[Report], baseline: Baseline | None) -> float | None:
    """The budget is a share of dense's score."""
    allowed = {(run.config.get("budget") or {}).get("max_quality_drop") for run in runs}
    if len(allowed) != 1 or baseline is None or baseline.quality is None:
        return None
    (share,) = allowed
    return None if share is None else float(share) * abs(baseline.quality.value)


def _ships(points: Sequence[Point], workloads: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Points that meet the budget by the latency of the first workload, and the rivals of the fastest."""
    workload = workloads[0] if workloads else ""
    shipping = [
        (p.number, p.kept.comparable_ms.get(workload)) for p in points if p.kept and p.kept.verdict.ships
    ]
    shipping.sort(key=lambda item: (item[1] is None, item[1].value if item[1] else 0.0, item[0]))
    numbers = tuple(number for number, _ in shipping)
    if not shipping or shipping[0][1] is None:
        return numbers, ()
    high = shipping[0][1].ci95[1]
    return numbers, tuple(n for n, latency in shipping[1:] if latency and latency.ci95[0] <= high)


def _varying(points: Sequence[Point]) -> tuple[str, ...]:
    known = [point.settings for point in points if point.overrides]
    keys = dict.fromkeys(key for settings in known for key in settings)
    return tuple(key for key in keys if len({setting_value(settings.get(key)) for settings in known}) > 1)


def _same_settings(points: Sequence[Point]) -> tuple[tuple[int, ...], ...]:
    groups: dict[frozenset[tuple[str, float | str | None]], list[int]] = defaultdict(list)
    for point in points:
        if point.overrides:
            groups[frozenset((k, setting_value(v)) for k, v in point.settings.items())].append(point.number)
    return tuple(tuple(numbers) for numbers in groups.values() if len(numbers) > 1)


def _doubts(runs: Sequence[Report], one_dense: bool) -> Iterable[str]:
    if not one_dense:
        yield (
            "The points do not start from the same dense model: each drop is from the point's own, and the "
            "latencies are as timed in its own run."
        )
    if len({run.primary_metric for run in runs}) > 1:
        yield (
            "The points do not have the same primary metric; a drop is shown where that of the first was "
            "measured."
        )
    tests = {run.splits["test"].fingerprint for run in runs if "test" in run.splits}
    if len(tests) > 1:
        yield "The points were not evaluated on the same test split."
    machines = {(str(e["cpu"]), str(e.get("threads"))) for run in runs if "cpu" in (e := run.environment)}
    if len(machines) > 1 and len({run.options.get("target", "") for run in runs}) == 1:
        yield "The points were not timed on the same processor with the same number of threads: " + "; ".join(
            f"{cpu}, {threads} threads" for cpu, threads in sorted(machines)
        )

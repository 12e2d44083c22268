"""Figures as SVG text, the same bytes for the same report: no pyplot, no date, no random ids."""

from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from compress.report.figure import (
    BUDGET,
    GREY,
    PALETTE,
    STYLE,
    beside,
    colors,
    draw_budget,
    error_bar,
    label_points,
    name_rows,
    panels,
    single,
    svg,
)
from compress.report.format import duration, number
from compress.report.section import names
from compress.report.sections import curves
from compress.report.table import direction
from compress.report.timing import kind_ms
from compress.schema.report import Report
from compress.schema.speed import KINDS

_KIND_COLORS = dict(
    zip(
        KINDS,
        ("#0072b2", "#64748b", "#d55e00", "#b91c1c", "#009e73", "#b6549a", "#c98a00", "#7dbde8", "#cbd5e1"),
        strict=True,
    )
)


# ---------------------------------------------------------------- quality against cost


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Where the variants stand on the axis of quality."""

    label: str
    points: dict[str, tuple[float, tuple[float, float]]]  # name -> value and its interval
    budget: float | None = None


def quality_axis(report: Report) -> Quality:
    """Change from dense with its paired interval: what the verdict is about, and far narrower than the
    intervals of the scores themselves. Scores where a drop was not measured."""
    metric = report.primary_metric
    dense, *others = report.variants
    if others and all(metric in variant.drop_from_dense for variant in others):
        drops = {variant.name: variant.drop_from_dense[metric] for variant in others}
        points = {name: (-d.value, (-d.ci95[1], -d.ci95[0])) for name, d in drops.items()}
        allowed = (report.config.get("budget") or {}).get("max_quality_drop")  # relative to dense
        budget = None
        if allowed is not None and metric in dense.quality:
            budget = -float(allowed) * abs(dense.quality[metric].value)
        return Quality(
            label=f"change of {metric} from dense (up is better)",
            points={dense.name: (0.0, (0.0, 0.0)), **points},
            budget=budget,
        )
    scores = {v.name: v.quality[metric] for v in report.variants if metric in v.quality}
    points = {name: (score.value, score.ci95) for name, score in scores.items()}
    return Quality(label=f"{metric} ({direction(report, metric)})", points=points)


@mpl.rc_context(STYLE)
def tradeoff(report: Report) -> str:
    """Quality against p50 at every workload and against size; empty where no quality was measured."""
    quality = quality_axis(report)
    drawn = [variant for variant in report.variants if variant.name in quality.points]
    if not drawn:
        return ""
    workloads = names(replace(report, variants=tuple(drawn)), "latency_ms")
    figure, axes = panels(len(workloads) + 1, 2, 3.3)
    for axis, workload in zip(axes, workloads, strict=False):
        latency = {v.name: v.latency_ms[workload] for v in drawn if workload in v.latency_ms}
        cost = {name: (times.p50, times.ci95) for name, times in latency.items()}
        _scatter(axis, report, quality, cost)
        axis.set_title(f"against latency at {workload}")
        axis.set_xlabel("p50, ms")
    sizes = {v.name: (v.size_bytes / 1e6, (v.size_bytes / 1e6,) * 2) for v in drawn}
    _scatter(axes[-1], report, quality, sizes)
    axes[-1].set_title("against size")
    axes[-1].set_xlabel("size, MB")
    figure.supylabel(quality.label, fontsize=10, color="#334155")
    label_points(figure, axes, quality.budget)
    return svg(figure, "tradeoff")


def _scatter(
    axis: Axes, report: Report, quality: Quality, cost: dict[str, tuple[float, tuple[float, float]]]
) -> None:
    palette = colors(report)
    dense = report.variants[0].name
    for name, (x, x_interval) in cost.items():
        y, y_interval = quality.points[name]
        best = name == report.verdict.best
        axis.errorbar(
            x,
            y,
            xerr=error_bar(x, x_interval),
            yerr=error_bar(y, y_interval),
            fmt="D" if best else "o",
            markersize=9 if best else 7,
            markerfacecolor="white" if name == dense else palette[name],
            markeredgewidth=1.6,
            color=palette[name],
            elinewidth=1.3,
            capsize=3,
            label=name,
        )
    axis.set_xlim(0, max(x_high for _, (_, x_high) in cost.values()) * 1.12)
    axis.margins(y=0.12)
    axis.grid(True)
    if quality.budget is not None:
        draw_budget(axis, quality.budget)
        axis.annotate(
            "budget: the whole bar stays above",
            (0.01, quality.budget),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            color=BUDGET,
            fontsize=8.5,
        )


# ---------------------------------------------------------------- bars


@mpl.rc_context(STYLE)
def latency(report: Report) -> str:
    """p50 with its interval, p90 and p99 of every variant, a panel per workload; empty without timings."""
    workloads = names(report, "latency_ms")
    if not workloads:
        return ""
    palette = colors(report)
    figure, axes = panels(len(workloads), 3, 0.9 + 0.42 * len(report.variants))
    for i, (axis, workload) in enumerate(zip(axes, workloads, strict=True)):
        for y, variant in enumerate(report.variants):
            if (times := variant.latency_ms.get(workload)) is None:
                continue
            axis.barh(y, times.p50, height=0.6, color=palette[variant.name], alpha=0.85)
            axis.errorbar(
                times.p50,
                y,
                xerr=error_bar(times.p50, times.ci95),
                color="#0f172a",
                capsize=3,
                elinewidth=1.2,
            )
            axis.plot([times.p50, times.p99], [y, y], color=palette[variant.name], linewidth=1)
            axis.plot(times.p90, y, "|", color="#0f172a", markersize=9)
            axis.plot(times.p99, y, "o", color=palette[variant.name], markersize=4)
            beside(axis, 0, y, number(times.p50), color="white", fontweight="bold")
        name_rows(axis, [variant.name if i % 3 == 0 else "" for variant in report.variants])
        axis.set_xlim(left=0)
        axis.set_title(workload)
        axis.set_xlabel("ms")
    return svg(figure, "latency")


@mpl.rc_context(STYLE)
def operators(report: Report) -> str:
    """Milliseconds a call by class of operators, a bar per variant, a panel per workload."""
    workloads = names(report, "profile")
    if not workloads:
        return ""
    figure, axes = panels(len(workloads), 2, 1.5 + 0.42 * len(report.variants))
    drawn: dict[str, Any] = {}
    for i, (axis, workload) in enumerate(zip(axes, workloads, strict=True)):
        for y, variant in enumerate(report.variants):
            left = 0.0
            for kind, ms in kind_ms(variant, workload).items():
                bar = axis.barh(y, ms, left=left, height=0.6, color=_KIND_COLORS[kind], edgecolor="white",
                                linewidth=0.6)  # fmt: skip
                drawn.setdefault(kind, bar)
                left += ms
            if left:
                beside(axis, left, y, number(left))
        name_rows(axis, [variant.name if i % 2 == 0 else "" for variant in report.variants])
        axis.margins(x=0.14)
        axis.set_xlim(left=0)
        axis.set_title(workload)
        axis.set_xlabel("ms in operators")
    shown = [kind for kind in KINDS if kind in drawn]
    figure.legend([drawn[kind] for kind in shown], shown, loc="outside upper left", ncols=5, fontsize=9)
    return svg(figure, "operators")


@mpl.rc_context(STYLE)
def stages(report: Report) -> str:
    """Seconds per stage; a reused stage is pale."""
    if not report.stages:
        return ""
    figure, axis = single(0.6 + 0.32 * len(report.stages), 0.75)
    longest = max(stage.seconds for stage in report.stages)
    for y, stage in enumerate(report.stages):
        axis.barh(y, stage.seconds, height=0.65, color="#cbd5e1" if stage.reused else PALETTE[0])
        text = f"{duration(stage.seconds)}{', reused' if stage.reused else ''}"
        beside(axis, stage.seconds, y, text)
    axis.set_yticks(range(len(report.stages)), [stage.name for stage in report.stages])
    axis.invert_yaxis()
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, longest * 1.2 or 1)
    axis.set_xlabel("s")
    axis.grid(True, axis="x")
    return svg(figure, "stages")


# ---------------------------------------------------------------- training curve


@mpl.rc_context(STYLE)
def training(report: Report) -> str:
    """Losses by step, on a logarithmic axis where they allow one; empty without a curve."""
    points_by_name = curves(report)
    if not points_by_name:
        return ""
    figure, axis = single(3.0, 0.75)
    for name, points in points_by_name.items():
        steps, losses = zip(*points, strict=True)
        color = GREY if name == "train" else PALETTE[0]
        axis.plot(steps, losses, marker="o", markersize=3.5, linewidth=1.6, color=color, label=name)
    every = [loss for points in points_by_name.values() for _, loss in points]
    if min(every) > 0 and max(every) > 10 * min(every):
        axis.set_yscale("log")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.grid(True)
    axis.legend()
    return svg(figure, "training")

"""Figures as SVG text, the same bytes for the same report: no pyplot, no date, no random ids."""

import io
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from compress.report.format import duration, number
from compress.report.sections import curve, kind_ms, profiled
from compress.report.table import direction
from compress.schema.report import KINDS, Report

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compress",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "text.color": "#1e293b",
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "legend.frameon": False,
}
_GREY = "#64748b"
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b6549a", "#c98a00", "#3b9ad1")  # Okabe-Ito, darkened
_BUDGET = "#b91c1c"
_KIND_COLORS = dict(
    zip(
        KINDS,
        ("#0072b2", "#64748b", "#d55e00", "#b91c1c", "#009e73", "#b6549a", "#c98a00", "#7dbde8", "#cbd5e1"),
        strict=True,
    )
)
_WIDTH = 11.0  # inches of a whole line of the page


def colors(report: Report) -> dict[str, str]:
    """Grey for dense; every other variant keeps its colour through all figures."""
    dense, *others = (variant.name for variant in report.variants)
    return {dense: _GREY, **{name: _PALETTE[i % len(_PALETTE)] for i, name in enumerate(others)}}


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # Several figures share a page, where an id may occur only once.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    return re.sub(r'href="#', f'href="#{name}-', svg)


def _panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_WIDTH, height * rows), layout=ConstrainedLayoutEngine(h_pad=0.1))
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


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


def tradeoff(report: Report) -> str:
    """Quality against p50 at every workload and against size; empty where no quality was measured."""
    quality = quality_axis(report)
    drawn = [variant for variant in report.variants if variant.name in quality.points]
    if not drawn:
        return ""
    workloads = list(dict.fromkeys(name for variant in drawn for name in variant.latency_ms))
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(len(workloads) + 1, 2, 3.3)
        for axis, workload in zip(axes, workloads, strict=False):
            latency = {v.name: v.latency_ms[workload] for v in drawn if workload in v.latency_ms}
            cost = {name: (found.p50, found.ci95) for name, found in latency.items()}
            _scatter(axis, report, quality, cost)
            axis.set_title(f"against latency at {workload}")
            axis.set_xlabel("p50, ms")
        sizes = {v.name: (v.size_bytes / 1e6, (v.size_bytes / 1e6,) * 2) for v in drawn}
        _scatter(axes[-1], report, quality, sizes)
        axes[-1].set_title("against size")
        axes[-1].set_xlabel("size, MB")
        figure.supylabel(quality.label, fontsize=10, color="#334155")
        _label_points(figure, axes, quality.budget)
        return _svg(figure, "tradeoff")


def _scatter(
    axis: Axes, report: Report, quality: Quality, cost: dict[str, tuple[float, tuple[float, float]]]
) -> None:
    palette = colors(report)
    dense = report.variants[0].name
    for name, (x, (x_low, x_high)) in cost.items():
        y, (y_low, y_high) = quality.points[name]
        best = name == report.verdict.best
        axis.errorbar(
            x,
            y,
            xerr=[[max(x - x_low, 0.0)], [max(x_high - x, 0.0)]],
            yerr=[[max(y - y_low, 0.0)], [max(y_high - y, 0.0)]],
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
        axis.axhline(quality.budget, color=_BUDGET, linestyle="--", linewidth=1.2)
        axis.annotate(
            "budget: the whole bar stays above",
            (0.01, quality.budget),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            color=_BUDGET,
            fontsize=8.5,
        )


# Offsets in points and alignments to try for a label, the preferred first.
_HEIGHTS = (8, -15, 20, -27, 32, -39, 44, -51)
_SIDES: tuple[tuple[int, Literal["left", "right"]], ...] = ((8, "left"), (-8, "right"))


def _label_points(figure: Figure, axes: Sequence[Axes], budget: float | None) -> None:
    """Names beside the points, each at the first place where it covers no other mark or name."""
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")  # else the labels would move the axes they were fitted to
    for axis in axes:
        taken = [text.get_window_extent(renderer) for text in axis.texts]
        for bars in axis.containers:
            marker, _, bar_lines = bars.lines  # type: ignore[attr-defined]
            taken.append(_extent(axis, marker.get_xydata()).padded(11))
            taken += [_extent(axis, ends).padded(3) for bar in bar_lines for ends in bar.get_segments()]
        frame = axis.get_window_extent(renderer)
        if budget is not None:
            _, line_y = axis.transData.transform((0, budget))
            taken.append(Bbox([[frame.x0, line_y - 2], [frame.x1, line_y + 2]]))
        for bars in axis.containers:
            line = bars.lines[0]  # type: ignore[attr-defined]
            x, y = float(line.get_xdata()[0]), float(line.get_ydata()[0])
            text = axis.annotate(
                str(bars.get_label()),
                (x, y),
                xytext=(0, 0),
                textcoords="offset points",
                color=line.get_color(),
                fontsize=9.5,
            )
            if line.get_marker() == "D":
                text.set_fontweight("bold")
            for dy, (dx, ha) in itertools.product(_HEIGHTS, _SIDES):
                text.set_position((dx, dy))
                text.set_horizontalalignment(ha)
                extent = text.get_window_extent(renderer)
                inside = frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0
                if inside and extent.y1 <= frame.y1 and not _overlaps(extent, taken):
                    break
            taken.append(text.get_window_extent(renderer).padded(4))


def _extent(axis: Axes, points: ArrayLike) -> Bbox:
    """The box around points given in data coordinates, in pixels."""
    pixels = axis.transData.transform(points)
    return Bbox([pixels.min(axis=0), pixels.max(axis=0)])


def _overlaps(extent: Bbox, taken: Sequence[Bbox]) -> bool:
    return any(Bbox.intersection(extent, other) is not None for other in taken)


# ---------------------------------------------------------------- bars


def _beside(axis: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axis.annotate(text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9, **style)


def latency(report: Report) -> str:
    """p50 with its interval, p90 and p99 of every variant, a panel per workload; empty without timings."""
    workloads = list(dict.fromkeys(name for variant in report.variants for name in variant.latency_ms))
    if not workloads:
        return ""
    palette = colors(report)
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(len(workloads), 3, 0.9 + 0.42 * len(report.variants))
        for i, (axis, workload) in enumerate(zip(axes, workloads, strict=True)):
            for y, variant in enumerate(report.variants):
                if (found := variant.latency_ms.get(workload)) is None:
                    continue
                low, high = found.ci95
                bar = [[max(found.p50 - low, 0.0)], [max(high - found.p50, 0.0)]]
                axis.barh(y, found.p50, height=0.6, color=palette[variant.name], alpha=0.85)
                axis.errorbar(found.p50, y, xerr=bar, color="#0f172a", capsize=3, elinewidth=1.2)
                axis.plot([found.p50, found.p99], [y, y], color=palette[variant.name], linewidth=1)
                axis.plot(found.p90, y, "|", color="#0f172a", markersize=9)
                axis.plot(found.p99, y, "o", color=palette[variant.name], markersize=4)
                _beside(axis, 0, y, number(found.p50), color="white", fontweight="bold")
            names = [variant.name for variant in report.variants]
            axis.set_yticks(range(len(names)), names if i % 3 == 0 else [""] * len(names))
            axis.set_ylim(len(names) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
            axis.set_xlim(left=0)
            axis.grid(True, axis="x")
            axis.set_title(workload)
            axis.set_xlabel("ms")
        return _svg(figure, "latency")


def operators(report: Report) -> str:
    """Milliseconds a call by class of operators, a bar per variant, a panel per workload."""
    workloads = profiled(report)
    if not workloads:
        return ""
    with mpl.rc_context(_STYLE):
        figure, axes = _panels(len(workloads), 2, 1.5 + 0.42 * len(report.variants))
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
                    _beside(axis, left, y, number(left))
            names = [variant.name for variant in report.variants]
            axis.set_yticks(range(len(names)), names if i % 2 == 0 else [""] * len(names))
            axis.set_ylim(len(names) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
            axis.margins(x=0.14)
            axis.set_xlim(left=0)
            axis.grid(True, axis="x")
            axis.set_title(workload)
            axis.set_xlabel("ms in operators")
        shown = [kind for kind in KINDS if kind in drawn]
        figure.legend([drawn[kind] for kind in shown], shown, loc="outside upper left", ncols=5, fontsize=9)
        return _svg(figure, "operators")


def stages(report: Report) -> str:
    """Seconds per stage; a reused stage is pale."""
    if not report.stages:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH * 0.75, 0.6 + 0.32 * len(report.stages)), layout="constrained")
        axis = figure.add_subplot()
        longest = max(stage.seconds for stage in report.stages)
        for y, stage in enumerate(report.stages):
            axis.barh(y, stage.seconds, height=0.65, color="#cbd5e1" if stage.reused else _PALETTE[0])
            text = f"{duration(stage.seconds)}{', reused' if stage.reused else ''}"
            _beside(axis, stage.seconds, y, text)
        axis.set_yticks(range(len(report.stages)), [stage.name for stage in report.stages])
        axis.invert_yaxis()
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, longest * 1.2 or 1)
        axis.set_xlabel("s")
        axis.grid(True, axis="x")
        return _svg(figure, "stages")


# ---------------------------------------------------------------- training curve


def training(report: Report) -> str:
    """Losses by step, on a logarithmic axis where they allow one; empty without a curve."""
    found = curve(report)
    if found is None:
        return ""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH * 0.75, 3.0), layout="constrained")
        axis = figure.add_subplot()
        every: list[float] = []
        pairs = (("train", found.train_loss, _GREY), ("select", found.select_loss, _PALETTE[0]))
        for name, losses, color in pairs:
            points = [(s, loss) for s, loss in zip(found.steps, losses, strict=True) if loss is not None]
            if points:
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, marker="o", markersize=3.5, linewidth=1.6, color=color, label=name)
                every += values
        if not every:
            return ""
        if min(every) > 0 and max(every) > 10 * min(every):
            axis.set_yscale("log")
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.grid(True)
        axis.legend()
        return _svg(figure, "training")

"""What all figures share: style, colours, panels, names beside points, and SVG text without ids that clash.

The same bytes for the same report: no pyplot, no date, no random ids.
"""

import io
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from compress.schema.report import Report

STYLE: dict[Any, Any] = {
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
GREY = "#64748b"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b6549a", "#c98a00", "#3b9ad1")  # Okabe-Ito, darkened
BUDGET = "#b91c1c"
WIDTH = 11.0  # inches of a whole line of the page


def colors(report: Report) -> dict[str, str]:
    """Grey for dense; every other variant keeps its colour through all figures."""
    dense, *others = (variant.name for variant in report.variants)
    return {dense: GREY, **{name: PALETTE[i % len(PALETTE)] for i, name in enumerate(others)}}


def svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Several figures share a page, where an id may occur only once.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    return re.sub(r'href="#', f'href="#{name}-', text)


def panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH, height * rows), layout=ConstrainedLayoutEngine(h_pad=0.1))
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def single(height: float, share: float = 1.0) -> tuple[Figure, Axes]:
    """One panel, as wide as this share of the page."""
    figure = Figure(figsize=(WIDTH * share, height), layout="constrained")
    return figure, figure.add_subplot()


def name_rows(axis: Axes, names: Sequence[str], **style: Any) -> None:
    """A row a name, the first on top, and lines to read lengths by."""
    axis.set_yticks(range(len(names)), names, **style)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(True, axis="x")


def error_bar(value: float, ci95: tuple[float, float]) -> list[list[float]]:
    """How far the interval reaches to either side, as matplotlib wants it."""
    return [[max(value - ci95[0], 0.0)], [max(ci95[1] - value, 0.0)]]


def draw_budget(axis: Axes, height: float) -> None:
    axis.axhline(height, color=BUDGET, linestyle="--", linewidth=1.2)


def beside(axis: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axis.annotate(text, (x, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9, **style)


# ---------------------------------------------------------------- names beside points

# Offsets in points and alignments to try for a label, the preferred first.
_HEIGHTS = (8, -15, 20, -27, 32, -39, 44, -51)
_SIDES: tuple[tuple[int, Literal["left", "right"]], ...] = ((8, "left"), (-8, "right"))


def label_points(figure: Figure, axes: Sequence[Axes], budget: float | None) -> None:
    """Names beside the points, each at the first place where it covers no other mark or name."""
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")  # else the labels would move the axes they were fitted to
    for axis in axes:
        occupied = [text.get_window_extent(renderer) for text in axis.texts]
        for bars in axis.containers:
            marker, _, bar_lines = bars.lines  # type: ignore[attr-defined]
            occupied.append(_extent(axis, marker.get_xydata()).padded(11))
            occupied += [_extent(axis, ends).padded(3) for bar in bar_lines for ends in bar.get_segments()]
        frame = axis.get_window_extent(renderer)
        if budget is not None:
            _, line_y = axis.transData.transform((0, budget))
            occupied.append(Bbox([[frame.x0, line_y - 2], [frame.x1, line_y + 2]]))
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
                if inside and extent.y1 <= frame.y1 and not _overlaps(extent, occupied):
                    break
            occupied.append(text.get_window_extent(renderer).padded(4))


def _extent(axis: Axes, points: ArrayLike) -> Bbox:
    """The box around points given in data coordinates, in pixels."""
    pixels = axis.transData.transform(points)
    return Bbox([pixels.min(axis=0), pixels.max(axis=0)])


def _overlaps(extent: Bbox, occupied: Sequence[Bbox]) -> bool:
    return any(Bbox.intersection(extent, other) is not None for other in occupied)

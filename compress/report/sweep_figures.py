"""Figures of a sweep as SVG text: the Pareto fronts and the settings; the same bytes for the same sweep."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from compress.report.figure import (
    BUDGET,
    GREY,
    PALETTE,
    STYLE,
    draw_budget,
    error_bar,
    label_points,
    panels,
    single,
    svg,
)
from compress.report.format import MISSING, number
from compress.report.sweep_table import short_names
from compress.schema.sweep import Front, Kind, Place, Point, Sweep, setting_value

_FRONT = PALETTE[0]
_SHIPS = PALETTE[2]
_PALE = "#94a3b8"
_LABEL = 16  # characters of a value on an axis
_TICKS = 8


# ---------------------------------------------------------------- fronts


@mpl.rc_context(STYLE)
def pareto(sweep: Sweep, kind: Kind) -> str:
    """Drop of the primary metric against a cost, a panel per workload; empty without such a front."""
    drawn = [front for front in sweep.fronts if front.kind == kind]
    if not drawn:
        return ""
    figure, axes = panels(len(drawn), 2, 4.0)
    for axis, front in zip(axes, drawn, strict=True):
        _draw_front(axis, front, sweep)
    figure.supylabel(
        f"drop in {sweep.primary_metric} from dense (up is better)", fontsize=10, color="#334155"
    )
    legend = _legend(sweep)
    figure.legend(handles=legend, loc="outside upper center", ncols=len(legend), fontsize=9)
    label_points(figure, axes, sweep.max_drop)
    return svg(figure, f"pareto-{kind}")


def _draw_front(axis: Axes, front: Front, sweep: Sweep) -> None:
    places = {place.number: place for place in front.places}
    on_front = [places[n] for n in front.members]
    _shade(axis, on_front, front.reference)
    steps = ([p.cost.value for p in on_front], [p.drop.value for p in on_front])
    axis.step(*steps, where="post", color=_FRONT, linewidth=1.3, alpha=0.7)
    # the first drawn is the first to choose a place for its name
    for place in [*on_front, *(place for place in front.places if place.number not in front.members)]:
        member, ships = place.number in front.members, place.number in sweep.ships
        axis.errorbar(
            place.cost.value,
            place.drop.value,
            xerr=error_bar(place.cost.value, place.cost.ci95),
            yerr=error_bar(place.drop.value, place.drop.ci95),
            fmt="D" if member else "o",
            markersize=8 if member else 6,
            color=(_SHIPS if ships else _FRONT) if member else _PALE,
            markerfacecolor=None if ships else "white",
            markeredgewidth=1.5,
            elinewidth=1.2 if member else 0.8,
            capsize=3 if member else 2,
            zorder=3 if member else 2,
            label=f"#{place.number}",
        )
    axis.errorbar(
        front.dense_cost, 0.0, fmt="s", markersize=8, color=GREY, markerfacecolor="white",
        markeredgewidth=1.5,
        label=sweep.baseline.name if sweep.baseline else "dense",
    )  # fmt: skip
    if sweep.max_drop is not None:
        draw_budget(axis, sweep.max_drop)
    axis.margins(x=0.12, y=0.1)
    axis.set_xlim(left=max(axis.get_xlim()[0], 0.0))
    axis.invert_yaxis()
    axis.grid(True)
    axis.set_title(f"against {front.cost}")
    axis.set_xlabel(front.unit)


def _shade(axis: Axes, on_front: Sequence[Place], reference: tuple[float, float]) -> None:
    """The area whose size is the hypervolume."""
    cost, drop = reference
    inside = [p for p in on_front if p.cost.value < cost and p.drop.value < drop]
    if inside:
        x = [*(p.cost.value for p in inside), cost]
        y = [*(p.drop.value for p in inside), inside[-1].drop.value]
        axis.fill_between(x, y, drop, step="post", color=_FRONT, alpha=0.07, linewidth=0)


def _legend(sweep: Sweep) -> list[Line2D]:
    def entry(label: str, marker: str, color: str, **style: Any) -> Line2D:
        return Line2D(
            [], [], linestyle=style.pop("linestyle", "none"), marker=marker, color=color, label=label, **style
        )

    handles = [
        entry("on the front, meets the budget", "D", _SHIPS),
        entry("on the front", "D", _FRONT, markerfacecolor="white"),
        entry("dominated (filled: meets the budget)", "o", _PALE),
        entry("dense", "s", GREY, markerfacecolor="white"),
    ]
    if sweep.max_drop is not None:
        handles.append(entry("budget", "", BUDGET, linestyle="--"))
    return handles


# ---------------------------------------------------------------- settings


@mpl.rc_context(STYLE)
def parallel(sweep: Sweep) -> str:
    """Parallel coordinates: an axis per setting that varies, then drop and latency; empty if none varies.

    The values of a setting are ranks, evenly spaced; on the axes of results, up is better. A point that
    failed ends at its last setting.
    """
    points = [point for point in sweep.points if point.overrides]
    if not sweep.varying or not points:
        return ""
    front = sweep.fronts[0] if sweep.fronts else None
    names = short_names(sweep.varying)
    axes = [_ranks(names[key], key, points) for key in sweep.varying]
    if front:
        drops = {place.number: place.drop.value for place in front.places}
        costs = {place.number: place.cost.value for place in front.places}
        axes += [
            _scale(f"drop in\n{sweep.primary_metric}", drops),
            _scale(f"{front.cost},\n{front.unit}", costs),
        ]
    figure, axis = single(4.6)
    for x, (_, ticks, _) in enumerate(axes):
        axis.plot([x, x], [0, 1], color="#475569", linewidth=1, zorder=4)
        for height, text in ticks:
            _write(axis, x, height, text, left=front is not None and x == len(axes) - 1)
    ends = {}
    for i, point in enumerate(points):
        # lines through the same value lie side by side
        offset = 0.05 * (i / max(len(points) - 1, 1) - 0.5)
        heights = [positions[point.number] for _, _, positions in axes if point.number in positions]
        settings = len(sweep.varying)
        _line(axis, [h + offset for h in heights[:settings]] + heights[settings:], _style(point, front))
        ends[point.number] = (len(heights) - 1, heights[-1] + (offset if len(heights) == settings else 0))
    for x in sorted({x for x, _ in ends.values()}):
        _names(axis, x, {n: y for n, (at, y) in ends.items() if at == x}, sweep, front)
    axis.set_xticks(range(len(axes)), [label for label, _, _ in axes], color="#1e293b")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_xlim(-0.25, len(axes) - 1 + 0.06 * len(axes))
    axis.set_ylim(-0.06, 1.06)
    return svg(figure, "settings")


# name, heights (0 to 1) and texts of the ticks, height of each point by number
_Axis = tuple[str, list[tuple[float, str]], dict[int, float]]


def _ranks(label: str, key: str, points: Sequence[Point]) -> _Axis:
    """Numbers in their order, then words in the order in which they came."""
    texts = [point.settings.get(key, MISSING) for point in points]
    given = [setting_value(text) for text in texts]
    written = dict(zip(given, texts, strict=True))
    values = list(dict.fromkeys(given))
    amounts = [value for value in values if isinstance(value, float)]
    values = [*sorted(amounts), *(value for value in values if not isinstance(value, float))]
    heights = {value: i / (len(values) - 1) if len(values) > 1 else 0.5 for i, value in enumerate(values)}
    thinned = values[:: math.ceil(len(values) / _TICKS)]
    ticks = [(heights[value], written[value]) for value in thinned]
    return label, ticks, {point.number: heights[value] for point, value in zip(points, given, strict=True)}


def _scale(label: str, values: dict[int, float]) -> _Axis:
    """Linear, the least on top."""
    low, high = min(values.values()), max(values.values())

    def height(value: float) -> float:
        return (high - value) / (high - low) if high > low else 0.5

    shown = [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)] if high > low else [low]
    ticks = [(height(value), number(value)) for value in shown]
    return label, ticks, {point: height(value) for point, value in values.items()}


def _write(axis: Axes, x: float, y: float, text: str, left: bool) -> None:
    short = text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.5}
    style: Any = {"textcoords": "offset points", "va": "center", "fontsize": 9, "zorder": 5, "bbox": box}
    axis.annotate(short, (x, y), xytext=(-6 if left else 6, 0), ha="right" if left else "left", **style)


def _style(point: Point, front: Front | None) -> dict[str, Any]:
    if point.kept is None:
        return {"color": BUDGET, "linewidth": 1.0, "linestyle": ":"}
    if front and point.number in front.members:
        color = PALETTE[front.members.index(point.number) % len(PALETTE)]
        return {"color": color, "linewidth": 2.2, "zorder": 3}
    return {"color": _PALE, "linewidth": 1.0, "alpha": 0.7}


def _line(axis: Axes, heights: Sequence[float], style: dict[str, Any]) -> None:
    """Smooth, so that a line can be followed through a value that it shares."""
    t = np.linspace(0, 1, 25)
    smooth = t * t * (3 - 2 * t)
    pairs = list(itertools.pairwise(heights))
    xs = np.concatenate([[0.0], *(i + t[1:] for i in range(len(pairs)))])
    ys = np.concatenate([heights[:1], *(a + smooth[1:] * (b - a) for a, b in pairs)])
    axis.plot(xs, ys, **style)


def _names(axis: Axes, x: float, ends: dict[int, float], sweep: Sweep, front: Front | None) -> None:
    """Numbers of the points right of where their lines end, moved apart where they would cover each other."""
    order = sorted(ends, key=lambda n: (-ends[n], n))
    gap = min(0.046, 1.1 / len(order))
    heights: list[float] = []
    for n in order:
        heights.append(min(ends[n], heights[-1] - gap) if heights else ends[n])
    lift = max(0.0, -0.04 - heights[-1])  # the whole column, so that the last stays on the page
    for n, height in zip(order, heights, strict=True):
        style = _style(sweep.point(n), front)
        color = GREY if style["color"] == _PALE else style["color"]
        axis.annotate(
            f"#{n}",
            (x, ends[n]),
            xytext=(x + 0.07, height + lift),
            textcoords="data",
            va="center",
            fontsize=8.5,
            color=color,
            fontweight="bold" if style["linewidth"] > 2 else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
            zorder=6,
        )

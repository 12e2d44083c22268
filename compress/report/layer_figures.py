"""Figures of single layers as SVG text: widths, what int8 does to each, what a cut into each costs."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from compress.report.figure import BUDGET, GREY, PALETTE, STYLE, WIDTH, colors, name_rows, single, svg
from compress.report.pruning import by_sensitivity, layer_widths, pruned
from compress.report.quantization import SHOWN, shown_damage
from compress.report.section import best_variant
from compress.schema.pruning import ChannelGroup, PruningSensitivity
from compress.schema.report import Report

_NAMED = 40  # layers, up to which each has its name on the axis
_LABEL = 44  # characters of a layer's name
_ROW = 120  # characters of names beside one another
_CURVES = 12  # groups with a colour of their own
_PALE = "#cbd5e1"


@mpl.rc_context(STYLE)
def widths(report: Report) -> str:
    """A bar per layer, outlined before and filled after; empty where nothing was cut."""
    layers_of_all = layer_widths(report)
    kinds = {width.kind: [w for w in layers_of_all if w.kind == width.kind] for width in layers_of_all}
    cut = {kind: layers for kind, layers in kinds.items() if pruned(layers)}
    if not cut:
        return ""
    dense, best = report.variants[0], best_variant(report)
    columns = 1 if max(map(len, cut.values())) > 12 or len(cut) == 1 else 2
    rows = -(-len(cut) // columns)
    figure = Figure(figsize=(WIDTH, 3.4 * rows), layout="constrained")
    for i, (kind, layers) in enumerate(cut.items()):
        axis, places = figure.add_subplot(rows, columns, i + 1), range(len(layers))
        before, after = [w.before for w in layers], [w.after or 0 for w in layers]
        axis.bar(places, before, 0.8, color="white", edgecolor=GREY, linewidth=1.1, label=dense.name)
        axis.bar(places, after, 0.56, color=colors(report)[best.name], label=best.name)
        axis.set_title(kind)
        axis.set_ylim(0, max(*before, *after) * 1.22)
        axis.set_xlim(-0.7, len(layers) - 0.3)
        if len(layers) <= _NAMED:
            names = [_short(w.layer) for w in layers]
            fits = len(names) * max(map(len, names)) < _ROW / columns
            axis.set_xticks(places, names, rotation=0 if fits else 90, fontsize=8.5)
            axis.tick_params(axis="x", length=0)
        else:
            axis.set_xlabel("layer")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.grid(True, axis="y")
        axis.legend(ncols=2, loc="upper right", borderaxespad=0, fontsize=9)
    return svg(figure, "widths")


@mpl.rc_context(STYLE)
def errors(report: Report) -> str:
    """Signal over noise of the worst layers in int8, alone and in the whole graph; empty without them."""
    best = best_variant(report)
    measured = best.layer_errors
    if measured is None or not measured.layers:
        return ""
    layers = measured.layers[:SHOWN]
    figure, axis = _lines([layer.node for layer in layers])
    color = colors(report)[best.name]
    for y, layer in enumerate(layers):
        axis.plot([layer.sqnr_db, layer.alone_db], [y, y], color=_PALE, linewidth=2, zorder=1)
    alone, whole = [layer.alone_db for layer in layers], [layer.sqnr_db for layer in layers]
    axis.plot(alone, range(len(layers)), "o", markersize=5.5, color=color, label="alone")
    axis.plot(whole, range(len(layers)), "o", markersize=5.5, markerfacecolor="white", color=color,
              label="in the whole graph")  # fmt: skip
    axis.axvline(measured.floor_db, color=BUDGET, linestyle="--", linewidth=1.2, label="gate, alone")
    axis.set_xlabel("signal over quantization noise, dB (right is better)")
    figure.legend(loc="outside upper left", ncols=3, fontsize=9)
    return svg(figure, "layers")


@mpl.rc_context(STYLE)
def damage(report: Report) -> str:
    """What each layer alone in int8 costs, the dearest first; empty where no layer was ranked."""
    sensitivity = best_variant(report).sensitivity
    if sensitivity is None or not sensitivity.layers:
        return ""
    layers = shown_damage(sensitivity)
    figure, axis = _lines([layer.node for layer in layers])
    for left_out, color, label in ((True, PALETTE[1], "left in float"), (False, PALETTE[0], "stays in int8")):
        bars = [(y, layer.damage) for y, layer in enumerate(layers) if layer.left_out is left_out]
        if bars:
            places, lengths = zip(*bars, strict=True)
            axis.barh(places, lengths, height=0.62, color=color, label=label)
    axis.set_xlabel("1 - cosine of the output to the float model's, this layer alone in int8")
    figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    return svg(figure, "sensitivity")


@mpl.rc_context(STYLE)
def cuts(report: Report) -> str:
    """Accuracy and cross-entropy by the share cut out of one group of layers; empty where not measured."""
    sensitivity = report.pruning_sensitivity
    if sensitivity is None or not sensitivity.groups:
        return ""
    drawn = {group.layer for group in by_sensitivity(sensitivity.groups)[:_CURVES]}
    others = [group for group in sensitivity.groups if group.layer not in drawn]
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    handles: dict[str, Any] = {}
    for group in others:
        _curve(left, right, sensitivity, group, color=_PALE, linewidth=1, zorder=1)
    for i, group in enumerate(group for group in sensitivity.groups if group.layer in drawn):
        style = {"color": PALETTE[i % len(PALETTE)], "linestyle": "-" if i < len(PALETTE) else "--"}
        name = _short(group.layer) + (f" + {len(group.coupled)}" if group.coupled else "")
        handles[name] = _curve(left, right, sensitivity, group, marker="o", markersize=3.5, **style)
    if others:
        handles[f"{len(others)} less sensitive"] = left.plot([], [], color=_PALE)[0]
    for axis, label in ((left, "accuracy"), (right, "cross-entropy, nats")):
        axis.set_xlabel("channels cut, %")
        axis.set_xticks(range(0, 100, 25))
        axis.set_ylabel(label)
        axis.grid(True)
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8.5)
    return svg(figure, "cuts")


def _curve(
    left: Axes, right: Axes, sensitivity: PruningSensitivity, group: ChannelGroup, **style: Any
) -> Any:
    """From the whole model on; the line on the left."""
    gone = [0.0, *(100 * (1 - cut.channels / group.channels) for cut in group.cuts)]
    (line,) = left.plot(gone, [sensitivity.accuracy, *(cut.accuracy for cut in group.cuts)], **style)
    right.plot(gone, [sensitivity.cross_entropy, *(cut.cross_entropy for cut in group.cuts)], **style)
    return line


def _lines(names: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with a line for each name, from the top."""
    figure, axis = single(1.1 + 0.24 * len(names), 0.85)
    name_rows(axis, [_short(name) for name in names], fontsize=8.5)
    return figure, axis


def _short(name: str) -> str:
    """The end of a name, which tells layers apart."""
    return name if len(name) <= _LABEL else f"...{name[-_LABEL + 3 :]}"

"""What the reports say of what pruning did: widths before and after, and what a cut into one layer costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from compress.report.format import MISSING, number, percent, run_lengths
from compress.report.section import Section, best_variant
from compress.schema.pruning import ChannelGroup
from compress.schema.report import Report, Variant


@dataclass(frozen=True, kw_only=True)
class LayerWidth:
    kind: str
    layer: str
    before: int
    after: int | None  # None: the whole layer is gone


def pruning_sections(report: Report) -> list[Section]:
    return [_widths(report), _cuts(report)]


def layer_widths(report: Report) -> list[LayerWidth]:
    """Every layer of the dense model beside what it is in the kept variant.

    Layers are matched by their names; where a report has none, by their number in each of the two.
    """
    dense, best = report.variants[0], best_variant(report)
    layers = []
    for kind, before in dense.widths.items():
        if not (after := best.widths.get(kind)):
            continue
        named = all(len(v.layer_names.get(kind, ())) == len(v.widths[kind]) for v in (dense, best))
        names = [_names(v, kind, named) for v in (dense, best)]
        left = dict(zip(names[1], after, strict=True))
        layers += [
            LayerWidth(kind=kind, layer=name, before=width, after=left.get(name))
            for name, width in zip(names[0], before, strict=True)
        ]
    return layers


def pruned(widths: list[LayerWidth]) -> bool:
    return any(width.after != width.before for width in widths)


def _names(variant: Variant, kind: str, named: bool) -> tuple[str, ...]:
    if named:
        return variant.layer_names[kind]
    return tuple(f"layer {number}" for number in range(len(variant.widths[kind])))


def _widths(report: Report) -> Section:
    """Neighbours of a kind that became the same share a row; no rows where nothing was cut."""
    widths = layer_widths(report)
    rows: list[tuple[str, ...]] = []
    shown = widths if pruned(widths) else []
    for _, layers in groupby(shown, key=lambda width: (width.kind, width.before, width.after)):
        run = list(layers)
        first, last = run[0], run[-1]
        names = first.layer if first is last else f"{first.layer} to {last.layer} ({len(run)} layers)"
        after = "gone" if first.after is None else str(first.after)
        rows.append((first.kind, names, str(first.before), after, percent((first.after or 0) / first.before)))
    header = ("kind", "layer", report.variants[0].name, best_variant(report).name, "stays")
    return Section("widths", "Widths per layer", header, rows, tuple(_width_lines(report)))


def _width_lines(report: Report) -> Iterator[str]:
    """A line for each different set of widths, with the variants that have it."""
    owners: dict[str, list[str]] = {}
    for variant in report.variants:
        text = "; ".join(f"{kind} {run_lengths(widths)}" for kind, widths in variant.widths.items())
        if text:
            owners.setdefault(text, []).append(variant.name)
    for text, names in owners.items():
        yield f"{', '.join(names)}: {text}"


# ---------------------------------------------------------------- cuts into one layer alone


def by_sensitivity(groups: tuple[ChannelGroup, ...]) -> list[ChannelGroup]:
    """The group whose cuts cost the most cross-entropy, summed over its cuts, first."""
    return sorted(groups, key=lambda group: -sum(cut.cross_entropy for cut in group.cuts))


def _cuts(report: Report) -> Section:
    sensitivity, title = report.pruning_sensitivity, "Cuts into one layer alone"
    if sensitivity is None:
        return Section("cuts", title)
    shares = sorted({cut.keep for group in sensitivity.groups for cut in group.cuts}, reverse=True)
    rows = []
    for group in by_sensitivity(sensitivity.groups):
        accuracy = {cut.keep: number(cut.accuracy) for cut in group.cuts}
        cells = [accuracy.get(share, MISSING) for share in shares]
        rows.append((group.layer, ", ".join(group.coupled) or MISSING, str(group.channels), *cells))
    lines = (
        "Each group of layers that share their channels was cut by itself, on a copy of the uncut model, and "
        "nothing estimated or trained anew: this shows where a cut hurts, not what a finished model loses.",
        f"On {sensitivity.images} calibration images the whole model has accuracy "
        f"{number(sensitivity.accuracy)} and cross-entropy {number(sensitivity.cross_entropy)} nats. "
        "The most sensitive layers come first.",
    )
    accuracies = (f"accuracy, {100 * (1 - share):.0f} % cut" for share in shares)
    return Section("cuts", title, ("layer", "cut along with", "channels", *accuracies), rows, lines)

"""What the reports say of quantization: how much is in integers and why the rest is not, how far int8 moved
each layer, and the bits and the SmoothQuant strength of each layer of a language model."""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import groupby

from compress.report.format import megabytes, number, percent, precise
from compress.report.section import Section
from compress.schema.quantization import (
    LayerDamage,
    LayerErrors,
    Sensitivity,
    SkippedNode,
    SmoothedLayers,
    WeightBlocks,
)
from compress.schema.report import Report

SHOWN = 20  # layers
_WORST = 5  # layers that a line names
_NODES_SHOWN = 3


def quantization_sections(report: Report) -> list[Section]:
    return [*_coverage(report), _errors(report), _damage(report), _bits(report), _alphas(report)]


def _coverage(report: Report) -> list[Section]:
    quantized = [(v.name, v.quantization) for v in report.variants if v.quantization is not None]
    shares = [
        (name, percent(coverage.coverage_macs), percent(coverage.coverage_bytes))
        for name, coverage in quantized
    ]
    skipped = [
        (name, reason, str(len(nodes)), _shortened(nodes))
        for name, coverage in quantized
        for reason, nodes in by_reason(coverage.skipped)
    ]
    header = ("variant", "MACs in integers", "weight bytes in integers")
    return [
        Section("coverage", "Quantization coverage", header, shares),
        Section("skipped", "Nodes left in float", ("variant", "reason", "nodes", "which"), skipped),
    ]


def by_reason(skipped: Iterable[SkippedNode]) -> list[tuple[str, list[str]]]:
    """Names of nodes by reason, the most frequent reason first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for node in skipped:
        groups[node.reason].append(node.node)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def _shortened(nodes: list[str]) -> str:
    more = len(nodes) - _NODES_SHOWN
    return ", ".join(nodes[:_NODES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _errors(report: Report) -> Section:
    measured = [(v.name, v.layer_errors) for v in report.variants if v.layer_errors is not None]
    rows = [
        (name, layer.node, f"{layer.alone_db:.1f}", f"{layer.sqnr_db:.1f}")
        for name, errors in measured
        for layer in errors.layers[:SHOWN]
    ]
    lines = tuple(error_line(name, errors) for name, errors in measured)
    header = ("variant", "layer", "SQNR alone, dB", "SQNR in the whole graph, dB")
    return Section("layers", "Float against int8, layer by layer", header, rows, lines)


def error_line(name: str, errors: LayerErrors) -> str:
    more = len(errors.layers) - SHOWN
    rest = f"; {more} more layers lie above {errors.layers[SHOWN].alone_db:.1f} dB alone" if more > 0 else ""
    return (
        f"{name}: signal over quantization noise of {len(errors.layers)} layers on {errors.texts} "
        f"calibration examples; the gate asks for {number(errors.floor_db)} dB alone{rest}. "
        "20 dB are an error of 10 %."
    )


def _damage(report: Report) -> Section:
    measured = [(v.name, v.sensitivity) for v in report.variants if v.sensitivity is not None]
    rows = [
        (name, layer.node, number(layer.damage), percent(layer.macs), megabytes(layer.bytes_added),
         "yes" if layer.left_out else "")
        for name, sensitivity in measured
        for layer in shown_damage(sensitivity)
    ]  # fmt: skip
    lines = tuple(line for name, sensitivity in measured for line in damage_lines(name, sensitivity))
    header = ("variant", "layer", "damage alone, 1 - cosine", "MACs", "float adds, MB", "left in float")
    return Section("sensitivity", "Layers left in float for quality", header, rows, lines)


def shown_damage(sensitivity: Sensitivity) -> list[LayerDamage]:
    """The most damage first; what is left in float is always shown."""
    return [layer for index, layer in enumerate(sensitivity.layers) if index < SHOWN or layer.left_out]


def damage_lines(name: str, sensitivity: Sensitivity) -> list[str]:
    everywhere, shipped, asked, nothing = _goal(sensitivity)
    left = sum(layer.left_out for layer in sensitivity.layers)
    asked = f"asked {asked} on {sensitivity.texts} select examples"
    if not left and sensitivity.met:
        return [f"{name}: with every layer rounded, {everywhere} ({asked})"]
    lines = [
        f"{name}: {everywhere} with every layer rounded, {shipped} with {left} left in float ({asked})",
        f"{name}: that costs {megabytes(sensitivity.bytes_added)} MB and takes "
        f"{percent(sensitivity.macs_left_out)} of the multiply-accumulates from the rounded ones; "
        f"what it costs in time is the difference to {name}_all",
        f"layers left out and {'drop' if sensitivity.metric else 'cosine'}, as tried: "
        + ", ".join(f"{count}: {precise(value)}" for count, value in sensitivity.tried),
    ]
    if not sensitivity.met:
        lines.insert(0, f"{name}: NOT MET: no set of layers within quantize.min_coverage {nothing}")
    return lines


def _exact(value: float | None) -> str:
    return "?" if value is None else precise(value)


def _goal(sensitivity: Sensitivity) -> tuple[str, str, str, str]:
    """With every layer rounded, of what ships, what was asked for, and what no set did."""
    if sensitivity.metric is None:
        return (
            f"cosine to float {_exact(sensitivity.cosine_all)}",
            _exact(sensitivity.cosine),
            _exact(sensitivity.min_cosine),
            "reaches the cosine",
        )
    return (
        f"drop of {sensitivity.metric} from float {_exact(sensitivity.drop_all)}",
        _exact(sensitivity.drop),
        f"at most {_exact(sensitivity.max_drop)}, relative,",
        f"keeps {sensitivity.metric}",
    )


# ---------------------------------------------------------------- of language models


def _bits(report: Report) -> Section:
    quantized = [(v.name, v.blocks) for v in report.variants if v.blocks is not None]
    rows = [(name, *row) for name, blocks in quantized for row in by_kind(blocks.bits.items())]
    lines = tuple(line for name, blocks in quantized for line in block_lines(name, blocks))
    return Section("bits", "Bits of each layer", ("variant", "what", "bits in its layers"), rows, lines)


def block_lines(name: str, blocks: WeightBlocks) -> list[str]:
    """What the blocks cost, how the activations are computed, and what the bits were chosen by."""
    lines = [f"{name}: {number(blocks.kl)} nats a token from the float graph"]
    if blocks.kl_of_level is not None and blocks.kl_of_float_activations is not None:
        taken = "float activations are taken" if blocks.accuracy_level == 0 else "8-bit ones are taken"
        lines.append(
            f"{name}: {number(blocks.kl_of_level)} nats with 8-bit activations, "
            f"{number(blocks.kl_of_float_activations)} with float ones: {taken}"
        )
    if blocks.fit is not None:
        first, best = blocks.fit.select_loss[0], min(blocks.fit.select_loss)
        lines.append(
            f"{name}: scales and norms fitted for {blocks.fit.steps} steps, "
            f"from {number(first)} to {number(best)} nats a token on select"
        )
    if blocks.choice is not None:
        worst = sorted(blocks.choice.layers, key=lambda layers: -layers.kl)[:_WORST]
        costs = ", ".join(f"{layers.names[0]} {number(layers.kl)} ({layers.bits} bits)" for layers in worst)
        lines.append(f"{name}: in 4 bits alone the layers that cost the most nats a token are {costs}")
    return lines


def _alphas(report: Report) -> Section:
    rows = [
        (v.name, *row)
        for v in report.variants
        for row in by_kind((", ".join(group.layers), strength(group)) for group in v.smoothing)
    ]
    lines = ("Alpha of the layers that read one tensor; a token: a scale for each token.",) if rows else ()
    header = ("variant", "what", "alpha in its layers")
    return Section("alphas", "SmoothQuant of each layer", header, rows, lines)


def strength(layers: SmoothedLayers) -> str:
    alpha = "as they were" if layers.alpha is None else f"{layers.alpha:g}"
    extras = [" a token"] * layers.per_token + [" in blocks of 8 bits"] * layers.blocks
    return alpha + "".join(extras)


def by_kind(values: Iterable[tuple[str, Hashable]]) -> list[tuple[str, str]]:
    """`model.layers.0.mlp.up_proj: 4, model.layers.1.mlp.up_proj: 4` -> `mlp.up_proj: 4 in 0-1`."""
    kinds: dict[str, list[tuple[int | None, Hashable]]] = defaultdict(list)
    for name, value in values:
        place = re.search(r"\.(\d+)\.", name)
        kind = re.sub(r"[\w.]*\.\d+\.", "", name)
        kinds[kind].append((int(place[1]) if place else None, value))
    rows = []
    for kind, layers in kinds.items():
        runs = [(value, [layer for layer, _ in run]) for value, run in groupby(layers, lambda pair: pair[1])]
        rows.append((kind, "; ".join(f"{value}{_span(run)}" for value, run in runs)))
    return rows


def _span(layers: list[int | None]) -> str:
    first, last = layers[0], layers[-1]
    if first is None:
        return ""
    return f" in {first}" if first == last else f" in {first}-{last}"

"""What the reports say of single layers: how far int8 moved each, what leaving some in float was worth, how
many bits and which SmoothQuant strength each layer of a language model got."""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import groupby

from compress.report.format import megabytes, number, percent, precise
from compress.report.section import Section
from compress.schema.report import LayerDamage, LayerErrors, Report, Sensitivity, SmoothedLayers, WeightBlocks

SHOWN = 20  # layers
_WORST = 5  # layers that a line names
ERROR_HEADER = ("variant", "layer", "SQNR alone, dB", "SQNR in the whole graph, dB")
DAMAGE_HEADER = ("variant", "layer", "damage alone, 1 - cosine", "MACs", "float adds, MB", "left in float")


def layer_sections(report: Report) -> list[Section]:
    return [_errors(report), _damage(report), _bits(report), _alphas(report)]


def _errors(report: Report) -> Section:
    measured = [(v.name, v.layer_errors) for v in report.variants if v.layer_errors is not None]
    return Section(
        anchor="layers",
        title="Float against int8, layer by layer",
        lines=tuple(error_line(name, errors) for name, errors in measured),
        header=ERROR_HEADER,
        rows=[row for name, errors in measured for row in error_rows(name, errors)],
    )


def _damage(report: Report) -> Section:
    measured = [(v.name, v.sensitivity) for v in report.variants if v.sensitivity is not None]
    return Section(
        anchor="sensitivity",
        title="Layers left in float for quality",
        lines=tuple(line for name, sensitivity in measured for line in damage_lines(name, sensitivity)),
        header=DAMAGE_HEADER,
        rows=[row for name, sensitivity in measured for row in damage_rows(name, sensitivity)],
    )


def error_rows(name: str, errors: LayerErrors) -> list[tuple[str, ...]]:
    """The worst layers first."""
    return [
        (name, layer.node, f"{layer.alone_db:.1f}", f"{layer.sqnr_db:.1f}") for layer in errors.layers[:SHOWN]
    ]


def error_line(name: str, errors: LayerErrors) -> str:
    more = len(errors.layers) - SHOWN
    rest = f"; {more} more layers lie above {errors.layers[SHOWN].alone_db:.1f} dB alone" if more > 0 else ""
    return (
        f"{name}: signal over quantization noise of {len(errors.layers)} layers on {errors.texts} "
        f"calibration examples; the gate asks for {number(errors.floor_db)} dB alone{rest}. "
        "20 dB are an error of 10 %."
    )


def damage_rows(name: str, sensitivity: Sensitivity) -> list[tuple[str, ...]]:
    """The most damage first; what is left in float is always shown."""
    return [
        (
            name,
            layer.node,
            number(layer.damage),
            percent(layer.macs),
            megabytes(layer.bytes_added),
            "yes" if layer.left_out else "",
        )
        for layer in shown_damage(sensitivity)
    ]


def shown_damage(sensitivity: Sensitivity) -> list[LayerDamage]:
    return [layer for index, layer in enumerate(sensitivity.layers) if index < SHOWN or layer.left_out]


def damage_lines(name: str, sensitivity: Sensitivity) -> list[str]:
    asked = f"asked {precise(sensitivity.min_cosine)} on {sensitivity.texts} select examples"
    left = sum(layer.left_out for layer in sensitivity.layers)
    if not left and sensitivity.met:
        return [
            f"{name}: every layer in int8 has cosine {precise(sensitivity.cosine_all)} to float ({asked})"
        ]
    lines = [
        f"{name}: cosine to float {precise(sensitivity.cosine_all)} with every layer in int8, "
        f"{precise(sensitivity.cosine)} with {left} left in float ({asked})",
        f"{name}: that costs {megabytes(sensitivity.bytes_added)} MB and takes "
        f"{percent(sensitivity.macs_left_out)} of the multiply-accumulates from the integers; "
        "what it costs in time is the difference to int8_all",
        "layers left out and cosine, as tried: "
        + ", ".join(f"{count}: {precise(cosine)}" for count, cosine in sensitivity.tried),
    ]
    if not sensitivity.met:
        lines.insert(0, f"{name}: NOT MET: no set of layers within quantize.min_coverage reaches the cosine")
    return lines


# ---------------------------------------------------------------- of language models


def _bits(report: Report) -> Section:
    quantized = [(v.name, v.blocks) for v in report.variants if v.blocks is not None]
    return Section(
        anchor="bits",
        title="Bits of each layer",
        lines=tuple(line for name, blocks in quantized for line in block_lines(name, blocks)),
        header=("variant", "what", "bits in its layers"),
        rows=[
            (name, kind, spans)
            for name, blocks in quantized
            for kind, spans in by_kind((layer, bits) for layer, bits in blocks.bits.items())
        ],
    )


def block_lines(name: str, blocks: WeightBlocks) -> list[str]:
    """What the blocks cost, how the activations are computed, and what the bits were chosen by."""
    lines = [f"{name}: {number(blocks.kl)} nats a token from the float graph"]
    if blocks.kl_of_level is not None and blocks.kl_of_float_activations is not None:
        taken = "float activations are taken" if blocks.accuracy_level == 0 else "8-bit ones are taken"
        lines.append(
            f"{name}: {number(blocks.kl_of_level)} nats with 8-bit activations, "
            f"{number(blocks.kl_of_float_activations)} with float ones: {taken}"
        )
    if blocks.choice is not None:
        worst = sorted(blocks.choice.layers, key=lambda layers: -layers.kl)[:_WORST]
        costs = ", ".join(f"{layers.names[0]} {number(layers.kl)} ({layers.bits} bits)" for layers in worst)
        lines.append(f"{name}: in 4 bits alone the layers that cost the most nats a token are {costs}")
    return lines


def _alphas(report: Report) -> Section:
    smoothed = [(v.name, v.smoothing) for v in report.variants if v.smoothing]
    rows = [
        (name, kind, spans)
        for name, groups in smoothed
        for kind, spans in by_kind((", ".join(each.layers), strength(each)) for each in groups)
    ]
    return Section(
        anchor="alphas",
        title="SmoothQuant of each layer",
        lines=("Alpha of the layers that read one tensor; a token: a scale for each token.",) if rows else (),
        header=("variant", "what", "alpha in its layers"),
        rows=rows,
    )


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
        runs = [[layer for layer, _ in run] for _, run in groupby(layers, key=lambda pair: pair[1])]
        firsts = [value for value, _ in groupby(value for _, value in layers)]
        texts = [f"{value}{_span(run)}" for value, run in zip(firsts, runs, strict=True)]
        rows.append((kind, "; ".join(texts)))
    return rows


def _span(layers: list[int | None]) -> str:
    first, last = layers[0], layers[-1]
    if first is None:
        return ""
    return f" in {first}" if first == last else f" in {first}-{last}"

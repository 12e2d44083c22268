"""What the reports say of single layers: how far int8 moved each, what leaving some in float was worth."""

from compress.report.format import megabytes, number, percent, precise
from compress.report.section import Section
from compress.schema.report import LayerDamage, LayerErrors, Report, Sensitivity

SHOWN = 20
ERROR_HEADER = ("variant", "layer", "SQNR alone, dB", "SQNR in the whole graph, dB")
DAMAGE_HEADER = ("variant", "layer", "damage alone, 1 - cosine", "MACs", "float adds, MB", "left in float")


def layer_sections(report: Report) -> list[Section]:
    return [_errors(report), _damage(report)]


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

"""Single layers in the reports: the worst first, what stays in float always shown."""

import dataclasses

from compress.report import layer_figures
from compress.report.markdown import report_markdown
from compress.report.sections import sections
from compress.schema.quantization import (
    BitChoice,
    BlockFit,
    LayerDamage,
    LayerError,
    LayerErrors,
    SensitiveLayers,
    Sensitivity,
    SmoothedLayers,
    WeightBlocks,
)
from compress.schema.report import Report

ERRORS = LayerErrors(
    floor_db=5.0,
    texts=16,
    worst_alone_db=21.8,
    worst_db=14.6,
    layers=tuple(
        LayerError(node=f"/layer.{i}/MatMul", sqnr_db=14.6 + i, alone_db=21.8 + i) for i in range(23)
    ),
)


def damage(index: int, left_out: bool = False) -> LayerDamage:
    return LayerDamage(
        node=f"/layer.{index}/MatMul", damage=0.001 / (index + 1), macs=0.0139, bytes_added=442_368,
        left_out=left_out,
    )  # fmt: skip


def sensitivity(met: bool) -> Sensitivity:
    layers = tuple(damage(index, left_out=index in (1, 24)) for index in range(26))
    return Sensitivity(
        min_cosine=0.995, cosine_all=0.9937, cosine=0.9951, met=met, texts=128, bytes_added=884_736,
        macs_left_out=0.0278, tried=((0, 0.9937), (2, 0.9951)), layers=layers,
    )  # fmt: skip


def with_layers(report: Report, found: Sensitivity) -> Report:
    int8 = dataclasses.replace(report.variants[-1], layer_errors=ERRORS, sensitivity=found)
    return dataclasses.replace(report, variants=(*report.variants[:-1], int8))


def section(report, anchor):
    return next((each for each in sections(report) if each.anchor == anchor), None)


def test_the_worst_layers_come_first_and_the_rest_is_counted(report):
    found = section(with_layers(report, sensitivity(True)), "layers")
    assert found.rows[0] == ("int8", "/layer.0/MatMul", "21.8", "14.6")
    assert len(found.rows) == 20
    assert "3 more layers lie above 41.8 dB alone" in found.lines[0]


def test_what_is_left_in_float_is_shown_with_its_price(report):
    found = section(with_layers(report, sensitivity(True)), "sensitivity")
    assert [row[1] for row in found.rows if row[-1] == "yes"] == ["/layer.1/MatMul", "/layer.24/MatMul"]
    assert len(found.rows) == 21
    assert "0.9951 with 2 left in float (asked 0.995 on 128 select examples)" in found.lines[0]
    assert "0.885 MB" in found.lines[1]
    assert "NOT MET" not in " ".join(found.lines)
    assert "NOT MET" in section(with_layers(report, sensitivity(False)), "sensitivity").lines[0]


def test_a_report_without_them_draws_nothing_of_it_and_one_with_them_survives_the_file(report, tmp_path):
    assert section(report, "layers") is None
    assert section(report, "sensitivity") is None
    full = with_layers(report, sensitivity(True))
    full.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == full
    assert "/layer.24/MatMul" in report_markdown(full)


def test_the_figures_show_every_layer_of_the_tables(report):
    full = with_layers(report, sensitivity(True))
    drawn = layer_figures.errors(full)
    assert [f"/layer.{i}/MatMul" in drawn for i in range(23)] == [True] * 20 + [False] * 3
    drawn = layer_figures.damage(full)
    assert all(f"/layer.{i}/MatMul" in drawn for i in (*range(20), 24))
    assert "left in float" in drawn
    assert "stays in int8" in drawn


def test_the_bits_of_each_layer_are_drawn(report: Report) -> None:
    layers = {f"model.layers.{i}.mlp.up_proj": 8 if i == 2 else 4 for i in range(5)} | {"lm_head": 8}
    costs = tuple(
        SensitiveLayers(names=(name,), bits=bits, kl=0.1 * bits, low_bytes=1, high_bytes=2)
        for name, bits in layers.items()
    )
    blocks = WeightBlocks(
        bits=layers,
        kl=0.03,
        accuracy_level=0,
        kl_of_level=0.5,
        kl_of_float_activations=0.03,
        choice=BitChoice(size_bytes=9, kl_of_the_sum=0.1, layers=costs),
        fit=BlockFit(steps=40, select_loss=(0.12, 0.08, 0.09)),
    )
    *others, last = report.variants
    drawn = dataclasses.replace(report, variants=(*others, dataclasses.replace(last, blocks=blocks)))
    (section,) = [section for section in sections(drawn) if section.anchor == "bits"]
    assert section.rows == [
        ("int8", "mlp.up_proj", "4 in 0-1; 8 in 2; 4 in 3-4"),
        ("int8", "lm_head", "8"),
    ]
    assert "0.500 nats with 8-bit activations, 0.0300 with float ones: float activations" in section.lines[1]
    assert section.lines[2] == (
        "int8: scales and norms fitted for 40 steps, from 0.120 to 0.0800 nats a token on select"
    )
    assert section.lines[3].startswith("int8: in 4 bits alone the layers that cost the most nats a token are")
    assert "model.layers.2.mlp.up_proj 0.800 (8 bits)" in section.lines[3]
    assert not [section for section in sections(report) if section.anchor in ("bits", "alphas")]


def test_each_alpha_is_drawn(report: Report) -> None:
    def group(layer: int, alpha: float | None, **words: bool) -> SmoothedLayers:
        names = tuple(f"model.layers.{layer}.self_attn.{word}_proj" for word in "qk")
        return SmoothedLayers(
            layers=names, alpha=alpha, kl=0.1, **{"per_token": False, "blocks": False} | words
        )

    groups = (group(0, 0.5), group(1, 0.5), group(2, None), group(3, 0.7, per_token=True, blocks=True))
    *others, last = report.variants
    drawn = dataclasses.replace(report, variants=(*others, dataclasses.replace(last, smoothing=groups)))
    (section,) = [section for section in sections(drawn) if section.anchor == "alphas"]
    spans = "0.5 in 0-1; as they were in 2; 0.7 a token in blocks of 8 bits in 3"
    assert section.rows == [("int8", "self_attn.q_proj, self_attn.k_proj", spans)]
    assert spans in report_markdown(drawn)

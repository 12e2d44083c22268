"""Widths before and after, and cuts into one layer alone, in the reports."""

import dataclasses

from compress.report import layer_figures
from compress.report.pruning import layer_widths
from compress.report.sections import sections


def section(report, anchor):
    return next((each for each in sections(report) if each.anchor == anchor), None)


def with_widths(report, dense, others):
    """`dense`, `others`: widths and names of layers."""
    variants = [
        dataclasses.replace(v, widths=widths, layer_names=names)
        for v, (widths, names) in zip(report.variants, [dense, *[others] * 3], strict=True)
    ]
    return dataclasses.replace(report, variants=tuple(variants))


def test_neighbours_that_became_the_same_share_a_row(vision):
    found = section(vision, "widths")
    assert found.header == ("kind", "layer", "dense", "int8", "stays")
    assert found.rows == [
        ("conv2d", "body.0.0", "32", "24", "75.0 %"),
        ("conv2d", "body.2.first.0", "32", "16", "50.0 %"),
        ("conv2d", "body.2.second.0", "32", "24", "75.0 %"),
        ("conv2d", "body.3.first.0 to body.3.second.0 (2 layers)", "64", "40", "62.5 %"),
        ("linear", "head", "10", "10", "100 %"),
    ]
    assert found.lines == (
        "dense: conv2d 3 x 32, 2 x 64; linear 10",
        "pruned, pruned-recovered, int8: conv2d 24, 16, 24, 2 x 40; linear 10",
    )


def test_a_dropped_layer_is_told_by_its_name(report):
    names = {"ffn": tuple(f"layer {i}" for i in range(4))}
    left = {"ffn": ("layer 0", "layer 2", "layer 3")}
    found = with_widths(report, ({"ffn": (64,) * 4}, names), ({"ffn": (32,) * 3}, left))
    assert [(w.layer, w.after) for w in layer_widths(found)] == [
        ("layer 0", 32),
        ("layer 1", None),
        ("layer 2", 32),
        ("layer 3", 32),
    ]
    assert section(found, "widths").rows[1] == ("ffn", "layer 1", "64", "gone", "0 %")
    assert "layer 1" in layer_figures.widths(found)


def test_without_names_layers_are_counted(report):
    found = with_widths(report, ({"ffn": (64,) * 3}, {}), ({"ffn": (32,) * 2}, {}))
    assert [(w.layer, w.after) for w in layer_widths(found)] == [
        ("layer 0", 32),
        ("layer 1", 32),
        ("layer 2", None),
    ]


def test_where_nothing_was_cut_there_is_a_line_and_no_figure(report):
    whole = ({"ffn": (64,) * 3}, {})
    found = section(with_widths(report, whole, whole), "widths")
    assert found.rows == []
    assert found.lines == ("dense, pruned, pruned-recovered, int8: ffn 3 x 64",)
    assert layer_figures.widths(with_widths(report, whole, whole)) == ""


def test_only_kinds_that_changed_are_drawn(vision):
    drawn = layer_figures.widths(vision)
    assert "conv2d" in drawn
    assert "linear" not in drawn
    assert all(name in drawn for name in vision.variants[0].layer_names["conv2d"])


def test_the_layer_that_a_cut_hurts_most_comes_first(vision):
    found = section(vision, "cuts")
    assert found.header[-3:] == ("accuracy, 25 % cut", "accuracy, 50 % cut", "accuracy, 75 % cut")
    assert [row[0] for row in found.rows] == ["body.2.first.0", "body.2.second.0", "body.0.0"]
    assert found.rows[0] == ("body.2.first.0", "-", "32", "0.740", "0.550", "0.360")
    assert found.rows[2][1] == "body.2.second.0"
    assert "256 calibration images" in found.lines[1]


def test_a_cut_that_was_passed_over_is_missing(vision):
    first, *rest = vision.pruning_sensitivity.groups
    short = dataclasses.replace(first, cuts=first.cuts[:2])
    sensitivity = dataclasses.replace(vision.pruning_sensitivity, groups=(short, *rest))
    found = section(dataclasses.replace(vision, pruning_sensitivity=sensitivity), "cuts")
    assert found.rows[-1][-1] == "-"


def test_every_group_has_its_line_and_of_many_the_least_sensitive_share_one_name(vision):
    drawn = layer_figures.cuts(vision)
    assert all(name in drawn for name in ("body.0.0 + 1", "body.2.first.0", "cross-entropy"))
    (group, *_) = vision.pruning_sensitivity.groups
    many = tuple(dataclasses.replace(group, layer=f"conv.{i}.") for i in range(40))
    sensitivity = dataclasses.replace(vision.pruning_sensitivity, groups=many)
    drawn = layer_figures.cuts(dataclasses.replace(vision, pruning_sensitivity=sensitivity))
    assert "28 less sensitive" in drawn
    assert sum(f"conv.{i}. + 1" in drawn for i in range(40)) == 12

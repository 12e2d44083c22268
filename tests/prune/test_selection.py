"""Which channels stay: properties over arbitrary scores."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import ConfigError
from compress.prune.selection import best, cheapest_widths, select_global
from compress.prune.shares import rounded_width


def select_local(scores, share, multiple):
    return [best(layer, rounded_width(len(layer), share, multiple)) for layer in scores]


shares = st.floats(0.01, 1.0)
multiples = st.sampled_from([1, 4, 8, 64])
numbers = st.floats(0, 1e6, width=32)
layers = st.lists(st.lists(numbers, min_size=1, max_size=80), min_size=1, max_size=5).map(
    lambda rows: [torch.tensor(row) for row in rows]
)


@pytest.mark.parametrize(
    ("width", "share", "multiple", "expected"),
    [
        (1536, 0.5, 64, 768),
        (1536, 0.49, 64, 768),  # 752.64 is nearer to 768 than to 704
        (1536, 0.475, 64, 704),  # 729.6
        (1536, 0.001, 64, 64),
        (1536, 1.0, 64, 1536),
        (100, 1.0, 64, 100),  # an odd width that stays is not touched
        (100, 0.9, 64, 64),
        (12, 0.5, 1, 6),
        (12, 0.01, 1, 1),
        (40, 0.9, 64, 40),  # narrower than the multiple
    ],
)
def test_rounded_width_by_hand(width, share, multiple, expected):
    assert rounded_width(width, share, multiple) == expected


@given(width=st.integers(1, 5000), share=shares, multiple=multiples)
def test_rounded_width_is_the_nearest_multiple_that_fits(width, share, multiple):
    kept = rounded_width(width, share, multiple)
    assert 1 <= kept <= width
    if kept < width:
        assert kept % multiple == 0
        assert kept == multiple or abs(kept - width * share) <= multiple / 2 + 1e-6


@given(scores=layers, share=shares, multiple=multiples)
def test_local_keeps_the_best_of_each_layer(scores, share, multiple):
    for layer, kept in zip(scores, select_local(scores, share, multiple), strict=True):
        assert len(kept) == rounded_width(len(layer), share, multiple)
        check_best(layer, kept)


@given(scores=layers, share=shares, multiple=multiples)
def test_global_keeps_the_best_of_each_layer_and_empties_none(scores, share, multiple):
    for layer, kept in zip(scores, select_global(scores, share, multiple), strict=True):
        assert len(kept) == len(layer) or len(kept) % multiple == 0
        check_best(layer, kept)


def check_best(layer, kept):
    indices = kept.tolist()
    assert indices == sorted(set(indices))
    assert len(indices) >= 1
    if out := [index for index in range(len(layer)) if index not in indices]:
        assert layer[kept].min() >= layer[out].max()


@given(share=st.floats(0.1, 0.95), seed=st.integers(0, 1000), multiple=st.sampled_from([1, 8]))
def test_global_total_is_close_to_the_share(share, seed, multiple):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(width, generator=generator) for width in (64, 128, 256)]
    total = sum(len(kept) for kept in select_global(scores, share, multiple))
    assert abs(total - share * 448) <= 3 * multiple / 2 + 3  # each layer rounds, and keeps something


def test_local_layers_of_one_width_stay_uniform():
    scores = [torch.rand(96) * 10**i for i in range(4)]
    assert {len(kept) for kept in select_local(scores, 0.4, 8)} == {40}


def test_global_takes_more_where_few_channels_carry_the_layer():
    flat = torch.cat([torch.ones(50), torch.ones(50) * 1.1])
    peaked = torch.cat([torch.zeros(90), torch.ones(10)])
    kept = select_global([flat, peaked], 0.3, 1)
    assert kept[0].tolist() == list(range(50, 100))
    assert kept[1].tolist() == list(range(90, 100))


@given(scores=layers, share=shares, scale=st.sampled_from([0.125, 8.0, 1024.0]))
def test_global_does_not_depend_on_a_layer_s_scale(scores, share, scale):
    wide = [layer for layer in scores if layer.double().std(correction=0) > 1e-3]
    scaled = [wide[0] * scale, *wide[1:]] if wide else []
    counts = [[len(kept) for kept in select_global(s, share, 1)] for s in (wide, scaled) if s]
    if counts:
        assert abs(sum(counts[0]) - sum(counts[1])) <= 1
        assert all(
            abs(a - b) <= max(1, 0.1 * len(wide[i])) for i, (a, b) in enumerate(zip(*counts, strict=True))
        )


def test_global_with_layers_of_a_single_group():
    kept = select_global([torch.tensor([5.0]), torch.tensor([1.0, 2.0, 3.0])], 0.25, 1)
    assert [k.tolist() for k in kept] == [[0], [2]]


@pytest.mark.parametrize("select", [select_local, select_global])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite(select, value):
    with pytest.raises(ConfigError, match="not finite"):
        select([torch.tensor([1.0, value, 2.0, 3.0])], 0.5, 1)


# ---------------------------------------------------------------- widths of their own


def costs_of(count, width):
    rows = st.lists(st.floats(0, 1e3, width=32), min_size=width, max_size=width)
    return st.lists(rows, min_size=count, max_size=count).map(lambda found: [torch.tensor(x) for x in found])


def price_of(costs, widths):
    return sum(float(x.sort().values[: len(x) - w].sum()) for x, w in zip(costs, widths, strict=True))


@given(costs=costs_of(3, 6), share=st.sampled_from([0.5, 0.67, 0.84]))
def test_no_other_widths_of_that_sum_cost_less(costs, share):
    found = cheapest_widths(costs, share, 1)
    alike = rounded_width(6, share, 1)
    least = rounded_width(alike, 0.5, 1)
    every = [w for w in itertools.product(range(least, 7), repeat=3) if sum(w) == 3 * alike]
    assert tuple(found) in every
    assert price_of(costs, found) == pytest.approx(min(price_of(costs, w) for w in every), rel=1e-5, abs=1e-4)


@given(share=st.floats(0.05, 1.0), multiple=st.sampled_from([1, 8, 16, 64]), seed=st.integers(0, 99))
def test_widths_are_multiples_and_no_more_than_asked_for(share, multiple, seed):
    random = torch.Generator().manual_seed(seed)
    costs = [torch.rand(100, generator=random) * 10**i for i in range(4)]
    found, alike = cheapest_widths(costs, share, multiple), rounded_width(100, share, multiple)
    assert all(each == 100 or each % multiple == 0 for each in found)
    assert all(each >= min(alike, multiple) for each in found)
    assert 4 * alike <= sum(found) < 4 * alike + 4 * multiple


def test_channels_leave_where_they_cost_least():
    dear, cheap = torch.arange(8.0) + 10, torch.arange(8.0)
    assert cheapest_widths([dear, cheap], 0.75, 2) == [8, 4]  # 12 of 16, none below 4
    assert cheapest_widths([dear, cheap], 0.5, 2) == [6, 2]  # 2 is half of 4, so the dear one gives too

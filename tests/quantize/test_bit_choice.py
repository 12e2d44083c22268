"""Which layers get 8 bits, by hand and by trying all choices."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import ConfigError
from compress.quantize.bit_choice import bits_of, choose
from compress.schema.quantization import SensitiveLayers


def layer(name, kl, low=100, high=200):
    return SensitiveLayers(names=(name,), bits=4, kl=kl, low_bytes=low, high_bytes=high)


FOUND = [layer("a", 0.5), layer("b", 0.1), layer("c", 0.3, 100, 120), layer("d", 0.0)]


def test_eight_bits_go_where_they_save_most_for_their_bytes():
    choice = choose(FOUND, 10, 540e-6, None)  # 410 bytes in 4 bits, 130 to give
    assert bits_of(choice) == {"a": 8, "b": 4, "c": 8, "d": 4}
    assert choice.size_bytes == 530
    assert choice.kl_of_the_sum == pytest.approx(0.1)


def test_what_is_too_dear_is_passed_over():
    assert bits_of(choose(FOUND, 0, 430e-6, None)) == {"a": 4, "b": 4, "c": 8, "d": 4}


def test_no_more_than_the_divergence_needs():
    assert bits_of(choose(FOUND, 0, None, 0.65)) == {"a": 4, "b": 4, "c": 8, "d": 4}
    assert set(bits_of(choose(FOUND, 0, None, 10.0)).values()) == {4}
    assert choose(FOUND, 0, None, 1e-9).kl_of_the_sum == pytest.approx(0)


def test_both_budgets_size_first():
    choice = choose(FOUND, 0, 430e-6, 1e-9)
    assert choice.size_bytes <= 430
    assert choice.kl_of_the_sum > 1e-9


def test_below_the_smallest():
    big = [layer("a", 0.1, 2_000_000, 4_000_000)]
    with pytest.raises(ConfigError, match=r"found:   2 MB\n  allowed: at least 2\.51 MB"):
        choose(big, 501_000, 2.0, None)
    assert bits_of(choose(big, 501_000, 2.51, None)) == {"a": 4}


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=7), st.integers(0, 200))
def test_it_is_within_one_layer_of_the_best_choice(layers, spare):
    found = [layer(str(i), kl, 10, 10 + price) for i, (kl, price) in enumerate(layers)]
    least = sum(each.low_bytes for each in found)
    choice = choose(found, 0, (least + spare) / 1e6, None)
    assert choice.size_bytes <= least + spare
    best = max(
        sum(each.kl for each in picked)
        for count in range(len(found) + 1)
        for picked in itertools.combinations(found, count)
        if sum(each.high_bytes - each.low_bytes for each in picked) <= spare
    )
    saved = sum(each.kl for each in found) - choice.kl_of_the_sum
    assert saved >= best - max(each.kl for each in found) - 1e-9

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.report.format import (
    bracket,
    brief,
    duration,
    interval,
    number,
    precise,
    relevant_flags,
    run_lengths,
    speed_word,
)
from compress.schema.estimates import Estimate


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.50812, "0.508"),
        (22.0, "22.0"),
        (1234.0, "1230"),
        (0.0, "0"),
        (-0.00612, "-0.00612"),
        (96.04, "96.0"),
        (0.000123, "0.000123"),
        (1e-9, "1.00e-9"),
        (-1.2345e-13, "-1.23e-13"),
        (9.9999e-14, "1.000e-13"),
        (5e-324, "4.94e-324"),
        (math.inf, "inf"),
    ],
)
def test_number_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-6, 1e12) | st.floats(-1e12, -1e-6))
def test_number_is_within_half_a_unit_of_the_third_digit(value: float) -> None:
    assert math.isclose(float(number(value)), value, rel_tol=0.00501)


def test_interval_shares_the_decimals_of_its_largest_number() -> None:
    assert interval(0.508, (0.41, 0.59)) == "0.508 [0.410, 0.590]"
    assert interval(9.81, (9.72, 10.14)) == "9.8 [9.7, 10.1]"
    assert interval(0.0012, (-0.0123, 0.0151)) == "0.0012 [-0.0123, 0.0151]"


def test_an_interval_of_small_numbers_has_powers_of_ten() -> None:
    assert interval(1.3e-13, (0.0, 2.51e-13)) == "1.30e-13 [0, 2.51e-13]"
    assert interval(1.3e-13, (-0.002, 0.003)) == "0.00000 [-0.00200, 0.00300]"
    assert brief(1.3e-13, (1.1e-13, 1.5e-13)) == ("1.30e-13", "[1.10e-13, 1.50e-13]")


@given(st.floats(-1, 1) | st.floats(-1e-4, 1e-4))
def test_a_small_number_is_no_wider_than_others(value: float) -> None:
    assert len(number(value)) <= len("-1.000e-308")


def test_brief_has_the_digits_that_the_interval_allows() -> None:
    assert brief(0.50812, (0.41322, 0.59311)) == ("0.51", "[0.41, 0.59]")
    assert brief(2.664, (2.193, 3.231)) == ("2.7", "[2.2, 3.2]")
    assert brief(27.71, (26.3, 36.4)) == ("28", "[26, 36]")
    assert brief(-0.01834, (-0.03842, 0.00171)) == ("-0.018", "[-0.038, 0.002]")
    assert brief(2.074, (2.0740001, 2.0740002)) == bracket(2.074, (2.0740001, 2.0740002))
    assert brief(1.0, (1.0, 1.0)) == bracket(1.0, (1.0, 1.0))


finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(finite, finite, finite)
def test_brief_is_off_by_a_tenth_of_the_interval_at_most(a: float, b: float, c: float) -> None:
    low, value, high = sorted((a, b, c))
    shown, limits = brief(value, (low, high))
    read = [float(shown), *map(float, limits.strip("[]").split(", "))]
    for number_read, exact in zip(read, (value, low, high), strict=True):
        # half a unit of the second digit of the width, or of the third of the largest number
        assert abs(number_read - exact) <= max(0.0501 * (high - low), 0.00501 * max(abs(low), abs(high)))


def test_a_small_negative_number_does_not_become_minus_zero() -> None:
    assert bracket(-0.000001, (-0.000002, 0.5)) == ("0.000", "[0.000, 0.500]")


@pytest.mark.parametrize(
    ("ci95", "word"),
    [
        ((1.001, 1.2), "faster"),
        ((1.0, 1.2), "not told apart"),
        ((0.9, 1.1), "not told apart"),
        ((0.8, 1.0), "not told apart"),
        ((0.8, 0.999), "slower"),
    ],
)
def test_speed_word_asks_the_whole_interval(ci95: tuple[float, float], word: str) -> None:
    assert speed_word(Estimate(value=sum(ci95) / 2, ci95=ci95)) == word


def test_duration() -> None:
    texts = [duration(seconds) for seconds in (9.8, 59.99, 61, 611, 3599.6, 7322)]
    assert texts == ["9.80 s", "60.0 s", "1 min 01 s", "10 min 11 s", "1 h 00 min", "2 h 02 min"]


def test_a_gate_does_not_round_a_cosine_to_one() -> None:
    assert precise(0.9999998) == "0.9999998"


@given(st.lists(st.integers(1, 4)))
def test_run_lengths_can_be_read_back(widths: list[int]) -> None:
    read: list[int] = []
    for run in filter(None, run_lengths(tuple(widths)).split(", ")):
        count, _, width = run.rpartition(" x ")
        read += [int(width)] * int(count or 1)
    assert read == widths


def test_flags_of_an_unknown_cpu_are_all_shown() -> None:
    assert relevant_flags(["fpu", "avx2", "AMX_INT8"]) == ["avx2", "AMX_INT8"]
    assert relevant_flags(["rv64gcv"]) == ["rv64gcv"]

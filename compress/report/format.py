"""Numbers as text: three significant digits, an interval beside its value, words only where earned."""

import math
from itertools import groupby

from compress.schema.estimates import Estimate

MISSING = "-"
DIGITS = 3
_PLAIN_DECIMALS = 6
_FLAG_PREFIXES = ("avx", "amx", "fma", "f16c", "sse4", "vnni", "neon", "asimd", "sve", "i8mm", "bf16")


def decimals_of(*values: float) -> int:
    """Decimals that give the largest of `values` three significant digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return DIGITS - 1 - math.floor(math.log10(largest)) if largest > 0 else 0


def fixed(value: float, decimals: int) -> str:
    """With a power of ten where a number is so small that zeros alone would fill a column of a table."""
    # adding 0.0 turns the negative zero of a rounded small number into zero
    rounded = round(value, decimals) + 0.0
    if decimals <= _PLAIN_DECIMALS or abs(value) >= 10.0 ** -(_PLAIN_DECIMALS - DIGITS + 1):
        return f"{rounded:.{max(decimals, 0)}f}"
    if rounded == 0:
        return "0"
    digits, exponent = f"{rounded:.{max(0, decimals + math.floor(math.log10(abs(rounded))))}e}".split("e")
    return f"{digits}e{int(exponent)}"


def number(value: float) -> str:
    """`0.5081 -> "0.508"`, `1234 -> "1230"`, `1e-13 -> "1.00e-13"`."""
    return fixed(value, decimals_of(value))


def bracket(value: float, ci95: tuple[float, float]) -> tuple[str, str]:
    """Value and interval with the same decimals, those of the largest: `("0.508", "[0.410, 0.590]")`."""
    return _rounded(value, ci95, decimals_of(value, *ci95))


def brief(value: float, ci95: tuple[float, float]) -> tuple[str, str]:
    """`bracket` with no more digits than the interval allows, which is two of its own width."""
    span = abs(ci95[1] - ci95[0])
    coarse = 1 - math.floor(math.log10(span)) if 0 < span < math.inf else decimals_of(value, *ci95)
    return _rounded(value, ci95, min(coarse, decimals_of(value, *ci95)))


def _rounded(value: float, ci95: tuple[float, float], decimals: int) -> tuple[str, str]:
    return fixed(value, decimals), f"[{fixed(ci95[0], decimals)}, {fixed(ci95[1], decimals)}]"


def interval(value: float, ci95: tuple[float, float]) -> str:
    return " ".join(bracket(value, ci95))


def megabytes(size: float) -> str:
    """1 MB = 10^6 bytes; without the unit, which belongs in the header."""
    return number(size / 1e6)


def percent(share: float) -> str:
    return f"{number(100 * share)} %"


def precise(value: float) -> str:
    """Eight digits, for gates: a cosine of 0.9999998 must not read as 1."""
    return f"{value:.8g}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def speed_word(speedup: Estimate) -> str:
    """Faster or slower only where the whole interval says so."""
    low, high = speedup.ci95
    if low > 1:
        return "faster"
    return "slower" if high < 1 else "not told apart"


def run_lengths(widths: tuple[int, ...]) -> str:
    """`(768, 768, 512) -> "2 x 768, 512"`."""
    runs = [(len(list(run)), width) for width, run in groupby(widths)]
    return ", ".join(f"{count} x {width}" if count > 1 else str(width) for count, width in runs)


def relevant_flags(flags: list[str]) -> list[str]:
    """The CPU flags that decide the speed of a kernel; all of them on a CPU we do not know."""
    return [flag for flag in flags if flag.lower().startswith(_FLAG_PREFIXES)] or flags

"""Recognize printed numbers, and count their digits. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

NUMBER = re.compile(
    r"""
    (?<! [\w.] )  # not the 1 of x1
    (?P<number>
        [-+]? (?: \d{1,3} (?: ,\d{3} )+ | \d+ ) \.\d++ (?: [eE] [-+]? \d+ )?+
        (?= [^\W\d_] )  # a unit may touch a decimal number, as in 31.42dB
      | [-+]? (?:
            (?: \d{1,3} (?: ,\d{3} )+ (?! ,?\d ) | \d+ | (?= \.\d ) )  # 101,770 or 42 or .5
            (?: \.\d* )?
            (?: [eE] [-+]? \d+ )?
          | nan | NaN | inf
        )
        (?! \w | \.\d )  # not the 3 of 3x, nor a part of the version 2.21.0
    )
    """,
    re.VERBOSE,
)


def is_integer(number: str) -> bool:
    """Return whether a printed number is an integer, without a decimal point or an exponent."""
    return not set(number) & set(".eEnN")


def value(number: str) -> float:
    """Return a printed number's value, such as 101770.5 for `101,770.5`."""
    return float(number.replace(",", ""))


def decimals(number: str) -> int:
    """Return the decimal place of the last printed digit: 2 for `0.25`, 6 for `1.5e-05`."""
    mantissa, _, exponent = number.lower().partition("e")
    return len(mantissa.partition(".")[2]) - int(exponent or 0)


def significant(number: str) -> int:
    """Return the number of digits in a printed number, starting at the first nonzero digit."""
    mantissa = number.lower().partition("e")[0]
    return len(re.sub(r"\D", "", mantissa).lstrip("0"))


def largest(numbers: Iterable[str]) -> float:
    """Return the largest magnitude of the finite numbers, or 0 if there are none."""
    sizes = (abs(value(number)) for number in numbers)
    return max((size for size in sizes if math.isfinite(size)), default=0.0)


def are_noise(*numbers: str) -> bool:
    """Return whether all numbers are zero except for the rounding error of a subtraction.

    Such an error is a small multiple of the last bit of the operands. It is therefore a tiny number
    with few significant bits, such as 4.440892098500626e-16 (2**-51). Only about one constant or
    p-value in a thousand has so few significant bits.
    """
    longest = max(map(significant, numbers))
    limit = 1e-6 if longest < 10 else 1e-12  # for float32 and float64
    return all(
        value(number) == 0 or (abs(value(number)) < limit and has_few_bits(number))
        for number in numbers
    )


def has_few_bits(number: str) -> bool:
    """Return whether a number has at most six significant bits, and at least six digits."""
    digits = significant(number)
    mantissa = 64 * abs(math.frexp(value(number))[0])
    return digits >= 6 and abs(mantissa - round(mantissa)) <= 64 * 10.0 ** (1 - digits)


def counted(number: int, noun: str) -> str:
    """Return a count followed by a singular or plural noun, such as `1 cell` or `2 cells`."""
    return f"{number} {noun}{'s' * (number != 1)}"

"""Does a new output say the same as the stored one? Pure functions: no pytest, no Jupyter.

A text is taken as a template, compared exactly, with numbers in it, each compared by its kind.
Integers (counts, shapes, labels) must be equal. A float may differ by what honest machines differ:
float32 rounding before any training; after training what other instruction sets and thread counts
were measured to change. Where that can flip its last printed digit, one unit of it comes on top.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """Where in its notebook a cell stands."""

    UNTRAINED = "before any training"
    TRAINED = "in or after training"


# kind -> (absolute, relative) tolerance. The figures come from runs of one network on AVX-512,
# AVX2 and SSE4.1, with and without oneDNN, on one to four threads: its test loss moved by up to
# 5.7 %, its accuracy by up to 0.0015, any single score by more.
UNTRAINED = (2e-6, 2e-5)
TRAINED = {
    "loss": (0.002, 0.08),
    "accuracy": (0.005, 0.0),
    "percentage": (0.5, 0.0),
    "float": (0.02, 0.0),
}

# From how many decimals on a float may also move by one unit of the last one.
DIGITS = {Phase.UNTRAINED: 4, Phase.TRAINED: 1}

NUMBER = re.compile(
    r"""
    (?<! [\w.] )  # not the 1 of x1
    [-+]?
    (?: \d{1,3} (?: ,\d{3} )+ (?! ,?\d ) | \d+ | (?= \.\d ) )  # 101,770 or 42, or the nothing of .5
    (?: \.\d* )?
    (?: [eE] [-+]? \d+ )?
    (?! \w | \.\d )  # nor the 3 of 3x, nor a part of the version 2.21.0
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Difference:
    """One thing in which a new output differs from the stored one."""

    what: str
    stored: str
    computed: str

    def __str__(self) -> str:
        return f"{self.what}\n    stored:   {self.stored}\n    computed: {self.computed}"


def compare_text(stored: str, computed: str, phase: Phase) -> list[Difference]:
    """Compare two texts line by line.

    Parameters
    ----------
    stored, computed
        The text in the notebook, and what its cell says now.
    phase
        Whether the cell stands before or after the notebook's first training.

    Returns
    -------
    list of Difference
        Empty if both say the same. White space counts only as a separator: NumPy pads a column
        by its widest entry, so that one changed digit moves the others.
    """
    stored_lines, computed_lines = (
        [" ".join(line.split()) for line in text.strip().splitlines()]
        for text in (stored, computed)
    )
    if len(stored_lines) != len(computed_lines):
        return [
            Difference(
                f"{len(stored_lines)} lines of output became {len(computed_lines)}",
                stored.strip(),
                computed.strip(),
            )
        ]
    differences = []
    for line, (old, new) in enumerate(zip(stored_lines, computed_lines, strict=True), start=1):
        reason = compare_line(old, new, phase)
        if reason:
            differences.append(Difference(f"line {line}: {reason}", old, new))
    return differences


def compare_line(stored: str, computed: str, phase: Phase) -> str | None:
    """Return why two lines differ, or None if they say the same."""
    if template(stored) != template(computed):
        return "the text differs"
    for old, new in zip(NUMBER.finditer(stored), NUMBER.finditer(computed), strict=True):
        kind = number_kind(stored, old)
        if old.group() == new.group():
            continue
        if kind == "integer":
            return f"{old.group()} became {new.group()} (an integer: must be equal)"
        allowed = tolerance(old.group(), new.group(), kind, phase)
        moved = abs(value(old.group()) - value(new.group()))
        if moved > allowed:
            return (
                f"{old.group()} became {new.group()}"
                f" ({kind} {phase.value}: at most ±{allowed:.2g}, moved {moved:.2g})"
            )
    return None


def template(text: str) -> str:
    """Return `text` with each number replaced by a mark that says whether it is an integer.

    White space beside brackets and numbers' padding is dropped: `[ 1. 10.]` and `[1. 9.]` have
    the same form.
    """
    marked = NUMBER.sub(lambda match: "§" if is_integer(match.group()) else "#", text)
    return re.sub(r"\s*([\[\](),])\s*", r"\1", marked)


def is_integer(number: str) -> bool:
    """Tell whether a printed number is an integer: no point, no exponent."""
    return not set(number) & set(".eE")


def value(number: str) -> float:
    """Return a printed number's value: `101,770.5` is 101770.5."""
    return float(number.replace(",", ""))


def number_kind(line: str, match: re.Match) -> str:
    """Name a number by what stands around it: a percentage, a loss, an accuracy, or a float."""
    number = match.group()
    if is_integer(number):
        return "integer"
    if line[match.end() :].lstrip().startswith("%"):
        return "percentage"
    # The nearest of the two words before the number, as in `accuracy: 0.93 - loss: 0.25`.
    words = re.findall(r"loss|accuracy", line[: match.start()].lower())
    return words[-1] if words else "float"


def tolerance(stored: str, computed: str, kind: str, phase: Phase) -> float:
    """Return by how much a printed float may move, one unit of its last digit included.

    NumPy strips zeros, so the digits are those of the longer of the two. A number with few digits
    gets no such unit: that the rounding of `0.5` flips is all but impossible before training, and
    of `1.` it would allow 0.
    """
    absolute, relative = UNTRAINED if phase is Phase.UNTRAINED else TRAINED[kind]
    digits = max(decimals(stored), decimals(computed))
    # The slack keeps 0.13 and 0.12 one unit apart: as floats they differ by a little more.
    unit = 10.0**-digits * (1 + 1e-9) if digits >= DIGITS[phase] else 0.0
    return unit + absolute + relative * abs(value(stored))


def decimals(number: str) -> int:
    """Return the place of the last printed digit: 2 for `0.25`, 6 for `1.5e-05`."""
    mantissa, _, exponent = number.lower().partition("e")
    return len(mantissa.partition(".")[2]) - int(exponent or 0)

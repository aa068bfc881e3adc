"""Test that the comparison checks every number that the lessons print."""

from __future__ import annotations

import math
from pathlib import Path

import nbformat
import pytest

from nbval_tolerance.compare import (
    Phase,
    Rules,
    compare_text,
    numbers_of,
    passing,
    rendered,
)
from nbval_tolerance.controls import rules_of
from nbval_tolerance.outputs import text_of
from nbval_tolerance.texts.numbers import decimals, is_integer, value

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def same(stored: str, computed: str, rules: Rules) -> bool:
    return not compare_text(stored, computed, rules).differences


def stored_lines(phase: Phase) -> list[str]:
    """Return all lines that lesson cells print in a given phase, such as before training."""
    lines = []
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, rules in zip(code, rules_of(notebook), strict=True):
            if rules.phase is phase:
                lines += [line for output in cell.outputs for line in text_of(output).splitlines()]
    return lines


@pytest.mark.parametrize("phase", [Phase.UNTRAINED, Phase.FIT, Phase.TRAINED])
def test_every_number_of_the_lessons_is_held(phase):
    """Increase each number (integers by 1, floats by 1 plus 10%); every change must be detected."""
    changed = 0
    for line in stored_lines(phase):
        line = rendered(line)
        moving = passing(line, Rules(phase))  # should be only the times in progress bars
        assert all(found.progress for found in moving), f"{line!r} holds a time or an address"
        times = {match["number"] for found in moving for match in numbers_of(found.text)}
        for match in numbers_of(line):
            number = match["number"]
            if number in times:
                continue
            by = 1 if is_integer(number) else 1 + abs(value(number)) / 10
            places = max(decimals(number), 0)
            other = f"{value(number) + by:.{places}f}" + "." * number.endswith(".")
            other = other if math.isfinite(value(number)) else "0.5"
            mutant = line[: match.start()] + other + line[match.end() :]
            assert not same(line, mutant, Rules(phase)), f"{line!r} -> {mutant!r}"
            changed += 1
    assert changed > 40

"""Give advice on outputs that differ because of random numbers or the clock. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence, Set

from nbval_tolerance.compare import Comparison
from nbval_tolerance.source import Draw


def kinds_of(result: Comparison) -> set[str]:
    """Return what differs: `number`, `range` (a number outside its range), `figure` or `text`."""
    found = {
        "figure" if number.kind == "figure" else "range" if number.between else "number"
        for number in result.numbers
        if number.used > 1
    }
    return found | {each.about for each in result.differences if each.about == "text"}


def advice(
    draws: Sequence[Draw], cell: int, used: Set[int], kinds: Set[str], strict: bool
) -> list[str]:
    """Return advice on which calls may have made a cell's output differ, and on what to do.

    Parameters
    ----------
    draws
        The calls, in the cell and in earlier cells, that draw random numbers or read the clock.
    cell
        The cell's number.
    used
        The numbers of the cell itself and of the cells whose variables it uses. If only text
        differs, only calls in these cells are considered, because random numbers rarely affect
        text.
    kinds
        What differs, as returned by `kinds_of`.
    strict
        Whether the project is strict. In a strict project, nbval's own tags need a reason.
    """
    near = [draw for draw in draws if draw.cell in used]
    causes = near if kinds == {"text"} else draws
    if not causes or not kinds:
        return []

    def farther(draw: Draw) -> tuple[bool, ...]:
        return draw.cell != cell, draw.cell not in used, draw.clock, not draw.seed

    named = [min(causes, key=farther)]
    if named[0].clock:  # the call might only time the cell
        named += [draw for draw in near if not draw.clock][:1]
    seed = next((draw.seed for draw in named if draw.seed), "")
    mend = f"set one, {seed}, or " if seed else ""
    return [f"{' '.join(map(cause, named))} If that is the cause, {mend}{remedy(kinds, strict)}"]


def cause(draw: Draw) -> str:
    """Return a sentence about a call that draws random numbers or reads the clock."""
    does = "and nothing before it sets a seed" if draw.seed else "which cannot be seeded"
    return f"Cell {draw.cell} calls {draw.call}, {'which reads the clock' if draw.clock else does}."


def remedy(kinds: Set[str], strict: bool) -> str:
    """Return advice on how to allow the given kinds of differences."""
    if "text" in kinds:  # 'regression:unseeded' still compares text
        return f"tag the cell 'nbval-ignore-output'{' with a reason' * strict}"
    named = {"number": "'regression:unseeded'", "figure": "'regression:no-figure'"}
    listed = " and ".join(tag for kind, tag in named.items() if kind in kinds)
    tagging = [f"tag the cell {listed} with a reason"] * bool(listed)
    return " and ".join([*tagging, *["widen the range"] * ("range" in kinds)])

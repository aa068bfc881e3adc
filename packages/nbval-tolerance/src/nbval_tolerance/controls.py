"""What an author may say about one cell's comparison, by cell tags. Pure functions.

| Tag | In this cell … | Reason |
|---|---|---|
| `regression:exact` | all is printed the same, each digit; times are data | no |
| `regression:wider-KIND=FACTOR` | that kind of number may move FACTOR times as far | yes |
| `regression:no-figure` | pictures are compared by being there only | yes |
| `regression:unseeded` | numbers come by chance: the text around them is compared | yes |
| `regression:trained` | numbers are those of a trained model | yes |
| `regression:untrained` | no number depends on training | no |
| `regression:seconds=N` | the time limit is N seconds | no |

KIND is one of `KINDS`; FACTOR is greater than 1 and at most 10. Where the last column says yes, the
tag makes the check weaker: the cell's metadata must say why, as `{"regression": {"reason": "…"}}`.
The same holds for nbval's own ways to drop a check, `nbval-skip` and `nbval-ignore-output`, as tag
or comment. Tags without our prefix are other tools' and do not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from nbformat import NotebookNode

from nbval_tolerance.compare import TOLERANCES, Phase, Rules
from nbval_tolerance.source import phases

PREFIX = "regression:"
KINDS = (*TOLERANCES[Phase.TRAINED], "figure")
LONGEST = 24 * 3600.0  # seconds
WIDEST = 10.0  # beyond that a tolerance says nothing: print something that can be compared
KNOWN = (
    f"{PREFIX}exact, {PREFIX}wider-KIND=FACTOR (KIND: {', '.join(KINDS)}), {PREFIX}no-figure, "
    f"{PREFIX}unseeded, {PREFIX}trained, {PREFIX}untrained, {PREFIX}seconds=N"
)
# name -> what it sets
FLAGS = {
    "exact": {"exact": True},
    "no-figure": {"figures": False},
    "unseeded": {"seeded": False},
    "trained": {"phase": Phase.TRAINED},
    "untrained": {"phase": Phase.UNTRAINED},
}
WEAKER = {"wider", "no-figure", "unseeded", "trained"}
CONTRADICTIONS = (
    {"trained", "untrained"},
    {"exact", "wider"},
    {"exact", "unseeded"},
    {"unseeded", "wider"},
)
# nbval's ways to drop a check: as tags, as comments, and the last one's old name.
NBVAL = re.compile(r"nbval[-_]skip|nbval[-_]ignore[-_]output|pytest_validate_ignore_output", re.I)


class ControlError(ValueError):
    """A cell's tags are wrong; the message is a sentence, without the cell's name."""


def rules_of(notebook: NotebookNode) -> list[Rules]:
    """Return the rules for each code cell: by its phase and its tags.

    A cell whose tags are wrong is held to the strict rules; the stored state says what is wrong.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    for cell, phase in zip(cells, phases(notebook), strict=True):
        try:
            found.append(rules(cell, phase))
        except ControlError:
            found.append(Rules(phase))
    return found


def rules(cell: NotebookNode, phase: Phase) -> Rules:
    """Return one code cell's rules.

    Raises
    ------
    ControlError
        If a tag with our prefix is unknown or its value is wrong; if two contradict each other; if
        one that makes the check weaker has no reason next to it.
    """
    tags = cell.metadata.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ControlError(f"the cell's tags are not a list of texts: {tags!r}")
    if not isinstance(cell.metadata.get("regression", {}), Mapping):
        raise ControlError('the cell\'s metadata must be {"regression": {"reason": "…"}}')
    found = Rules(phase)
    weaker = nbval_marks(cell)
    seen: dict[str, str] = {}  # what a tag is about -> the tag
    for tag in tags:
        if not tag.strip().lower().startswith(PREFIX):
            continue
        name, equals, text = tag.removeprefix(PREFIX).partition("=")
        kind = name.removeprefix("wider-")
        if name in FLAGS and not equals:
            found = replace(found, **FLAGS[name])
        elif name.startswith("wider-") and kind in KINDS:
            found = replace(found, wider={**found.wider, kind: number(tag, text, 1, WIDEST)})
        elif name == "seconds":
            found = replace(found, seconds=number(tag, text, 0, LONGEST))
        else:
            raise ControlError(f"the tag {tag!r} is not known; there are {KNOWN}")
        if seen.setdefault(name, tag) != tag:
            raise ControlError(f"the tags {seen[name]!r} and {tag!r} contradict each other")
        if name.partition("-")[0] in WEAKER or name in WEAKER:
            weaker.append(tag)
    kinds = {name.partition("-")[0] for name in seen}
    for pair in CONTRADICTIONS:
        if pair <= kinds:
            raise ControlError(f"the tags {' and '.join(sorted(pair))} contradict each other")
    reason = notes(cell).get("reason", "")
    if weaker and len(str(reason).split()) < 3:  # "flaky" is no reason, "needs a GPU" is one
        raise ControlError(
            f"{' and '.join(map(repr, weaker))} makes the check weaker, without a reason: write a "
            'sentence into the cell\'s metadata, as {"regression": {"reason": "…"}}'
        )
    return found


def notes(cell: NotebookNode) -> Mapping:
    """Return what a cell's metadata say to us: its source's hash, a reason; empty if malformed."""
    found = cell.metadata.get("regression", {})
    return found if isinstance(found, Mapping) else {}


def number(tag: str, text: str, low: float, high: float) -> float:
    """Return a tag's number; raise `ControlError` if it is not in `(low, high]`."""
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not low < found <= high:
        raise ControlError(f"the tag {tag!r} takes a number above {low:g} and at most {high:g}")
    return found


def nbval_marks(cell: NotebookNode) -> list[str]:
    """Return those of a cell's tags and comments by which nbval drops a check."""
    lines = [line.strip() for line in cell.source.splitlines()]
    comments = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    marks = [*map(str, cell.metadata.get("tags", [])), *comments]
    return [mark for mark in marks if NBVAL.fullmatch(mark)]

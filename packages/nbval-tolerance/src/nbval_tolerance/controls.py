"""What an author can say about the comparison: tags and metadata of a cell or a notebook.

Tags, in JupyterLab's property inspector:

| Tag | In this cell … | Reason |
|---|---|---|
| `regression:exact` | everything is printed the same, each digit and blank; times are data | no |
| `regression:wider-KIND=FACTOR` | numbers of that kind may differ FACTOR times as much | yes |
| `regression:no-figure` | a picture must be there, whatever it shows | yes |
| `regression:unseeded` | numbers are random: only the text around them is compared | yes |
| `regression:trained` | numbers are compared as those of a trained model | yes |
| `regression:untrained` | no number depends on training | no |
| `regression:stderr` | stderr may be stored; for strict projects only | yes |
| `regression:seconds=N` | the time limit is N seconds | no |

KIND is one of `KINDS`; FACTOR is greater than 1 and at most 10. A tag that weakens the check needs
a reason. Tags without the prefix belong to other tools.

Metadata, in JupyterLab's advanced tools:

| Key of `regression` | Value |
|---|---|
| `probes` | name -> expression, whose value is stored and compared, and never displayed |
| `between` | kind of number, or words before it -> [least, greatest]; needs a reason |
| `reason` | a sentence: why the check is weaker here |
| `tags` | of the notebook's own metadata only: tags for all of its cells |

`alt`, beside `regression`, is a figure's alternative text, or a list of them.
`nbval-tolerance execute` adds `source`, a hash, and `values`, those of the probes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite

from nbformat import NotebookNode

from nbval_tolerance.compare import TOLERANCES, Phase, Rules
from nbval_tolerance.config import DEFAULTS, Config
from nbval_tolerance.source import clock_read, phases, reads_clock, results

PREFIX = "regression:"
KEY = PREFIX.removesuffix(":")
KINDS = (*TOLERANCES[Phase.TRAINED], "figure")
KEYS = {
    "cell": ("probes", "between", "reason", "source", "values"),
    "notebook": ("tags", "reason"),
}
LONGEST = 24 * 3600.0  # seconds
WIDEST = 10.0  # beyond that a tolerance says nothing: print something that can be compared
KNOWN = (
    f"{PREFIX}exact, {PREFIX}wider-KIND=FACTOR (KIND: {', '.join(KINDS)}), {PREFIX}no-figure, "
    f"{PREFIX}unseeded, {PREFIX}trained, {PREFIX}untrained, {PREFIX}stderr, {PREFIX}seconds=N"
)
# name -> what it sets
FLAGS = {
    "exact": {"exact": True},
    "no-figure": {"figures": False},
    "unseeded": {"seeded": False},
    "trained": {"phase": Phase.TRAINED},
    "untrained": {"phase": Phase.UNTRAINED},
    "stderr": {},
}
WEAKER = {"wider", "no-figure", "unseeded", "trained", "stderr"}
# What leaves what nothing to do.
IDLE = (
    ("exact", "unseeded"),
    ("exact", "wider"),
    ("exact", "between"),
    ("unseeded", "wider"),
    ("no-figure", "wider-figure"),
)
# nbval's ways to drop a check: as tags, as comments, and the last one's old name.
DROPPED = re.compile(r"nbval[-_]skip|nbval[-_]ignore[-_]output|pytest_validate_ignore_output", re.I)
SKIPPED = re.compile(r"nbval[-_]skip|skip-execution", re.I)
RAISES = re.compile(r"(?:nbval[-_])?raises[-_]exception", re.I)


class ControlError(ValueError):
    """Tags or metadata are wrong; the message is a sentence, without the cell's name."""


def rules_of(notebook: NotebookNode, config: Config = DEFAULTS) -> list[Rules]:
    """Return the rules for each code cell: by its phase, its tags, and those of the notebook.

    A cell whose tags are wrong is held to the strict rules; the stored state says what is wrong.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    told = (source(notebook, config) for source in (phases, results, reads_clock, clock_read))
    found = []
    for cell, phase, result, reads, may_read in zip(cells, *told, strict=True):
        start = Rules(
            phase,
            figures=config.figures,
            result=result,
            clock=True if reads else None if may_read else False,
            words=config.words,
            tolerances=config.tolerances,
            skip=config.skip,
        )
        try:
            found.append(rules(cell, start, notebook))
        except ControlError:
            found.append(start)
    return found


def rules(cell: NotebookNode, start: Rules, notebook: NotebookNode | None = None) -> Rules:
    """Return one code cell's rules.

    Parameters
    ----------
    cell
        The cell.
    start
        What holds where neither cell nor notebook say otherwise.
    notebook
        Whose tags hold for all cells; a cell's own come after them.

    Raises
    ------
    ControlError
        If a tag with our prefix is unknown or its value is wrong; if two contradict each other, or
        would do nothing; if one that weakens the check has no reason; if `probes` or `between` are
        not as they must be.
    """
    found = start
    for node in filter(None, (notebook, cell)):
        found = apply(tags_of(node), notes(node), found)
    about = notes(cell)
    ranges = between(about)
    if ranges:
        need_reason([f"between {', '.join(map(repr, ranges))}"], about)
    check_keys(cell)
    found = replace(found, between=ranges)
    check_effect(cell, start, found)
    return found


def check_effect(cell: NotebookNode, start: Rules, found: Rules) -> None:
    """Raise `ControlError` if one of a cell's controls leaves another one nothing to do."""
    controls = {
        "exact": found.exact,
        "unseeded": not found.seeded,
        "wider": any(kind != "figure" for kind in found.wider),
        "between": bool(found.between),
        "no-figure": start.figures and not found.figures,  # the tag, not the project
        "wider-figure": "figure" in found.wider,
    }
    for one, other in IDLE:
        if controls[one] and controls[other]:
            raise ControlError(
                f"{one!r} leaves {other!r} nothing to do: they contradict each other, in the tags "
                "and metadata of this cell and its notebook"
            )
    ours = [tag for tag in tags_of(cell) if tag.startswith(PREFIX)]
    ours += [key for key in ("probes", "between") if notes(cell).get(key)]
    skipped = marks(cell, SKIPPED)
    if ours and (skipped or not cell.source.strip()):
        why = f"is not run ({skipped[0]})" if skipped else "is empty"
        raise ControlError(f"the cell {why}, so {', '.join(map(repr, ours))} would do nothing")


def check_notebook(notebook: NotebookNode) -> None:
    """Raise `ControlError` for a notebook's own tags and metadata, as `rules` does for a cell's."""
    apply(tags_of(notebook), notes(notebook), Rules())
    check_keys(notebook)
    outside = notebook.metadata.get("tags", [])
    if any(str(tag).startswith(PREFIX) for tag in outside if isinstance(outside, list)):
        raise ControlError(
            f'tags for all cells stand in the metadata as {{"{KEY}": {{"tags": ["…"]}}}}'
        )


def text_cell_errors(notebook: NotebookNode) -> dict[str, str]:
    """Return which cells without code have tags or metadata of ours: they would do nothing."""
    found = {}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" and (
            KEY in cell.metadata or any(str(tag).startswith(PREFIX) for tag in tags)
        ):
            first = cell.source.strip().partition("\n")[0][:50]
            found[f"The {cell.cell_type} cell {first!r}"] = (
                f"a tag with {PREFIX!r}, or metadata {KEY!r}, says nothing of a cell without code; "
                "remove it"
            )
    return found


def check_keys(node: NotebookNode) -> None:
    """Raise `ControlError` for metadata of a cell or notebook that are wrong or do nothing."""
    known = KEYS["notebook" if "cells" in node else "cell"]
    about = notes(node)
    for key in about:
        if key not in known:
            raise ControlError(f"{KEY}: {key!r} is not known; the keys are {', '.join(known)}")
    if not isinstance(about.get("reason", ""), str):
        raise ControlError(f"the reason is a sentence, and not {about['reason']!r}")
    values = about.get("values", {})
    written = [about.get("source", ""), *(values.values() if isinstance(values, Mapping) else [0])]
    if not all(isinstance(text, str) for text in written):
        raise ControlError(
            f"{KEY}: `nbval-tolerance execute` writes 'source' and 'values', and has not written "
            "these; remove both"
        )
    expressions(about)
    alt = node.metadata.get("alt", "")
    texts = alt if isinstance(alt, list) else [alt]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ControlError(f"alt takes a text, or a list of one for each figure, not {alt!r}")


def apply(tags: list[str], about: Mapping, found: Rules) -> Rules:
    """Return rules as some tags change them; raise `ControlError` as `rules` does."""
    weaker: list[str] = []
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
    if {"trained", "untrained"} <= set(seen):
        raise ControlError("the tags 'trained' and 'untrained' contradict each other")
    need_reason(weaker, about)
    return found


def need_reason(weaker: list[str], about: Mapping) -> None:
    """Raise `ControlError` if something weakens the check and the metadata give no reason."""
    reason = about.get("reason")
    if weaker and (not isinstance(reason, str) or len(reason.split()) < 3):  # "flaky" says nothing
        listed, s = " and ".join(map(repr, weaker)), "s" * (len(weaker) == 1)
        raise ControlError(
            f"{listed} make{s} the check weaker, without a reason: write a "
            f'sentence of three words or more into the metadata, as {{"{KEY}": {{"reason": "…"}}}}'
        )


def tags_of(node: NotebookNode) -> list[str]:
    """Return the tags of a cell, or those that a notebook gives to all of its cells.

    Raises
    ------
    ControlError
        If they, or the metadata that are ours, are of another form.
    """
    if not isinstance(node.metadata.get(KEY, {}), Mapping):
        raise ControlError(f'the metadata must be {{"{KEY}": {{"reason": "…"}}}}')
    tags = notes(node).get("tags", []) if "cells" in node else node.metadata.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ControlError(f"the tags are not a list of texts: {tags!r}")
    return tags


def notes(node: NotebookNode) -> Mapping:
    """Return what the metadata of a cell or notebook say to us; empty if malformed."""
    found = node.metadata.get(KEY, {})
    return found if isinstance(found, Mapping) else {}


def expressions(about: Mapping) -> dict[str, str]:
    """Return a cell's probes, name -> expression; raise `ControlError` if they are malformed."""
    probes = about.get("probes", {})
    if not isinstance(probes, Mapping) or not all(
        isinstance(text, str) and text.strip() for text in (*probes.keys(), *probes.values())
    ):
        raise ControlError(
            f'the probes must be {{"name": "expression"}}, such as '
            f'{{"untrained scores": "model(x[:1])"}}, not {probes!r}'
        )
    for name, expression in probes.items():
        try:
            compile(expression, "<probe>", "eval")
        except SyntaxError as error:
            raise ControlError(f"probe {name!r} is not an expression: {error.msg}") from None
    return dict(probes)


def between(about: Mapping) -> dict[str, tuple[float, float]]:
    """Return a cell's ranges, by kind or words; raise `ControlError` if they are malformed."""
    ranges = about.get("between", {})
    if not isinstance(ranges, Mapping):
        raise ControlError(f'between must be {{"accuracy": [0.1, 0.6]}}, not {ranges!r}')
    for key, pair in ranges.items():
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(type(end) in (int, float) and isfinite(end) for end in pair)
            or not pair[0] < pair[1]
        ):
            raise ControlError(
                f"between: {key!r} takes two numbers, [least, greatest], and not {pair!r}"
            )
    return {key: (float(low), float(high)) for key, (low, high) in ranges.items()}


def number(tag: str, text: str, low: float, high: float) -> float:
    """Return a tag's number; raise `ControlError` if it is not in `(low, high]`."""
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not low < found <= high:
        raise ControlError(f"the tag {tag!r} takes a number above {low:g} and at most {high:g}")
    return found


def marks(cell: NotebookNode, of: re.Pattern) -> list[str]:
    """Return those of a cell's tags and comments which one of the patterns above matches."""
    lines = [line.strip() for line in cell.source.splitlines()]
    comments = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    tags = cell.metadata.get("tags", [])
    return [mark for mark in [*map(str, tags), *comments] if of.fullmatch(mark)]

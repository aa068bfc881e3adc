"""Read the tags and metadata that control how cells and notebooks are compared.

Tags, in JupyterLab's property inspector:

| Tag | In this cell … | Needs a reason |
|---|---|---|
| `regression:exact` | the output must match exactly, including spaces and times | no |
| `regression:wider-KIND=FACTOR` | FACTOR multiplies the tolerance for that kind of number | yes |
| `regression:no-figure` | a picture must be present but may show anything | yes |
| `regression:unseeded` | numbers are random, so only the text around them is compared | yes |
| `regression:trained` | numbers are compared like those of a trained model | yes |
| `regression:untrained` | no number depends on training | no |
| `regression:stderr` | stderr may be stored; for strict projects only | yes |
| `regression:seconds=N` | the time limit is N seconds | no |

KIND is one of `KINDS`; FACTOR is greater than 1 and at most 10. A tag that weakens the check needs
a reason. Tags without the `regression:` prefix belong to other tools.

Metadata, in JupyterLab's advanced tools:

| Key of `regression` | Value |
|---|---|
| `probes` | name -> expression, whose value is stored and compared but never displayed |
| `between` | kind of number, or words before it -> [minimum, maximum]; needs a reason |
| `reason` | a sentence that says why the check is weaker here |
| `tags` | only in the notebook's own metadata: tags for all of its cells |

The `alt` key, next to `regression`, contains a figure's alternative text, or a list of texts for
several figures. `nbval-tolerance execute` adds `source`, a hash of the cell's source, and `values`,
the values of the probes.
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
WIDEST = 10.0  # the maximum FACTOR: a wider tolerance would be meaningless
KNOWN = (
    f"{PREFIX}exact, {PREFIX}wider-KIND=FACTOR (KIND: {', '.join(KINDS)}), {PREFIX}no-figure, "
    f"{PREFIX}unseeded, {PREFIX}trained, {PREFIX}untrained, {PREFIX}stderr, {PREFIX}seconds=N"
)
# Maps each tag's name to the fields of `Rules` that the tag sets.
FLAGS = {
    "exact": {"exact": True},
    "no-figure": {"figures": False},
    "unseeded": {"seeded": False},
    "trained": {"phase": Phase.TRAINED},
    "untrained": {"phase": Phase.UNTRAINED},
    "stderr": {},
}
WEAKER = {"wider", "no-figure", "unseeded", "trained", "stderr"}
# Contradictory controls: the first of each pair makes the second pointless.
IDLE = (
    ("exact", "unseeded"),
    ("exact", "wider"),
    ("exact", "between"),
    ("unseeded", "wider"),
    ("no-figure", "wider-figure"),
)
# nbval's tags and comments that disable a check. The third pattern is an old name for the second.
DROPPED = re.compile(r"nbval[-_]skip|nbval[-_]ignore[-_]output|pytest_validate_ignore_output", re.I)
SKIPPED = re.compile(r"nbval[-_]skip|skip-execution", re.I)
RAISES = re.compile(r"(?:nbval[-_])?raises[-_]exception", re.I)


class ControlError(ValueError):
    """Tags or metadata are invalid; the message does not name the cell."""


def rules_of(notebook: NotebookNode, config: Config = DEFAULTS) -> list[Rules]:
    """Return each code cell's rules, derived from its phase, its tags and the notebook's tags.

    A cell with invalid tags is compared as if it had no tags. The stored-state test reports the
    error.
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
        The rules that apply unless the tags of the cell or the notebook change them.
    notebook
        The cell's notebook, whose tags are applied before the cell's tags.

    Raises
    ------
    ControlError
        If a tag with the `regression:` prefix is unknown or has an invalid value; if two tags
        contradict each other; if a tag would have no effect; if a tag that weakens the check has no
        reason; or if `probes` or `between` is malformed.
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
    """Raise `ControlError` if one of a cell's tags or metadata keys makes another pointless."""
    controls = {
        "exact": found.exact,
        "unseeded": not found.seeded,
        "wider": any(kind != "figure" for kind in found.wider),
        "between": bool(found.between),
        # True only if a tag, not the project's settings, disables the comparison of figures.
        "no-figure": start.figures and not found.figures,
        "wider-figure": "figure" in found.wider,
    }
    for one, other in IDLE:
        if controls[one] and controls[other]:
            raise ControlError(
                f"{one!r} makes {other!r} pointless: they contradict each other in the tags and "
                "metadata of this cell and its notebook"
            )
    ours = [tag for tag in tags_of(cell) if tag.startswith(PREFIX)]
    ours += [key for key in ("probes", "between") if notes(cell).get(key)]
    skipped = marks(cell, SKIPPED)
    if ours and (skipped or not cell.source.strip()):
        why = f"is not run ({skipped[0]})" if skipped else "is empty"
        raise ControlError(f"the cell {why}, so {', '.join(map(repr, ours))} would do nothing")


def check_notebook(notebook: NotebookNode) -> None:
    """Raise `ControlError` if the tags or metadata of the notebook itself are invalid."""
    apply(tags_of(notebook), notes(notebook), Rules())
    check_keys(notebook)
    outside = notebook.metadata.get("tags", [])
    if any(str(tag).startswith(PREFIX) for tag in outside if isinstance(outside, list)):
        raise ControlError(
            f'tags for all cells belong in the metadata as {{"{KEY}": {{"tags": ["…"]}}}}'
        )


def text_cell_errors(notebook: NotebookNode) -> dict[str, str]:
    """Return errors for text cells with our tags or metadata, which affect only code cells."""
    found = {}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" and (
            KEY in cell.metadata or any(str(tag).startswith(PREFIX) for tag in tags)
        ):
            first = cell.source.strip().partition("\n")[0][:50]
            found[f"The {cell.cell_type} cell {first!r}"] = (
                f"a tag with {PREFIX!r}, or metadata {KEY!r}, has no effect on a cell without "
                "code; remove it"
            )
    return found


def check_keys(node: NotebookNode) -> None:
    """Raise `ControlError` if the metadata of a cell or notebook is invalid or has no effect."""
    known = KEYS["notebook" if "cells" in node else "cell"]
    about = notes(node)
    for key in about:
        if key not in known:
            raise ControlError(f"{KEY}: {key!r} is not known; the keys are {', '.join(known)}")
    if not isinstance(about.get("reason", ""), str):
        raise ControlError(f"the reason must be a sentence, not {about['reason']!r}")
    values = about.get("values", {})
    written = [about.get("source", ""), *(values.values() if isinstance(values, Mapping) else [0])]
    if not all(isinstance(text, str) for text in written):
        raise ControlError(
            f"{KEY}: only `nbval-tolerance execute` writes 'source' and 'values', and it did not "
            "write these; remove both"
        )
    expressions(about)
    alt = node.metadata.get("alt", "")
    texts = alt if isinstance(alt, list) else [alt]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ControlError(f"alt takes a string, or a list of one for each figure, not {alt!r}")


def apply(tags: list[str], about: Mapping, found: Rules) -> Rules:
    """Apply tags to rules and return the result; raise `ControlError` as in `rules`."""
    weaker: list[str] = []
    seen: dict[str, str] = {}  # maps a tag's name, without its value, to the tag
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
            raise ControlError(f"the tag {tag!r} is not known; the tags are {KNOWN}")
        if seen.setdefault(name, tag) != tag:
            raise ControlError(f"the tags {seen[name]!r} and {tag!r} contradict each other")
        if name.partition("-")[0] in WEAKER or name in WEAKER:
            weaker.append(tag)
    if {"trained", "untrained"} <= set(seen):
        raise ControlError("the tags 'trained' and 'untrained' contradict each other")
    need_reason(weaker, about)
    return found


def need_reason(weaker: list[str], about: Mapping) -> None:
    """Raise `ControlError` if the check is weakened but the metadata gives no reason."""
    reason = about.get("reason")
    if weaker and (not isinstance(reason, str) or len(reason.split()) < 3):  # "flaky" is no reason
        listed, s = " and ".join(map(repr, weaker)), "s" * (len(weaker) == 1)
        raise ControlError(
            f"{listed} make{s} the check weaker without a reason: write a sentence "
            f'of three words or more into the metadata, as {{"{KEY}": {{"reason": "…"}}}}'
        )


def tags_of(node: NotebookNode) -> list[str]:
    """Return a cell's tags, or the tags that a notebook applies to all of its cells.

    Raises
    ------
    ControlError
        If the tags or the `regression` metadata are malformed.
    """
    if not isinstance(node.metadata.get(KEY, {}), Mapping):
        raise ControlError(f'the metadata must be {{"{KEY}": {{"reason": "…"}}}}')
    tags = notes(node).get("tags", []) if "cells" in node else node.metadata.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ControlError(f"the tags are not a list of strings: {tags!r}")
    return tags


def notes(node: NotebookNode) -> Mapping:
    """Return the `regression` entry in cell or notebook metadata, or {} if it is malformed."""
    found = node.metadata.get(KEY, {})
    return found if isinstance(found, Mapping) else {}


def expressions(about: Mapping) -> dict[str, str]:
    """Return a cell's probes as name -> expression; raise `ControlError` if they are malformed."""
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
    """Return a cell's ranges by key; raise `ControlError` if they are malformed."""
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
                f"between: {key!r} takes two numbers, [minimum, maximum], not {pair!r}"
            )
    return {key: (float(low), float(high)) for key, (low, high) in ranges.items()}


def number(tag: str, text: str, low: float, high: float) -> float:
    """Return the number in a tag; raise `ControlError` if it is not in `(low, high]`."""
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not low < found <= high:
        raise ControlError(f"the tag {tag!r} takes a number above {low:g} and at most {high:g}")
    return found


def marks(cell: NotebookNode, of: re.Pattern) -> list[str]:
    """Return a cell's tags and comments that match the regular expression `of`."""
    lines = [line.strip() for line in cell.source.splitlines()]
    comments = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    tags = cell.metadata.get("tags", [])
    return [mark for mark in [*map(str, tags), *comments] if of.fullmatch(mark)]

"""Check that a notebook's stored outputs are a valid reference. Pure functions.

The check needs no kernel and takes milliseconds.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping

from nbformat import NotebookNode

from nbval_tolerance import alt
from nbval_tolerance.compare import Rules, compare_text, has_frames, numbers_of, passing
from nbval_tolerance.config import DEFAULTS, Config
from nbval_tolerance.controls import (
    DROPPED,
    KEY,
    PREFIX,
    RAISES,
    SKIPPED,
    ControlError,
    check_notebook,
    expressions,
    marks,
    need_reason,
    notes,
    rules,
    rules_of,
    tags_of,
    text_cell_errors,
)
from nbval_tolerance.outputs import alt_text, rich_text, text_of, without_pictures
from nbval_tolerance.source import parse, variables
from nbval_tolerance.texts.numbers import counted

AGAIN = "execute the notebook again"
NOTEBOOK = "The notebook"
STDERR = f"{PREFIX}stderr"
LENIENT = f"the tag {STDERR!r} does nothing: it is for projects that set `strict`; remove it"


def source_hash(cell: NotebookNode) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 hash of a cell's source and probes.

    Line endings, and white space at the end of the source, are ignored, because editors and
    formatters change them without affecting any output.
    """
    return hash_of(cell.source, notes(cell).get("probes"))


def hash_of(source: str, probes: Mapping | None) -> str:
    """Return the hash of a source and its probes."""
    text = "\n".join(source.splitlines()).rstrip()
    if probes:
        text += "\n" + json.dumps(probes, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamp(notebook: NotebookNode) -> None:
    """Store in each code cell a hash of its source, in `metadata.regression.source`.

    Call this function right after executing all cells, so that each hash corresponds to the cell's
    output.
    """
    for _, cell in code_cells(notebook):
        cell.metadata.setdefault(KEY, NotebookNode())["source"] = source_hash(cell)


def code_cells(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Yield each code cell with its name: nbval's number and the number that Jupyter shows."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells):
        yield f"Cell {number}, shown as [{cell.execution_count or ' '}]", cell


def problems(notebook: NotebookNode, config: Config = DEFAULTS) -> list[str]:
    """Return the problems with a notebook's stored state, which must meet these conditions.

    - Every code cell that is not empty was executed once and in order, as [1], [2], … [n].
    - Each output was produced by the current source of its cell (see `stamp`). This condition is
    not checked if no
      cell has a hash.
    - A cell stores an error if and only if a tag says that the cell raises an exception.
    - Tags and metadata are valid (see `controls`) and fit the outputs: each probe has a value, each
      range matches a number, each figure has its alternative text, and a tag that widens a
      tolerance applies to something that the cell shows.
    - In a project that sets `strict`, a cell stores no stderr and no text that differs from run to
      run, such as a time, an address, or the frames of a progress bar, unless a tag allows it.

    Returns
    -------
    list of str
        Messages in the order of the cells. Each message names a cell and says what to do next. The
        list is empty if there are no problems.
    """
    cells = list(code_cells(notebook))
    stamped = any("source" in notes(cell) for _, cell in cells)
    run = [cell for _, cell in cells if cell.source.strip() and not marks(cell, SKIPPED)]
    never = bool(run) and all(cell.execution_count is None for cell in run)
    found = ["no cell was ever executed; execute the notebook"] if never else []
    wrong = control_errors(notebook)
    names = {where for where, _ in cells}
    found += [f"{where}: {error}" for where, error in wrong.items() if where not in names]
    shared = None if NOTEBOOK in wrong else notebook
    if shared and not config.strict and STDERR in tags_of(shared):
        found.append(f"{NOTEBOOK}: {LENIENT}")
    before = 0
    for (where, cell), found_rules in zip(cells, rules_of(notebook, config), strict=True):
        complaints: list[str] = []
        if cell.source.strip() and not never:
            complaints += [*run_problems(cell, before, stamped), *error_problems(cell)]
            if config.strict:
                complaints += passing_problems(cell, found_rules, shared)
        if where in wrong:
            complaints.append(wrong[where])
        elif cell.execution_count is not None:
            complaints += control_problems(cell, rules(cell, found_rules, shared))
            complaints += idle_stderr(cell, config.strict)
        if config.strict and (dropped := marks(cell, DROPPED)):
            complaints += reason_problems(dropped, cell)
        found += [f"{where}: {complaint}" for complaint in complaints]
        before = cell.execution_count or before
    return found


def control_errors(notebook: NotebookNode) -> dict[str, str]:
    """Return the errors in tags and metadata, keyed by the cell's name or by `NOTEBOOK`."""
    found = text_cell_errors(notebook)
    shared: NotebookNode | None = notebook
    try:
        check_notebook(notebook)
    except ControlError as error:
        found = {NOTEBOOK: str(error)} | found
        shared = None  # report this error once, not for each cell
    for where, cell in code_cells(notebook):
        try:
            rules(cell, Rules(), shared)
        except ControlError as error:
            found[where] = str(error)
    return found


def run_problems(cell: NotebookNode, before: int, stamped: bool) -> Iterator[str]:
    """Yield the problems with a cell's execution; `before` is the previous execution count."""
    if cell.execution_count is None:
        if not marks(cell, SKIPPED):
            yield f"was never executed; {AGAIN}"
        return
    if cell.execution_count != before + 1:
        yield f"follows [{before or ' '}]: cells were run twice, out of order, or deleted; {AGAIN}"
    if stamped and (what := edited(cell)):
        yield f"{what}; {AGAIN}"


def edited(cell: NotebookNode) -> str:
    """Describe what, according to the hash, was edited in a cell after its output was stored."""
    about = notes(cell)
    noted, probes, values = (about.get(key, {}) for key in ("source", "probes", "values"))
    # Malformed metadata is reported elsewhere.
    known = isinstance(probes, Mapping) and isinstance(values, Mapping)
    if noted == source_hash(cell):
        same = not known or list(values) == list(probes)
        return "" if same else "its probes and their stored values have different names"
    if not known or not (probes or values):
        return "was edited after its output was stored"
    before = {name: expression for name, expression in probes.items() if name in values}
    if noted == hash_of(cell.source, before):
        return "its probes changed after their values were stored"
    # The hash does not show whether the source or the probes changed.
    return "its source or its probes changed after its output was stored"


def control_problems(cell: NotebookNode, found: Rules) -> Iterator[str]:
    """Yield a complaint for each contradiction between a cell's metadata and its outputs."""
    values = notes(cell).get("values", {})
    texts = [readable(output) for output in cell.outputs]
    matched, outside, kinds = set(), [], set()
    for label, text in [*(("", text) for text in texts), *values.items()]:
        here = compare_text(text, text, found, label=label)
        matched |= here.ranged
        kinds |= {number.kind.removeprefix("held-out ") for number in here.numbers}
        outside += [difference.what for difference in here.differences]
    yield from outside
    for key in sorted(set(found.between) - matched):
        yield f"between: no number is {key!r}; give a kind, a probe's name, or the words before it"
    if "spread" in kinds:
        kinds.add("float")  # spreads use the tolerance for `float`
    if has_picture(cell):
        kinds.add("figure")
    yield from idle_problems(cell, kinds)
    yield from alt_problems(cell)


def has_picture(cell: NotebookNode) -> bool:
    """Return whether a cell shows a picture, either directly or inside HTML or Markdown."""
    shown = [item for output in cell.outputs for item in output.get("data", {}).items()]
    return any(
        kind.startswith("image/")
        or (kind in ("text/html", "text/markdown") and re.search("data:image/|<svg|<img", content))
        for kind, content in shown
    )


def idle_problems(cell: NotebookNode, kinds: set[str]) -> Iterator[str]:
    """Yield a complaint for each tag about something that the cell's output does not contain."""
    if marks(cell, DROPPED):
        return  # an ignored output may contain anything
    own = rules(cell, Rules())
    for kind in sorted(set(own.wider) - kinds):
        yield f"the tag '{PREFIX}wider-{kind}' does nothing: the cell shows no {kind}"
    if not own.figures and "figure" not in kinds:
        yield f"the tag '{PREFIX}no-figure' does nothing: the cell shows no figure"


def idle_stderr(cell: NotebookNode, strict: bool) -> Iterator[str]:
    """Yield a complaint if a cell's tag for stderr has no effect."""
    if STDERR not in tags_of(cell):
        return
    if not strict:
        yield LENIENT
    elif not any(output.get("name") == "stderr" for output in cell.outputs):
        yield f"the tag {STDERR!r} does nothing: the cell stores no stderr"


def reason_problems(dropped: list[str], cell: NotebookNode) -> Iterator[str]:
    """Yield a complaint if a cell disables a check without giving a reason."""
    try:
        need_reason(dropped, notes(cell))
    except ControlError as error:
        yield str(error)


def error_problems(cell: NotebookNode) -> Iterator[str]:
    """Yield a complaint for each contradiction between a stored error and the cell's tags."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors and not marks(cell, RAISES):
        yield f"stores an error, {errors[0].ename}; fix it, or tag the cell 'raises-exception'"
    if not errors and marks(cell, RAISES) and cell.execution_count:
        yield f"is tagged as raising an exception but stores no error; remove the tag, or {AGAIN}"


def passing_problems(
    cell: NotebookNode, found: Rules, notebook: NotebookNode | None
) -> Iterator[str]:
    """Yield complaints about stderr and text that varies by run, which strict projects forbid.

    The line of a progress bar may contain a duration. The tags of `notebook` apply to all its
    cells.
    """
    tags = {*map(str, cell.metadata.get("tags", [])), *(tags_of(notebook) if notebook else [])}
    red = "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
    if red and STDERR not in tags:
        first = red.strip().partition("\n")[0]  # "" for a blank line
        yield (
            f"stores stderr, {first[:80]!r}; remove its cause, or tag the cell "
            f"{STDERR!r} with a reason"
        )
    if marks(cell, DROPPED) or found.exact:
        return  # the output is ignored or compared exactly
    texts = [readable(output) for output in cell.outputs if output.get("name") != "stderr"]
    texts += [alt_text(output, kind) for output in cell.outputs for kind in output.get("data", {})]
    if any(map(has_frames, texts)):
        yield f"stores the frames of a progress bar; {AGAIN} with `nbval-tolerance execute`"
    found_here = [part for text in texts for part in passing(text, found) if not part.progress]
    if parts := list(dict.fromkeys(part.text for part in found_here)):
        yield (
            f"prints text that differs from run to run, {', '.join(map(repr, parts[:3]))}; do not "
            f"print it, or, if it is data, tag the cell '{PREFIX}exact'"
        )


def alt_problems(cell: NotebookNode) -> Iterator[str]:
    """Yield a complaint if the figures' alternative text differs from that in the metadata."""
    if "alt" not in cell.metadata:
        return
    wanted, drawn = alt.wanted(cell), alt.pictures(cell)
    if len(wanted) != len(drawn):
        drawn_and_told = f"{counted(len(drawn), 'figure')} and {counted(len(wanted), 'text')}"
        yield f"has {drawn_and_told} in its metadata, `alt`"
    elif [alt_text(*picture) for picture in drawn] != wanted:
        yield f"its alternative text, `alt`, was edited after the figures were stored; {AGAIN}"


def readable(output: NotebookNode) -> str:
    """Return the text that readers see in an output, from all of its representations.

    If an output has other representations, plain text that only names an object, such as
    `<Styler at 0x7f…>`, is not shown. Any other plain text next to a picture is intended for
    readers who cannot see the picture.
    """
    data = output.get("data", {})
    named = len(data) > 1 and text_of(output).startswith("<")
    if any(kind.startswith("image/") for kind in data):
        return "" if named else text_of(output)
    texts = ["" if named else text_of(output)]
    for kind, content in data.items():
        drawn = kind in ("text/html", "text/markdown")
        texts.append(rich_text(kind, without_pictures(content) if drawn else content))
    return "\n".join(texts)


def unprinted_figures(notebook: NotebookNode) -> list[str]:
    """Return a message for each figure whose data are not printed as numbers by any cell.

    Such data are checked only coarsely, because pictures are compared less precisely than numbers.
    The function only analyses the source and never runs it. If the figure's cell uses variables
    from several earlier cells, the figure is assumed to show the variables from the nearest of
    these cells. The message is omitted if one of these variables, or a variable from which they
    were computed, occurs in a cell whose stored text contains a number. The function cannot check
    that the printed numbers are the plotted data.
    """
    made_in: dict[str, int] = {}
    made_from: dict[str, set[str]] = {}
    printed: set[str] = set()
    figures = []
    for number, (where, cell) in enumerate(code_cells(notebook)):
        tree = parse(cell.source)
        if any(kind.startswith("image/") for o in cell.outputs for kind in o.get("data", {})):
            taken = {name: made_in[name] for name in variables.read(tree) if name in made_in}
            last = max(taken.values(), default=None)
            figures.append((where, {name for name in taken if taken[name] == last}))
        for statement in tree.body:
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                made = variables.made(statement)
                sources = (variables.read(statement) - made) & set(made_in)
                made_in |= dict.fromkeys(made, number)
                made_from |= dict.fromkeys(made, sources)
        if any(numbers_of(readable(output)) for output in cell.outputs):
            printed |= variables.read(tree)
        for expression in expressions(notes(cell)).values():  # compared, but never displayed
            printed |= variables.read(parse(expression))
    return [
        f"{where}: draws {', '.join(sorted(drawn))}, but no cell prints a number from that data"
        for where, drawn in figures
        if drawn and not drawn.union(*(made_from[name] for name in drawn)) & printed
    ]

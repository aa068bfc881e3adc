"""Is what a notebook stores worth comparing with? Pure functions: no kernel, milliseconds."""

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
    """Return 16 hexadecimal digits of the SHA-256 of a cell's source and probes.

    Kinds of line end, and white space at its end, do not count: editors and formatters change
    them, and no output depends on them.
    """
    return hash_of(cell.source, notes(cell).get("probes"))


def hash_of(source: str, probes: Mapping | None) -> str:
    """Return the hash of a source and its probes."""
    text = "\n".join(source.splitlines()).rstrip()
    if probes:
        text += "\n" + json.dumps(probes, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamp(notebook: NotebookNode) -> None:
    """Note in each code cell which source its output belongs to: `metadata.regression.source`.

    To be called when all cells have just been executed.
    """
    for _, cell in code_cells(notebook):
        cell.metadata.setdefault(KEY, NotebookNode())["source"] = source_hash(cell)


def code_cells(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Yield each code cell with its name: nbval's number, from 0, and the one that is shown."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells):
        yield f"Cell {number}, shown as [{cell.execution_count or ' '}]", cell


def problems(notebook: NotebookNode, config: Config = DEFAULTS) -> list[str]:
    """Say everything that is wrong with what a notebook stores.

    - Every code cell that is not empty was executed, once and in order: [1], [2], … [n].
    - Each output belongs to the source that it stands under (see `stamp`). Where no cell has a
      hash, this is not checked.
    - An error is stored where a tag says that the cell raises one, and nowhere else.
    - Tags and metadata are understood (see `controls`), and fit the outputs: each probe has a
      value, each range holds a number, each figure has its alternative text; what a tag makes wider
      is there.
    - In a project that sets `strict`: nothing on stderr, and nothing that differs from run to run,
      such as a time, an address, or the frames of a progress bar, unless a tag allows it.

    Returns
    -------
    list of str
        Sentences that name the cell and say what to do next, in the order of the cells; empty if
        all is well.
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
    """Return what is wrong with tags and metadata, by the name of the cell, or `NOTEBOOK`."""
    found = text_cell_errors(notebook)
    shared: NotebookNode | None = notebook
    try:
        check_notebook(notebook)
    except ControlError as error:
        found = {NOTEBOOK: str(error)} | found
        shared = None  # said once, and not again of each cell
    for where, cell in code_cells(notebook):
        try:
            rules(cell, Rules(), shared)
        except ControlError as error:
            found[where] = str(error)
    return found


def run_problems(cell: NotebookNode, before: int, stamped: bool) -> Iterator[str]:
    """Yield what is wrong with when a cell was run: it should have been next after `before`."""
    if cell.execution_count is None:
        if not marks(cell, SKIPPED):
            yield f"was never executed; {AGAIN}"
        return
    if cell.execution_count != before + 1:
        yield f"follows [{before or ' '}]: cells were run twice, out of order, or are gone; {AGAIN}"
    if stamped and (what := edited(cell)):
        yield f"{what}; {AGAIN}"


def edited(cell: NotebookNode) -> str:
    """Say what of a cell was edited after its output was stored, as far as its hash tells."""
    about = notes(cell)
    noted, probes, values = (about.get(key, {}) for key in ("source", "probes", "values"))
    known = isinstance(probes, Mapping) and isinstance(values, Mapping)  # else another error
    if noted == source_hash(cell):
        same = not known or list(values) == list(probes)
        return "" if same else "its probes and their stored values have different names"
    if not known or not (probes or values):
        return "was edited after its output was stored"
    before = {name: expression for name, expression in probes.items() if name in values}
    if noted == hash_of(cell.source, before):
        return "its probes changed after their values were stored"
    return "its source or its probes changed after its output was stored"  # no hash tells which


def control_problems(cell: NotebookNode, found: Rules) -> Iterator[str]:
    """Yield where a cell's metadata and its outputs contradict each other."""
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
        yield f"between: no number is {key!r}; a key is a kind, a probe's name, or words before one"
    if "spread" in kinds:
        kinds.add("float")  # as it is judged
    if has_picture(cell):
        kinds.add("figure")
    yield from idle_problems(cell, kinds)
    yield from alt_problems(cell)


def has_picture(cell: NotebookNode) -> bool:
    """Tell whether a cell shows a picture, of its own or inside HTML or Markdown."""
    shown = [item for output in cell.outputs for item in output.get("data", {}).items()]
    return any(
        kind.startswith("image/")
        or (kind in ("text/html", "text/markdown") and re.search("data:image/|<svg|<img", content))
        for kind, content in shown
    )


def idle_problems(cell: NotebookNode, kinds: set[str]) -> Iterator[str]:
    """Yield which of a cell's own tags change how something is compared that it does not show."""
    if marks(cell, DROPPED):
        return  # what is not compared may be anything
    own = rules(cell, Rules())
    for kind in sorted(set(own.wider) - kinds):
        yield f"the tag '{PREFIX}wider-{kind}' does nothing: the cell shows no {kind}"
    if not own.figures and "figure" not in kinds:
        yield f"the tag '{PREFIX}no-figure' does nothing: the cell shows no figure"


def idle_stderr(cell: NotebookNode, strict: bool) -> Iterator[str]:
    """Yield that a cell's own tag allows what it does not do, or what needs no tag."""
    if STDERR not in tags_of(cell):
        return
    if not strict:
        yield LENIENT
    elif not any(output.get("name") == "stderr" for output in cell.outputs):
        yield f"the tag {STDERR!r} does nothing: the cell stores no stderr"


def reason_problems(dropped: list[str], cell: NotebookNode) -> Iterator[str]:
    """Yield that a cell drops a check without a reason."""
    try:
        need_reason(dropped, notes(cell))
    except ControlError as error:
        yield str(error)


def error_problems(cell: NotebookNode) -> Iterator[str]:
    """Yield where a stored error and the cell's tags contradict each other."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors and not marks(cell, RAISES):
        yield f"stores an error, {errors[0].ename}; fix it, or tag the cell 'raises-exception'"
    if not errors and marks(cell, RAISES) and cell.execution_count:
        yield f"is tagged as raising, and stores no error; remove the tag, or {AGAIN}"


def passing_problems(
    cell: NotebookNode, found: Rules, notebook: NotebookNode | None
) -> Iterator[str]:
    """Yield what a strict project does not store: red text, and what differs from run to run.

    The line of a progress bar may say how long it took. The tags of `notebook` hold for its cells.
    """
    tags = {*map(str, cell.metadata.get("tags", [])), *(tags_of(notebook) if notebook else [])}
    red = "".join(output.text for output in cell.outputs if output.get("name") == "stderr")
    if red and STDERR not in tags:
        first = red.strip().partition("\n")[0]  # "" of a blank line
        yield (
            f"stores stderr, {first[:80]!r}; remove its cause, or tag the cell "
            f"{STDERR!r} with a reason"
        )
    if marks(cell, DROPPED) or found.exact:
        return  # nothing is compared, or everything
    texts = [readable(output) for output in cell.outputs if output.get("name") != "stderr"]
    texts += [alt_text(output, kind) for output in cell.outputs for kind in output.get("data", {})]
    if any(map(has_frames, texts)):
        yield f"stores the frames of a progress bar; {AGAIN}, by `nbval-tolerance execute`"
    found_here = [part for text in texts for part in passing(text, found) if not part.progress]
    if parts := list(dict.fromkeys(part.text for part in found_here)):
        yield (
            f"prints what differs from run to run, {', '.join(map(repr, parts[:3]))}; do not "
            f"print it, or, if it is data, tag the cell '{PREFIX}exact'"
        )


def alt_problems(cell: NotebookNode) -> Iterator[str]:
    """Yield where the alternative texts in a cell's metadata are not those of its figures."""
    if "alt" not in cell.metadata:
        return
    wanted, drawn = alt.wanted(cell), alt.pictures(cell)
    if len(wanted) != len(drawn):
        drawn_and_told = f"{counted(len(drawn), 'figure')} and {counted(len(wanted), 'text')}"
        yield f"has {drawn_and_told} in its metadata, `alt`"
    elif [alt_text(*picture) for picture in drawn] != wanted:
        yield f"its metadata, `alt`, were edited after the figures were stored; {AGAIN}"


def readable(output: NotebookNode) -> str:
    """Return what a reader can read of an output, in all its forms.

    The plain text of a display with other forms is not shown if it only names an object,
    `<Styler at 0x7f…>`. Beside a picture, any other plain text is the form for those who see none.
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
    """Name the figures of whose data no cell prints a number: a picture is compared coarsely.

    Sources are read, nothing is run. Of the variables that a figure's cell takes from the cells
    before it, those that were made last are what the figure is about; one of them, or of what they
    were made from, must occur in a cell whose stored text holds a number. Whether the numbers
    printed are those that are drawn, this cannot know.
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
        for expression in expressions(notes(cell)).values():  # compared, though nobody sees it
            printed |= variables.read(parse(expression))
    return [
        f"{where}: draws {', '.join(sorted(drawn))}, of which no cell prints a number"
        for where, drawn in figures
        if drawn and not drawn.union(*(made_from[name] for name in drawn)) & printed
    ]

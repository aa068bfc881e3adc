"""Is what a notebook stores worth comparing with? Pure functions: no kernel, milliseconds."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from nbval_tolerance.compare import TOKEN, Phase, numbers_of, rendered
from nbval_tolerance.controls import ControlError, nbval_marks, notes, rules
from nbval_tolerance.outputs import alt_text, rich_text, text_of
from nbval_tolerance.source import parse

AGAIN = "execute the notebook again"
RAISES = {"raises-exception", "nbval-raises-exception"}
# What overwrites what stands before it: a lone carriage return, a backspace, a moved cursor.
FRAME = re.compile(r"\r(?![\r\n]|\Z)|\x08|\x1b\[[\d;?]*[A-HJKSTf]")


def source_hash(source: str) -> str:
    """Return 16 hexadecimal digits of a source's SHA-256.

    Kinds of line end, and white space at its end, do not count: editors and formatters change
    them, and no output depends on them.
    """
    text = "\n".join(source.splitlines()).rstrip()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamp(notebook: NotebookNode) -> None:
    """Note in each code cell which source its output belongs to: `metadata.regression.source`.

    To be called when all cells have just been executed.
    """
    for _, cell in code_cells(notebook):
        cell.metadata.setdefault("regression", NotebookNode())["source"] = source_hash(cell.source)


def code_cells(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Yield each code cell with its name: nbval's number, from 0, and the one that is shown."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells):
        yield f"Cell {number}, shown as [{cell.execution_count or ' '}]", cell


def problems(notebook: NotebookNode) -> list[str]:
    """Say everything that is wrong with what a notebook stores.

    - Every code cell that is not empty was executed, once and in order: [1], [2], … [n].
    - Each output belongs to the source that it stands under (see `stamp`). Where no cell has a
      hash, this is not checked.
    - No error is stored, unless the cell is tagged `raises-exception`; nothing on stderr.
    - No output holds what differs from run to run, and what the comparison therefore leaves out: a
      time, a memory address, the frames of a progress bar.
    - Every cell's tags are understood (see `controls`).

    Returns
    -------
    list of str
        Sentences that name the cell and say what to do next, in the order of the cells; empty if
        all is well.
    """
    cells = list(code_cells(notebook))
    stamped = any("source" in notes(cell) for _, cell in cells)
    if all(cell.execution_count is None for _, cell in cells) and cells:
        return ["no cell was ever executed"]
    found, before = [], 0
    for where, cell in cells:
        if not cell.source.strip():
            continue
        for what in (*run_problems(cell, before, stamped), *output_problems(cell)):
            found.append(f"{where}: {what}")
        before = cell.execution_count or before
        try:
            rules(cell, Phase.UNTRAINED)
        except ControlError as error:
            found.append(f"{where}: {error}")
    return found


def run_problems(cell: NotebookNode, before: int, stamped: bool) -> Iterator[str]:
    """Yield what is wrong with when a cell was run: it should have been next after `before`."""
    if cell.execution_count is None:
        if not any("skip" in mark.lower() for mark in nbval_marks(cell)):
            yield f"was never executed; {AGAIN}"
        return
    if cell.execution_count != before + 1:
        yield f"follows [{before or ' '}]: cells were run twice, out of order, or are gone; {AGAIN}"
    noted = notes(cell).get("source")
    if stamped and noted != source_hash(cell.source):
        yield f"was edited after its output was stored; {AGAIN}"


def output_problems(cell: NotebookNode) -> Iterator[str]:
    """Yield what should not be in a cell's stored outputs."""
    tags = set(map(str, cell.metadata.get("tags", [])))
    for output in cell.outputs:
        if output.output_type == "error" and not tags & RAISES:
            yield f"stores an error, {output.ename}; mend it, or tag the cell 'raises-exception'"
        if output.get("name") == "stderr":
            first = output.text.strip().partition("\n")[0]  # "" of a blank line
            yield f"stores stderr, {first[:80]!r}; remove its cause"
    if nbval_marks(cell) or "regression:exact" in tags:
        return  # nothing is compared, or everything
    texts = [readable(output) for output in cell.outputs]
    texts += [alt_text(output, kind) for output in cell.outputs for kind in output.get("data", {})]
    text = "\n".join(texts)
    if FRAME.search(text):
        yield "stores the frames of a progress bar; switch it off, as by verbose=2"
    masked = (match["masked"] for match in TOKEN.finditer(rendered(text)))
    # A table says it twice, in plain text and in HTML.
    passing = list(dict.fromkeys(time.strip() for time in masked if time))
    if passing:
        yield (
            f"prints what differs from run to run, {', '.join(map(repr, passing[:3]))}; do not "
            "print it, or, if it is data, tag the cell 'regression:exact'"
        )


def readable(output: NotebookNode) -> str:
    """Return what a reader can read of an output, in all its forms.

    The plain text of a picture is not shown, and that of a display with other forms is not if it
    only names an object, `<Styler at 0x7f…>`.
    """
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return ""
    named = len(data) > 1 and text_of(output).startswith("<")
    texts = ["" if named else text_of(output)]
    texts += [rich_text(kind, content) for kind, content in data.items()]
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
            taken = {name: made_in[name] for name in names(tree, ast.Load) if name in made_in}
            last = max(taken.values(), default=None)
            figures.append((where, {name for name in taken if taken[name] == last}))
        for statement in tree.body:
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef):
                made = names(statement, ast.Store)
                sources = (names(statement, ast.Load) - made) & set(made_in)
                made_in |= dict.fromkeys(made, number)
                made_from |= dict.fromkeys(made, sources)
        if any(numbers_of(readable(output)) for output in cell.outputs):
            printed |= names(tree, ast.Load)
    return [
        f"{where}: draws {', '.join(sorted(drawn))}, of which no cell prints a number"
        for where, drawn in figures
        if drawn and not drawn.union(*(made_from[name] for name in drawn)) & printed
    ]


def names(tree: ast.AST, context: type) -> set[str]:
    """Return the names that a piece of code reads (`ast.Load`) or makes (`ast.Store`)."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, context)}

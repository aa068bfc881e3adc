"""Detect from a notebook's code which cells train, what they show, and which use random numbers.

The `reading` module only analyses the source and never runs it.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from nbval_tolerance.compare import TOLERANCES, Phase
from nbval_tolerance.config import DEFAULTS, Config
from nbval_tolerance.source import clock, variables
from nbval_tolerance.source.calling import Cell, Draw
from nbval_tolerance.source.libraries import OF_THE_RUN
from nbval_tolerance.source.reading import Reader

# Matches magics that run the Python code after them. After a cell magic, the rest of its line
# contains only options. Line magics look like `%timeit -n 1 model.fit(x)` or
# `seconds = %time model.fit(x)`.
CELL_MAGIC = re.compile(r"\A\s*%%(?:time|timeit|capture|prun|memit)\b.*")
LINE_MAGIC = re.compile(
    r"^([ \t]*|[^%#'\"\n]*=[ \t]*)%(?:time|timeit|prun|memit)\b(?:[ \t]+-\w+(?:[ \t]+\d+)?)*[ \t]*",
    re.M,
)
QUIET = re.compile(r";\s*(?:#.*)?\Z")  # a final semicolon makes IPython hide the cell's value


def phases(notebook: NotebookNode, config: Config = DEFAULTS) -> list[Phase]:
    """Return the phase of each code cell, in order.

    A cell that trains a network in any way (see `Reader`) is in the `FIT` phase. The cells after
    the first training cell are `TRAINED`. If a cell runs a solver before any training, that cell
    and the following cells are `FITTED` until the first training cell. The results of closed-form
    estimators and of hand-written training steps in NumPy vary only by rounding, so such code does
    not change the phase.
    """
    found, reached = [], Phase.UNTRAINED
    for cell in cells(notebook, config):
        if cell.phase is Phase.FIT:
            reached = Phase.TRAINED
            found.append(Phase.FIT)
            continue
        if reached is Phase.UNTRAINED:
            reached = cell.phase
        found.append(reached)
    return found


def results(notebook: NotebookNode, config: Config = DEFAULTS) -> list[str]:
    """Return, for each code cell, the kind of the numbers that it shows without naming them.

    Returns
    -------
    list
        Kinds of numbers, such as `accuracy` for `model.score(x, y)`, or `duration` and `id` for
        values that depend on the run. An entry is empty if the source reveals no kind or several
        kinds.
    """
    kinds = {*TOLERANCES[Phase.TRAINED], *OF_THE_RUN}
    found = []
    for cell in cells(notebook, config):
        known = len(cell.shown) == 1 and cell.shown <= kinds
        found.append(next(iter(cell.shown)) if known else "")
    return found


def unseeded(notebook: NotebookNode, config: Config = DEFAULTS) -> list[tuple[Draw, ...]]:
    """Return, for each code cell, the unseeded random draws in that cell and in earlier cells.

    Returns
    -------
    list
        The draws that can affect a cell's numbers. Draws in the cell itself come first, followed by
        those in earlier cells, nearest first.
    """
    found: list[tuple[Draw, ...]] = []
    for cell in cells(notebook, config):
        before = found[-1] if found else ()
        found.append((*cell.draws, *before))
    return found


def uses(notebook: NotebookNode) -> list[set[int]]:
    """Return, for each code cell, its number and the numbers of the cells whose variables it uses.

    A variable is attributed to the cell that assigned it, to the cells that may have changed it
    (`x[0] = 1`, `shuffle(x)`, `x.append(1)`), and to the cells of the variables from which it was
    computed.
    """
    found: list[set[int]] = []
    made_in: dict[str, set[int]] = {}
    modules: set[str] = set()
    for number, source in enumerate(sources_of(notebook)):
        tree = parse(source)
        modules |= {name for name, _ in variables.imported(tree)}
        here = {number}.union(*(made_in.get(name, set()) for name in variables.taken(tree)))
        made_in |= dict.fromkeys(variables.changed(tree) - modules, here)
        found.append(here)
    return found


def reads_clock(notebook: NotebookNode, config: Config = DEFAULTS) -> list[bool]:
    """Return, for each code cell, whether its code reads the clock."""
    return [any(draw.clock for draw in cell.draws) for cell in cells(notebook, config)]


def clock_read(notebook: NotebookNode, config: Config = DEFAULTS) -> list[bool]:
    """Return, for each code cell, whether that cell or an earlier one may have read the clock.

    False means that, according to the source, no cell so far reads the clock, is timed, trains or
    fits a model (which may print a duration), runs other programs, or uses an unknown module. Times
    in libraries' log lines, such as TensorFlow's on stderr, are disregarded.
    """
    sources = sources_of(notebook)
    marked = clock.marked(zip(sources, map(parse, sources), strict=True))
    found: list[bool] = []
    for cell, mark in zip(cells(notebook, config), marked, strict=True):
        asks = any(draw.clock for draw in cell.draws)
        here = mark or asks or cell.phase is not Phase.UNTRAINED
        found.append(here or found[-1:] == [True])
    return found


def cells(notebook: NotebookNode, config: Config) -> tuple[Cell, ...]:
    """Return what each code cell does: train, show numbers or draw random numbers."""
    return read(sources_of(notebook), tuple(config.training), tuple(config.deterministic))


def sources_of(notebook: NotebookNode) -> tuple[str, ...]:
    """Return the sources of the code cells."""
    return tuple(cell.source for cell in notebook.cells if cell.cell_type == "code")


@lru_cache(maxsize=4)  # callers analyse a notebook several times in a row
def read(
    sources: tuple[str, ...], training: tuple[str, ...], deterministic: tuple[str, ...]
) -> tuple[Cell, ...]:
    """Return what each cell does according to its source."""
    reader = Reader(training, deterministic)
    return tuple(reader.read(parse(each), bool(QUIET.search(each))) for each in sources)


def parse(source: str) -> ast.Module:
    """Return a cell's syntax tree, including the code after a magic such as `%time`."""
    source = LINE_MAGIC.sub(r"\1", CELL_MAGIC.sub("", source))
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:  # the text of a `%%bash` cell, or a deliberate syntax error in a lesson
        return ast.Module(body=[], type_ignores=[])

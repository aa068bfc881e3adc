"""Say of a notebook's cells, by their code, where they train, what they show, what they draw.

Sources are read (`reading`), nothing is run.
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

# Magics that run the Python after them: of a cell, whose first line holds options only, and of a
# line, `%timeit -n 1 model.fit(x)` or `seconds = %time model.fit(x)`.
CELL_MAGIC = re.compile(r"\A\s*%%(?:time|timeit|capture|prun|memit)\b.*")
LINE_MAGIC = re.compile(
    r"^([ \t]*|[^%#'\"\n]*=[ \t]*)%(?:time|timeit|prun|memit)\b(?:[ \t]+-\w+(?:[ \t]+\d+)?)*[ \t]*",
    re.M,
)
QUIET = re.compile(r";\s*(?:#.*)?\Z")  # IPython shows no value of a cell that ends so


def phases(notebook: NotebookNode, config: Config = DEFAULTS) -> list[Phase]:
    """Return the phase of each code cell, in order.

    A cell is in a training log if it trains a network, in whatever way (`Reader`). The cells after
    the first such cell are after training. Before it, the cells from the first one that runs a
    solver are after a fit. Estimators with a closed form, and steps by hand in NumPy, move numbers
    by rounding only: they change no phase.
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
    """Return, for each code cell, the kind of the numbers that it shows without a name.

    Returns
    -------
    list
        A kind of number, as `accuracy` of `model.score(x, y)`, or `duration` and `id` for what the
        run brings; empty where the source does not say, or where it says several.
    """
    kinds = {*TOLERANCES[Phase.TRAINED], *OF_THE_RUN}
    found = []
    for cell in cells(notebook, config):
        known = len(cell.shown) == 1 and cell.shown <= kinds
        found.append(next(iter(cell.shown)) if known else "")
    return found


def unseeded(notebook: NotebookNode, config: Config = DEFAULTS) -> list[tuple[Draw, ...]]:
    """Return, for each code cell, the calls up to it that draw random numbers without a seed.

    Returns
    -------
    list
        The draws that a cell's numbers may depend on, the nearest first: those of the cell, then
        of the cells before it.
    """
    found: list[tuple[Draw, ...]] = []
    for cell in cells(notebook, config):
        before = found[-1] if found else ()
        found.append((*cell.draws, *before))
    return found


def uses(notebook: NotebookNode) -> list[set[int]]:
    """Return, for each code cell, the cells whose variables it uses, and itself.

    A variable is of the cell that gave it its value, of those that may have changed it (`x[0] = 1`,
    `shuffle(x)`, `x.append(1)`), and of those whose variables went into it.
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
    """Return, for each code cell, whether its code asks for the time."""
    return [any(draw.clock for draw in cell.draws) for cell in cells(notebook, config)]


def clock_read(notebook: NotebookNode, config: Config = DEFAULTS) -> list[bool]:
    """Return, for each code cell, whether it, or a cell before it, may have read the clock.

    False is certain as far as the source says: no cell so far asks for the time, is timed, trains
    or fits (which may print how long it took), leaves Python, or uses a module that is not known.
    What libraries log unasked, such as TensorFlow's lines on stderr, does not count.
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
    """Return what each code cell does."""
    return read(sources_of(notebook), tuple(config.training), tuple(config.deterministic))


def sources_of(notebook: NotebookNode) -> tuple[str, ...]:
    """Return the code cells' sources."""
    return tuple(cell.source for cell in notebook.cells if cell.cell_type == "code")


@lru_cache(maxsize=4)  # a notebook is asked for its phases, results and draws
def read(
    sources: tuple[str, ...], training: tuple[str, ...], deterministic: tuple[str, ...]
) -> tuple[Cell, ...]:
    """Return what each cell does, by its source."""
    reader = Reader(training, deterministic)
    return tuple(reader.read(parse(each), bool(QUIET.search(each))) for each in sources)


def parse(source: str) -> ast.Module:
    """Return a cell's syntax tree, in which the code after a magic such as `%time` counts."""
    source = LINE_MAGIC.sub(r"\1", CELL_MAGIC.sub("", source))
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:  # a `%%bash` cell's text, or a lesson on errors
        return ast.Module(body=[], type_ignores=[])

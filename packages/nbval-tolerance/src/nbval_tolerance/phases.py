"""Where does a notebook train? Found in the source of its cells, which nothing runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from nbval_tolerance.compare import Phase

# Methods that change a model's weights: those of Keras and scikit-learn, and Keras' optimizers'.
TRAINING = {
    "fit",
    "partial_fit",
    "fit_transform",
    "fit_predict",
    "train_on_batch",
    "apply_gradients",
    "minimize",
}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Magics that run the Python after them: of a cell, whose first line holds options only, and of a
# line, `%timeit -n 1 model.fit(x)` or `seconds = %time model.fit(x)`.
CELL_MAGIC = re.compile(r"\A\s*%%(?:time|timeit|capture|prun)\b.*")
LINE_MAGIC = re.compile(
    r"^([ \t]*|[^%#'\"\n]*=[ \t]*)%(?:time|timeit|prun)\b(?:[ \t]+-\w+(?:[ \t]+\d+)?)*[ \t]*", re.M
)


def phases(notebook: NotebookNode) -> list[Phase]:
    """Return the phase of each code cell, in order.

    A cell is in a training log if it trains: if it calls one of the methods in `TRAINING`, or a
    function of the notebook that does. The cells after the first such cell are after training. A
    step that is written out by hand (`variable.assign_sub(…)`) is not recognised; after one step
    on one batch numbers still agree as they do before training.
    """
    found = []
    calls: dict[str, set[str]] = {}  # function of the notebook -> what it calls
    trained = False
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tree = parse(cell.source)
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                calls.setdefault(node.name, set()).update(called(node))
        if trainers(calls) & set(called_now(tree)):
            trained = True
            found.append(Phase.FIT)
        else:
            found.append(Phase.TRAINED if trained else Phase.UNTRAINED)
    return found


def trainers(calls: dict[str, set[str]]) -> set[str]:
    """Return the names by which a call trains: of `TRAINING`, and of functions that call those."""
    found = set(TRAINING)
    while more := {name for name, callees in calls.items() if callees & found} - found:
        found |= more
    return found


def parse(source: str) -> ast.Module:
    """Return a cell's syntax tree, in which what a magic such as `%time` runs stands by itself."""
    source = LINE_MAGIC.sub(r"\1", CELL_MAGIC.sub("", source))
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:  # a `%%bash` cell's text, or a lesson on errors
        return ast.Module(body=[], type_ignores=[])


def called_now(tree: ast.Module) -> Iterator[str]:
    """Yield the names that are called when the cell runs: not those inside its functions."""
    for statement in tree.body:
        if not isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
            yield from called(statement)


def called(tree: ast.AST) -> Iterator[str]:
    """Yield the name of each function or method that a piece of code calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr
            elif isinstance(node.func, ast.Name):
                yield node.func.id

"""Where does a notebook train? Found in the source of its cells, which nothing runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from tfcourse.regression.compare import Phase

# Methods that change a model's weights: those of Keras and scikit-learn, and Keras' optimizers'.
TRAINING = {"fit", "partial_fit", "fit_transform", "train_on_batch", "apply_gradients", "minimize"}

TIMED = re.compile(r"^[ \t]*%%?time(it)?\b([ \t]+-\w+([ \t]+\d+)?)*", re.MULTILINE)


def phases(notebook: NotebookNode) -> list[Phase]:
    """Return the phase of each code cell, in order.

    A cell is in a training log if it trains: if it calls one of the methods in `TRAINING`, or a
    function of the notebook that does. The cells after the first such cell are after training. A
    step that is written out by hand (`variable.assign_sub(…)`) is not recognised; after one step
    on one batch numbers still agree as they do before training.
    """
    found = []
    trainers = set(TRAINING)
    trained = False
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tree = parse(cell.source)
        if any(name in trainers for name in called_now(tree)):
            trained = True
            found.append(Phase.FIT)
        else:
            found.append(Phase.TRAINED if trained else Phase.UNTRAINED)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and trainers & set(called(node)):
                trainers.add(node.name)
    return found


def parse(source: str) -> ast.Module:
    """Return a cell's syntax tree, in which what `%time` and `%%time` run stands by itself."""
    try:
        return ast.parse(TransformerManager().transform_cell(TIMED.sub("", source)))
    except SyntaxError:  # a `%%bash` cell's text, or a lesson on errors
        return ast.Module(body=[], type_ignores=[])


def called_now(tree: ast.Module) -> Iterator[str]:
    """Yield the names that are called when the cell runs: not those inside its functions."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for statement in tree.body:
        if not isinstance(statement, definitions):
            yield from called(statement)


def called(tree: ast.AST) -> Iterator[str]:
    """Yield the name of each function or method that a piece of code calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr
            elif isinstance(node.func, ast.Name):
                yield node.func.id

"""Generate mutants of a correct answer, each with one small change such as a different operator."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

OTHER = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {"max": "min", "argmax": "argmin", "sum": "mean", "mean": "sum", "exp": "log", "log": "exp"}
NAMES |= {"append": "remove", "zeros": "ones"}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield the changed line and the complete source of each mutant."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for choice in range(len(list(changes(node)))):
            mutant = copy.deepcopy(tree)
            list(changes(list(ast.walk(mutant))[number]))[choice]()
            changed = ast.unparse(mutant)
            was = ast.unparse(tree).splitlines()
            lines = [line.strip() for line in changed.splitlines() if line not in was]
            if lines and not is_text(node):
                yield lines[0], changed


def is_text(node: ast.AST) -> bool:
    """Return whether a node is a string literal, which should not be mutated."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def changes(node: ast.AST) -> Iterator:
    """Yield functions, each of which introduces one mistake into the syntax-tree node."""
    if (isinstance(node, ast.BinOp) and type(node.op) in OTHER) or isinstance(node, ast.BoolOp):
        yield lambda: setattr(node, "op", OTHER[type(node.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
        yield lambda: node.ops.__setitem__(0, OTHER[type(node.ops[0])]())
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield lambda: setattr(node, "value", node.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda: setattr(node, "attr", NAMES[node.attr])
    elif isinstance(node, ast.Call) and node.keywords:
        for i in range(len(node.keywords)):
            yield lambda i=i: node.keywords.pop(i)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda: setattr(node, "op", ast.UAdd())

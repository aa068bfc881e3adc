"""Find the variables that a syntax tree may read or change. Pure functions."""

from __future__ import annotations

import ast
import symtable

SHOWING = ("print", "display")  # functions that do not change their arguments


def read(tree: ast.AST) -> set[str]:
    """Return the names that the code reads."""
    return used(tree, ast.Load)


def made(tree: ast.AST) -> set[str]:
    """Return the names that the code assigns."""
    return used(tree, ast.Store)


def used(tree: ast.AST, context: type) -> set[str]:
    """Return the names that the code uses in one context, such as `ast.Load`."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, context)}


def scoped(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Return the global variables that the code reads, and those that it assigns.

    Local names in functions and comprehensions are excluded.
    """
    try:
        tables = [symtable.symtable(ast.unparse(tree), "<cell>", "exec")]
    except SyntaxError:  # for example top-level `await`, which IPython allows
        return read(tree), made(tree)
    top = tables[0]
    found: tuple[set[str], set[str]] = set(), set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if table is top or symbol.is_global():
                found[0].update([symbol.get_name()] * symbol.is_referenced())
                found[1].update([symbol.get_name()] * symbol.is_assigned())
    return found


def taken(tree: ast.Module) -> set[str]:
    """Return the variables that the code reads without assigning them first.

    A variable that is assigned only in a branch or loop is still included, because the assignment
    may not run.
    """
    found: set[str] = set()
    own: set[str] = set()
    for statement in tree.body:
        here, given = scoped(statement)
        if isinstance(statement, ast.AugAssign):
            here |= given
        if isinstance(statement, ast.For | ast.AsyncFor):
            given = made(statement.target)
            here -= given
        found |= here - own
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.For | ast.AsyncFor):
            own |= given
    return found


def changed(tree: ast.AST) -> set[str]:
    """Return the names that the code defines, and the variables whose values it may change."""
    _, found = scoped(tree)
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                found |= read(node.value)
            case ast.Expr(value=ast.Call() as call) if ast.unparse(call.func) not in SHOWING:
                found |= read(call)
    return found


def imported(tree: ast.AST) -> set[tuple[str, str]]:
    """Return the imports in code as pairs of the local name (`*` for all) and the dotted name."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    root = alias.name.partition(".")[0]
                    found.add((alias.asname or root, alias.name if alias.asname else root))
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                found |= {
                    (each.asname or each.name, f"{module}.{each.name}") for each in node.names
                }
    return found

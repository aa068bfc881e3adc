"""Which variables a piece of code reads, and which it may change. Pure functions of its tree."""

from __future__ import annotations

import ast

SHOWING = ("print", "display")  # functions that change nothing that they are given


def read(tree: ast.AST) -> set[str]:
    """Return the names that code reads."""
    return used(tree, ast.Load)


def made(tree: ast.AST) -> set[str]:
    """Return the names to which code assigns."""
    return used(tree, ast.Store)


def used(tree: ast.AST, context: type) -> set[str]:
    """Return the names that stand in code in one context."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, context)}


def changed(tree: ast.AST) -> set[str]:
    """Return the names that code makes, or whose value it may change."""
    found = made(tree)
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
    """Return what code imports: a name in the code (`*` for all of a module) and a dotted name."""
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

"""Represent the possible values of a notebook's expression as a set of names. Pure functions."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from nbval_tolerance.source import libraries

UNKNOWN = "?"


@dataclass(frozen=True)
class Value:
    """The possible values of an expression.

    Attributes
    ----------
    names
        The names that the value may have: a dotted name, as in `libraries`; `def f 3` and
        `class Net` for functions and classes of the notebook, and `class Net()` for an object;
        `=accuracy` for numbers of a kind; `?` for anything, and `?:helpers.train` for something
        from an unknown module. Empty for a value that cannot vary between machines: a text, an
        integer or a constant.
    items
        The values in a container. A single item may represent many values.
    """

    names: frozenset[str] = frozenset()
    items: tuple[Value, ...] | None = None

    @property
    def all(self) -> frozenset[str]:
        """The names of the value and of all values that it contains."""
        return self.names.union(*(item.all for item in self.items or ()))

    @property
    def each(self) -> Value:
        """The value that a loop over this value yields."""
        return self if self.items is None else union(self.items)

    @property
    def kinds(self) -> set[str]:
        """The kinds of the numbers in the value, including `?` if some kinds are unknown."""
        found = {name.removeprefix("=") for name in self.all if name.startswith("=")}
        return found | ({UNKNOWN} if any(is_unknown(name) for name in self.all) else set())


NOTHING = Value()
ANYTHING = Value(frozenset({UNKNOWN}))


def named(*names: str) -> Value:
    """Return a value with the given names."""
    return Value(frozenset(names))


def number(kind: str) -> Value:
    """Return a number of the given kind, or `ANYTHING` if the kind is empty."""
    return named(f"={kind}") if kind else ANYTHING


def container(*items: Value) -> Value:
    """Return a list or tuple of values. A single item may represent many values."""
    return Value(items=items)


def union(values: Iterable[Value]) -> Value:
    """Return a value that may be any of several values."""
    names: frozenset[str] = frozenset()
    items: tuple[Value, ...] | None = None
    for value in values:
        names |= value.names
        if items is None or value.items is None:
            items = items or value.items
        elif len(items) == len(value.items):
            items = tuple(union(pair) for pair in zip(items, value.items, strict=True))
        else:
            items = (union((*items, *value.items)),)
    return Value(names, items)


def is_object(name: str) -> bool:
    """Return whether a name stands for an object that a library or class returned."""
    return name.endswith("()") and not name.startswith((UNKNOWN, "="))


def is_unknown(name: str) -> bool:
    """Return whether a name may stand for numbers of an unknown kind.

    Class instances are excluded, because they are displayed as a class name and settings.
    """
    if name.startswith(("=", "def ", "class ", "scored ")):
        return False
    last = name.removesuffix("()").rpartition(".")[2]
    return name.startswith(UNKNOWN) or (name.endswith("()") and not last[:1].isupper())


def imported(name: str) -> Value:
    """Return the value of an imported name. A name from an unknown module may be anything."""
    known = libraries.is_known(name.partition(".")[0])
    return named(libraries.canonical(name) if known else f"{UNKNOWN}:{name}")


def told_by(identifier: str, value: Value) -> Value:
    """Return the value or, if it is unknown, a number of the kind that the identifier indicates."""
    unknown = value.names and all(name.startswith(UNKNOWN) for name in value.names)
    if unknown and value.items is None and (kind := libraries.kind_of(identifier)):
        return number(kind)
    return value


def arithmetic(operation: ast.operator, left: Value, right: Value) -> Value:
    """Return an operation's result, which has the kinds of its operands if those are known."""
    kinds = left.kinds | right.kinds
    if kinds and UNKNOWN not in kinds:
        return named(*(f"={kind}" for kind in kinds))
    both = union((left, right))
    if isinstance(operation, ast.Add) and both.items is not None:
        return Value(both.names, (union((left.each, right.each)),))
    return ANYTHING if both.names or both.items else NOTHING

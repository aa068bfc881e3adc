"""Determine what a call does: train, fit, take a training step, or draw random numbers.

Pure functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass

from nbval_tolerance.compare import Phase
from nbval_tolerance.source import libraries
from nbval_tolerance.source.values import UNKNOWN, is_object


@dataclass(frozen=True)
class Call:
    """Describes a call in a notebook's code.

    Attributes
    ----------
    name
        One of the possible names of the called function or class.
    written
        The called expression, as a syntax node.
    node
        The syntax node of the call, or of the function to which a decorator is applied.
    models
        The objects whose method is called. Instances of the notebook's classes are replaced by
        instances of their base classes.
    given
        The names of all arguments of the call.
    roots
        The libraries that the notebook has imported so far.
    """

    name: str
    written: ast.expr
    node: ast.AST
    models: Set[str]
    given: Set[str]
    roots: Set[str]

    @property
    def owner(self) -> str:
        """The object or module whose method or function is called, or an empty string."""
        return self.name.rpartition(".")[0]

    @property
    def method(self) -> str:
        """The final component of the called expression, as written in the source."""
        return name_of(self.written)

    @property
    def receiver(self) -> str:
        """The variable whose method is called, or an empty string."""
        return name_of(self.written.value) if isinstance(self.written, ast.Attribute) else ""

    @property
    def is_foreign(self) -> bool:
        """Whether a method is called on an object that does not come from a known library."""
        return self.owner.startswith((UNKNOWN, "class ", "="))

    @property
    def is_deep(self) -> bool:
        """Whether the notebook has imported a deep-learning library."""
        return bool(self.roots & libraries.DEEP)


def phase_of(call: Call) -> Phase | None:
    """Return the phase implied by a call, or None if there is none. Nested calls are ignored."""
    method, owner = call.method, call.owner
    if method in libraries.FITS and owner:
        unknown = (
            Phase.FITTED if not call.is_deep and call.roots & libraries.CLASSICAL else Phase.FIT
        )
        return libraries.effort({owner, *call.models}) or unknown
    if libraries.TRAINING_CALL.match(call.name) or (method in libraries.TRAINS and owner):
        return Phase.FIT
    if libraries.FITTING_CALL.match(call.name):
        return libraries.effort(set(call.given)) or Phase.FITTED
    trains = False
    if method in libraries.STEPS:
        trains = libraries.OPTIMIZER.match(owner) or (
            call.is_foreign and libraries.OPTIMIZERS.search(call.receiver)
        )
    elif method == "train" and call.is_foreign:
        # In PyTorch, `model.train()` and `model.train(False)` only set a mode.
        keywords, arguments = getattr(call.node, "keywords", []), getattr(call.node, "args", [])
        mode = not keywords and all(isinstance(each, ast.Constant) for each in arguments)
        trains = not mode or libraries.TRAINERS.search(call.receiver)
    elif libraries.TRAINING_NAME.match(method) and call.is_deep:
        # The function comes from a helper module, or is wrapped, for example by `jax.jit`.
        elsewhere = call.name == UNKNOWN or call.name.startswith(f"{UNKNOWN}:")
        trains = elsewhere or is_object(call.name) or libraries.TRAINERS.search(call.receiver)
    return Phase.FIT if trains else None


def steps_of(call: Call) -> set[str]:
    """Return the parts of a training step (`gradient`, `update`) that a call performs."""
    found = set()
    root = call.name.partition(".")[0]
    if call.name.endswith("()"):  # a function returned by `jax.grad`, for example
        if root in libraries.DEEP and libraries.GRADIENT.match(last_of(call.name)):
            found.add("gradient")
    elif libraries.GRADIENT_METHOD.match(call.method) and (
        root in libraries.DEEP or (call.is_foreign and call.is_deep)
    ):
        found.add("gradient")
    if call.method in libraries.UPDATES:
        found.add("update")
    return found


def seeded_by(names: Set[str], written: ast.expr, node: ast.Call) -> Set[str]:
    """Return the generators that a call seeds."""
    if not (node.args or node.keywords) or (node.args and is_none(node.args[0])):
        return set()
    streams = set().union(*(libraries.SEEDS.get(name, set()) for name in names))
    foreign = any(name.startswith(UNKNOWN) for name in names) or not names
    if foreign and "seed" in name_of(written).lower():
        return libraries.STREAMS  # a helper from an unknown module may seed all generators
    return streams


def drawn_by(
    names: Set[str], node: ast.Call, roots: Set[str], seeded: Set[str]
) -> Iterator[libraries.Chance]:
    """Yield the entries of `libraries.CHANCES` that describe a call's unseeded random draws.

    Parameters
    ----------
    names
        The possible names of the called function.
    node
        The call.
    roots
        The libraries that the notebook has imported.
    seeded
        The generators that have been seeded.
    """
    arguments = {each.arg or "**": each.value for each in node.keywords}
    for name in sorted(names):
        for chance in libraries.CHANCES:
            if not chance.calls.match(name) or chance.streams & seeded:
                continue
            given = [each for each in (*node.args, *arguments.values()) if not is_none(each)]
            if chance.most is not None and len(given) > chance.most:
                continue
            seed = arguments.get(chance.keyword)
            if seed is None and node.args and chance.positional:
                seed = node.args[0]
            if "**" in arguments and chance.keyword:
                continue  # the seed may be among these arguments
            if seed is not None and not is_none(seed):
                continue
            said = {f"{arg}={ast.unparse(value)}" for arg, value in arguments.items()}
            said |= set(map(ast.unparse, node.args))
            if not chance.when or any(
                re.match(chance.when, each) for each in said | roots | {name}
            ):
                yield chance


def scoring_of(node: ast.AST) -> str:
    """Return the `scoring` argument of a call, or an empty string if there is none."""
    for keyword in getattr(node, "keywords", []):
        if keyword.arg == "scoring" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value or "")
    return ""


def name_of(node: ast.AST) -> str:
    """Return the final name in an expression that denotes a variable, function or method."""
    match node:
        case ast.Attribute():
            return node.attr
        case ast.Name():
            return node.id
        case ast.Call():
            return name_of(node.func)
        case ast.Subscript():
            return name_of(node.value)
    return ""


def last_of(name: str) -> str:
    """Return a dotted name's final component: `Ridge` for `sklearn.linear_model.Ridge()`."""
    return name.removesuffix("()").rpartition(".")[2]


def is_none(node: ast.expr) -> bool:
    """Return whether an expression is None."""
    return isinstance(node, ast.Constant) and node.value is None


def is_named(node: ast.expr, names: tuple[str, ...]) -> bool:
    """Return whether `names` lists a called function by its final component or dotted name."""
    return bool(names) and any(f".{ast.unparse(node)}".endswith(f".{name}") for name in names)

"""Analyse a notebook's code in execution order, without running it.

The reader keeps track of the variables' possible values from cell to cell. A loop and each branch
of an `if` are analysed once. A function defined in the notebook is analysed at each call.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from nbval_tolerance.compare import Phase
from nbval_tolerance.source import calls, libraries
from nbval_tolerance.source.calling import BUILTINS, Caller, Cell, Function
from nbval_tolerance.source.calls import name_of
from nbval_tolerance.source.printing import parts
from nbval_tolerance.source.values import (
    ANYTHING,
    NOTHING,
    UNKNOWN,
    Value,
    arithmetic,
    container,
    imported,
    is_object,
    named,
    number,
    told_by,
    union,
)

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Reader(Caller):
    """Analyses the cells of a notebook, one after another."""

    def read(self, tree: ast.Module, silent: bool = False) -> Cell:
        """Analyse the next cell. If `silent` is true, the cell hides its last line's value."""
        self.begin()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.roots.add((node.module or "").partition(".")[0])
        for statement in tree.body:
            if statement is tree.body[-1] and isinstance(statement, ast.Expr) and not silent:
                self.cell.shown |= self.value(statement.value).kinds
            else:
                self.run(statement)
        return self.cell

    # Statements

    def run(self, node: ast.AST) -> None:
        """Analyse a statement."""
        method = getattr(self, f"_run_{type(node).__name__.lower()}", None)
        if method:
            method(node)
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
            else:
                self.run(child)

    def block(self, statements: Iterable[ast.stmt]) -> None:
        """Analyse statements."""
        for statement in statements:
            self.run(statement)

    def branches(self, *blocks: list[ast.stmt]) -> None:
        """Analyse alternative blocks, such as the branches of an `if`.

        Afterwards, a variable may have any of the values that the blocks assign.
        """
        scope = self.scope.maps[0]
        before, after = dict(scope), []
        for block in blocks:
            scope.clear()
            scope.update(before)
            self.block(block)
            after.append(dict(scope))
        for name in {name for each in after for name in each}:
            scope[name] = union(each[name] for each in after if name in each)

    def _run_if(self, node: ast.If) -> None:
        self.value(node.test)
        self.branches(node.body, node.orelse)

    def _run_match(self, node: ast.Match) -> None:
        self.value(node.subject)
        self.branches(*(case.body for case in node.cases), [])

    def _run_try(self, node: ast.Try) -> None:
        self.branches(node.body + node.orelse, *(handler.body for handler in node.handlers))
        self.block(node.finalbody)

    _run_trystar = _run_try

    def _run_for(self, node: ast.For | ast.AsyncFor) -> None:
        over = self.value(node.iter)
        with self.loop():
            self.bind(node.target, over.each)
            self.block(node.body)
        self.block(node.orelse)

    _run_asyncfor = _run_for

    def _run_while(self, node: ast.While) -> None:
        with self.loop():
            self.value(node.test)
            self.block(node.body)
        self.block(node.orelse)

    def _run_with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars:
                self.bind(item.optional_vars, value)
        self.block(node.body)

    _run_asyncwith = _run_with

    def _run_import(self, node: ast.Import) -> None:
        for alias in node.names:
            root = alias.name.partition(".")[0]
            self.scope[alias.asname or root] = imported(alias.name if alias.asname else root)

    def _run_importfrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            name = f"{'.' * node.level}{node.module or ''}.{alias.name}"
            self.scope[alias.asname or alias.name] = imported(name)

    def _run_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        value = self.function(node)
        for decorator in reversed(node.decorator_list):
            made = self.apply(self.value(decorator), decorator, [value], {}, node)
            value = named(*value.names, *(made.names - {UNKNOWN}))
        self.scope[node.name] = value

    _run_asyncfunctiondef = _run_functiondef

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Value:
        """Return a value that represents a function in the notebook."""
        name = f"def {getattr(node, 'name', 'lambda')} {len(self.functions)}"
        self.functions[name] = Function(node, self.scope)
        return named(name)

    def _run_classdef(self, node: ast.ClassDef) -> None:
        bases = union(map(self.value, node.bases))
        outside, self.scope = self.scope, self.scope.new_child()
        self.block(node.body)
        defined, self.scope = self.scope.maps[0], outside
        for each in node.body:
            if isinstance(each, FUNCTIONS) and "staticmethod" not in map(
                name_of, each.decorator_list
            ):
                self.methods |= defined[each.name].names & self.functions.keys()
        self.classes[f"class {node.name}"] = (bases, defined)
        self.scope[node.name] = named(f"class {node.name}")

    def _run_return(self, node: ast.Return) -> None:
        self.returned.append(self.value(node.value) if node.value else NOTHING)

    def _run_assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            if is_step(target, node.value):
                self.steps.add("update")
            self.bind(target, value)

    def _run_annassign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.bind(node.target, self.value(node.value))

    def _run_augassign(self, node: ast.AugAssign) -> None:
        ascends = isinstance(node.op, ast.Add) and isinstance(node.value, ast.BinOp)
        # Treat `w -= g` and `w += rate * g` as updates, but not `total += 1`.
        if ascends or isinstance(node.op, ast.Sub):
            self.steps.add("update")
        self.bind(node.target, arithmetic(node.op, self.value(node.target), self.value(node.value)))

    def _run_delete(self, node: ast.Delete) -> None:
        """Ignore the deletion, because it may be in only one of several branches."""

    def bind(self, target: ast.expr, value: Value) -> None:
        """Assign a value to the target of an assignment."""
        match target:
            case ast.Name():
                self.scope[target.id] = value
            case ast.Starred():
                self.bind(target.value, value)
            case ast.Attribute():
                known = self.attributes.get(target.attr, NOTHING)
                self.attributes[target.attr] = union((known, value))
            case ast.Subscript():
                self.put(target.value, value)
            case ast.Tuple() | ast.List():
                items = value.items or ()
                exact = len(items) == len(target.elts)
                for position, each in enumerate(target.elts):
                    self.bind(each, items[position] if exact else value.each)

    def put(self, target: ast.expr, value: Value) -> None:
        """Add a value to a container."""
        if isinstance(target, ast.Name | ast.Attribute):
            old = self.value(target)
            items = (union((*old.items, value)) if old.items else value,)
            self.bind(target, Value(old.names - {UNKNOWN}, items))

    # Expressions

    def value(self, node: ast.AST) -> Value:
        """Return the possible values of an expression, and record its effects, such as training."""
        self.left -= 1
        method = getattr(self, f"_value_{type(node).__name__.lower()}", None)
        if method and self.left > 0:
            return method(node)
        inner = [
            self.value(each) for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)
        ]
        return ANYTHING if inner else NOTHING

    def _value_constant(self, node: ast.Constant) -> Value:
        return NOTHING

    def _value_compare(self, node: ast.Compare) -> Value:
        for each in (node.left, *node.comparators):
            self.value(each)
        return NOTHING

    def _value_name(self, node: ast.Name) -> Value:
        return told_by(node.id, self.called(node))

    def _value_attribute(self, node: ast.Attribute) -> Value:
        return told_by(node.attr, self.called(node))

    def called(self, node: ast.expr) -> Value:
        """Return the possible values of an expression, without inferring kinds from names."""
        match node:
            case ast.Name():
                unknown = named(node.id) if node.id in BUILTINS else ANYTHING
                return self.scope.get(node.id, unknown)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
                names = self.value(node.value).names
                return union(self.inherited(name).get(node.attr, NOTHING) for name in names)
            case ast.Attribute():
                return self.attribute(self.value(node.value), node.attr)
        return self.value(node)

    def attribute(self, base: Value, attribute: str) -> Value:
        """Return an attribute of a library, an object, a number or a container."""
        if attribute in libraries.PARTS and any(map(is_object, base.all)):
            return Value(base.all)
        found = set()
        for name in base.names or {UNKNOWN}:
            defined = self.defined(name) if name.startswith("class ") else {}
            if name.startswith("scored "):
                continue
            if attribute in defined:
                found |= defined[attribute].names
            elif attribute in self.attributes and name.startswith((UNKNOWN, "class ")):
                found |= self.attributes[attribute].all
            elif name.startswith("def ") or name.count("(") > 2:
                found.add(UNKNOWN)
            else:
                found.add(libraries.canonical(f"{name}.{attribute}"))
        if attribute in libraries.PLAIN and all(name.startswith("=") for name in base.names):
            return NOTHING
        return Value(frozenset(found))

    def _value_subscript(self, node: ast.Subscript) -> Value:
        base = self.value(node.value)
        self.value(node.slice)
        try:
            key = ast.literal_eval(node.slice)
        except ValueError:
            key = None
        if isinstance(key, str):
            if "score" in key and (models := self.models(base.all)):
                return number(libraries.score_kind(models))
            return told_by(key, base.each)
        if (
            isinstance(key, int)
            and len(base.items or ()) > 1
            and -len(base.items) <= key < len(base.items)
        ):
            return base.items[key]
        return base if isinstance(node.slice, ast.Slice) else base.each

    def _value_tuple(self, node: ast.Tuple | ast.List | ast.Set) -> Value:
        return container(*map(self.value, node.elts))

    _value_list = _value_set = _value_tuple

    def _value_dict(self, node: ast.Dict) -> Value:
        return container(union(map(self.value, node.values)))

    def _value_listcomp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
        return self.comprehension(node.generators, node.elt)

    _value_setcomp = _value_generatorexp = _value_listcomp

    def _value_dictcomp(self, node: ast.DictComp) -> Value:
        return self.comprehension(node.generators, node.value)

    def comprehension(self, generators: list[ast.comprehension], element: ast.expr) -> Value:
        """Return the container that a comprehension creates."""
        outside, self.scope = self.scope, self.scope.new_child()
        with self.loop():
            for each in generators:
                self.bind(each.target, self.value(each.iter).each)
            found = container(self.value(element))
        self.scope = outside
        return found

    def _value_binop(self, node: ast.BinOp) -> Value:
        found = arithmetic(node.op, self.value(node.left), self.value(node.right))
        match node:
            case (
                ast.BinOp(op=ast.Mult(), left=ast.Constant(value=100))
                | ast.BinOp(op=ast.Mult(), right=ast.Constant(value=100))
            ) if found.kinds & {"accuracy", "probability"}:
                return number("percentage")
        return found

    def _value_unaryop(self, node: ast.UnaryOp) -> Value:
        found = self.value(node.operand)
        return NOTHING if isinstance(node.op, ast.Not) else found

    def _value_boolop(self, node: ast.BoolOp) -> Value:
        return union(map(self.value, node.values))

    def _value_ifexp(self, node: ast.IfExp) -> Value:
        self.value(node.test)
        return union((self.value(node.body), self.value(node.orelse)))

    def _value_namedexpr(self, node: ast.NamedExpr) -> Value:
        found = self.value(node.value)
        self.bind(node.target, found)
        return found

    def _value_lambda(self, node: ast.Lambda) -> Value:
        return self.function(node)

    def _value_starred(self, node: ast.Starred) -> Value:
        return self.value(node.value).each

    def _value_await(self, node: ast.Await) -> Value:
        return self.value(node.value)

    def _value_yield(self, node: ast.Yield) -> Value:
        self.returned.append(container(self.value(node.value) if node.value else NOTHING))
        return ANYTHING

    def _value_joinedstr(self, node: ast.JoinedStr) -> Value:
        return self.told(parts(node))

    # Calls

    def _value_call(self, node: ast.Call) -> Value:
        if name_of(node.func) in ("print", "display") and isinstance(node.func, ast.Name):
            self.show(node)
            return NOTHING
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self.scope.get("self", ANYTHING)
        match node.func:
            case ast.Attribute(value=ast.Constant(value=str()), attr="format"):
                return self.told(parts(node))
        muted = calls.is_named(node.func, self.deterministic)
        self.muted += muted
        function = self.called(node.func)
        arguments = [self.value(each) for each in node.args]
        keywords = {each.arg or "**": self.value(each.value) for each in node.keywords}
        self.chance(function, node)
        found = self.apply(function, node.func, arguments, keywords, node)
        if calls.is_named(node.func, self.training):
            self.reach(Phase.FIT)
        self.muted -= muted
        return found


def is_step(target: ast.expr, value: ast.expr) -> bool:
    """Return whether a variable is computed from itself, as in `w = w - g` or `w = step(w)`."""
    difference = isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub)
    if not difference and not isinstance(value, ast.Call | ast.ListComp):
        return False
    made, used = (
        {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
        for each in (target, value)
    )
    return bool(made & used)

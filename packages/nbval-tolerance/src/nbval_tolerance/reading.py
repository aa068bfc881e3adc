"""Read a notebook's code in the order in which it runs, without running it.

Variables keep from cell to cell what is known of their values. A loop is read once, each branch of
an `if` once, a function of the notebook where it is called.
"""

from __future__ import annotations

import ast
import builtins
from collections import ChainMap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nbval_tolerance import calls, libraries
from nbval_tolerance.calls import Call, is_none, last_of, name_of
from nbval_tolerance.compare import Phase
from nbval_tolerance.printing import printed
from nbval_tolerance.values import (
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

DEPTH = 20  # of calls of the notebook's functions in each other
STEPS = 100_000  # expressions of a cell that are read, at most: calls in calls may be many

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BUILTINS = set(dir(builtins))
ORDER = (Phase.UNTRAINED, Phase.FITTED, Phase.FIT)
GROWS = {"append": False, "add": False, "insert": False, "extend": True}  # whether by many values
NUMERIC = {"numpy", "pandas", "math", "copy", "statistics", "torch", "tensorflow", "keras", "jax"}


@dataclass(frozen=True)
class Draw:
    """A call that draws random numbers, or asks for the time: its result is another in each run.

    Attributes
    ----------
    cell
        The code cell that it stands in, or that calls the function that it stands in; from 0.
    call
        What is called, as the source writes it: `np.random.rand`.
    seed
        What seeds it, as code: `np.random.seed(0)`, or an argument of the call, `random_state=0`.
        Empty if no seed does.
    """

    cell: int
    call: str
    seed: str


@dataclass
class Cell:
    """What one code cell does.

    Attributes
    ----------
    phase
        `FIT` if it trains a network, `FITTED` if it fits another model, else `UNTRAINED`.
    shown
        The kinds of the numbers that it shows without a word; `?` among them if some may be any.
    draws
        Its random numbers that nothing before has seeded.
    """

    phase: Phase = Phase.UNTRAINED
    shown: set[str] = field(default_factory=set)
    draws: list[Draw] = field(default_factory=list)


@dataclass(frozen=True)
class Function:
    """A function of the notebook, and the variables that it sees."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: ChainMap


class Reader:
    """Reads cells one after another.

    Parameters
    ----------
    training, deterministic
        Names of calls that train, and of those that do not although they look so: `train_epoch` or,
        with what stands before it, `optimizer.step`.
    """

    def __init__(self, training: tuple[str, ...] = (), deterministic: tuple[str, ...] = ()) -> None:
        self.training, self.deterministic = training, deterministic
        self.scope: ChainMap = ChainMap({})
        self.functions: dict[str, Function] = {}
        self.methods: set[str] = set()  # those functions that are given their object
        self.classes: dict[str, tuple[Value, dict[str, Value]]] = {}  # bases, what they define
        self.attributes: dict[str, Value] = {}  # by name, of all objects of the notebook's classes
        self.metrics: list[Value] | None = None  # that `compile` was given last
        self.roots: set[str] = set()  # of the libraries that are imported
        self.seeded: set[str] = set()  # generators
        self.cell, self.index = Cell(), -1

    def read(self, tree: ast.Module, silent: bool = False) -> Cell:
        """Return what the next cell does; `silent` if the value of its last line is not shown."""
        self.cell, self.index = Cell(), self.index + 1
        self.steps: set[str] = set()  # `gradient`, `update`: of the loop that is read
        self.returned: list[Value] = []
        self.entered: list[str] = []  # the functions that are read
        self.results: dict = {}  # of functions that the cell has called
        self.muted = 0  # whether a call is read that the project says is deterministic
        self.left = STEPS
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

    def reach(self, phase: Phase | None) -> None:
        """Note that the cell trains a network, or fits another model."""
        if phase and not self.muted:
            self.cell.phase = max(phase, self.cell.phase, key=ORDER.index)

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Read a loop: if gradients are taken in it, and steps, it trains a network."""
        outside, self.steps = self.steps, set()
        yield
        if {"gradient", "update"} <= self.steps:
            self.reach(Phase.FIT)
        self.steps |= outside

    # Statements

    def run(self, node: ast.AST) -> None:
        """Read a statement."""
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
        """Read statements."""
        for statement in statements:
            self.run(statement)

    def branches(self, *blocks: list[ast.stmt]) -> None:
        """Read blocks of which one runs: a variable is then what any of them makes it."""
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
        """Return the value of a function of the notebook."""
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
        if ascends or isinstance(node.op, ast.Sub):  # `w -= g`, `w += rate * g`, not `total += 1`
            self.steps.add("update")
        self.bind(node.target, arithmetic(node.op, self.value(node.target), self.value(node.value)))

    def _run_delete(self, node: ast.Delete) -> None:
        """Keep the variable: it may be deleted in one of several branches."""

    def bind(self, target: ast.expr, value: Value) -> None:
        """Give the target of an assignment its value."""
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
        """Put a value into a container."""
        if isinstance(target, ast.Name | ast.Attribute):
            old = self.value(target)
            items = (union((*old.items, value)) if old.items else value,)
            self.bind(target, Value(old.names - {UNKNOWN}, items))

    # Expressions

    def value(self, node: ast.AST) -> Value:
        """Return what an expression may be, and note what it does."""
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
        unknown = named(node.id) if node.id in BUILTINS else ANYTHING
        return told_by(node.id, self.scope.get(node.id, unknown))

    def _value_attribute(self, node: ast.Attribute) -> Value:
        base = self.value(node.value)
        if isinstance(node.value, ast.Call) and name_of(node.value.func) == "super":
            return union(self.inherited(name).get(node.attr, NOTHING) for name in base.names)
        return self.attribute(base, node.attr)

    def attribute(self, base: Value, attribute: str) -> Value:
        """Return an attribute of a value: of a library, an object, a number, a container."""
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
        return told_by(attribute, Value(frozenset(found)))

    def defined(self, name: str) -> dict[str, Value]:
        """Return what a class of the notebook, or an object of it, has from such classes."""
        _, own = self.classes.get(name.removesuffix("()"), (NOTHING, {}))
        return self.inherited(name) | own

    def inherited(self, name: str) -> dict[str, Value]:
        """Return what a class of the notebook has from its bases."""
        name = name.removesuffix("()")
        bases, _ = self.classes.get(name, (NOTHING, {}))
        found: dict[str, Value] = {}
        for base in bases.names - {name}:
            found |= self.defined(base) if base.startswith("class ") else {}
        return found

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
        """Return the container that a comprehension makes."""
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
            case ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod()):
                return NOTHING  # a text
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
        for part in node.values:
            self.value(part)
        return NOTHING

    # Calls

    def _value_call(self, node: ast.Call) -> Value:
        if name_of(node.func) in ("print", "display") and isinstance(node.func, ast.Name):
            self.show(node)
            return NOTHING
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self.scope.get("self", ANYTHING)
        muted = calls.is_named(node.func, self.deterministic)
        self.muted += muted
        function = self.value(node.func)
        arguments = [self.value(each) for each in node.args]
        keywords = {each.arg or "**": self.value(each.value) for each in node.keywords}
        self.chance(function, node)
        found = self.apply(function, node.func, arguments, keywords, node)
        if calls.is_named(node.func, self.training):
            self.reach(Phase.FIT)
        self.muted -= muted
        return found

    def show(self, node: ast.Call) -> None:
        """Note the kinds of the numbers that a call prints, but of those that it names."""
        for keyword in node.keywords:
            self.value(keyword.value)
        for part in printed(node.args):
            kinds = self.value(part.node).kinds
            if not libraries.kind_of(part.words) and not part.form.endswith(("d", "s", "%")):
                self.cell.shown |= kinds

    def chance(self, function: Value, node: ast.Call) -> None:
        """Note that a call seeds a generator, or draws from one without a seed."""
        self.seeded |= calls.seeded_by(function.names, node.func, node)
        for chance in calls.drawn_by(function.names, node, self.roots, self.seeded):
            draw = Draw(self.index, ast.unparse(node.func), chance.seed)
            if draw not in self.cell.draws:
                self.cell.draws.append(draw)

    def apply(
        self,
        function: Value,
        written: ast.expr,
        arguments: list[Value],
        keywords: dict[str, Value],
        node: ast.AST,
    ) -> Value:
        """Return what a call returns, and note what it does.

        Parameters
        ----------
        function
            What is called.
        written
            The same in the source.
        arguments, keywords
            What it is given; `**` for a dictionary of keywords.
        node
            The call; or the function that a decorator is given.
        """
        given = union([*arguments, *keywords.values()]).all
        receiver = self.value(written.value) if isinstance(written, ast.Attribute) else NOTHING
        models = self.models(receiver.all)
        method = name_of(written)
        if method in GROWS and arguments and isinstance(written, ast.Attribute) and not models:
            self.put(written.value, arguments[-1].each if GROWS[method] else arguments[-1])
            return NOTHING
        objects = [n for n in receiver.names if n.startswith("class ") and n.endswith("()")]
        found = []
        for name in sorted(function.names):
            if name in self.functions:
                own = [named(*objects)] if name in self.methods and objects else []
                found.append(self.enter(name, [*own, *arguments], keywords))
            elif name.startswith("class ") and "." not in name and not name.endswith("()"):
                found.append(self.construct(name, arguments, keywords))
            else:
                call = Call(name, written, node, models, self.models(given), self.roots)
                self.reach(calls.phase_of(call))
                self.steps |= calls.steps_of(call)
                found.append(self.returns(call, receiver, arguments, given))
        if method in libraries.FITS:  # of the notebook's classes, what fits them
            for name in sorted(receiver.all | given):
                for fit in self.defined(name).get("fit", NOTHING).names - function.names:
                    if fit in self.functions:
                        self.enter(fit, [named(name)], {})
        if method in libraries.APPLIES:
            for name in sorted(given & self.functions.keys()):
                with self.loop():
                    self.enter(name, [ANYTHING] * 3, {})
                    if method not in ("map", "apply", "run"):  # a loop whose variable is passed on
                        self.steps.add("update")
        if method == "score" and any(
            UNKNOWN in n or is_object(n.rpartition(".")[0]) for n in function.names
        ):
            return self.scored(node, models)
        return told_by(method, union(found))

    def models(self, names: Iterable[str]) -> frozenset[str]:
        """Return the objects among names: of the notebook's classes, what they inherit from."""
        found: set[str] = set()
        for name in names:
            if name.startswith("class "):
                bases, _ = self.classes.get(name.removesuffix("()"), (NOTHING, {}))
                found |= self.models(f"{base}()" for base in bases.names)
            elif is_object(name) or name.startswith("scored "):
                found.add(name)
        return frozenset(found)

    def returns(
        self, call: Call, receiver: Value, arguments: list[Value], given: frozenset[str]
    ) -> Value:
        """Return what a call returns of what is none of the notebook's functions."""
        method, root = call.method, call.name.partition(".")[0]
        first = arguments[0] if arguments else NOTHING
        functions = given & self.functions.keys()
        if call.name.startswith("="):
            kind = call.name[1:].partition(".")[0]
            return number(kind) if method in libraries.PASSES else NOTHING
        if method in libraries.PLAIN:
            return NOTHING
        match method:
            case "items" if not arguments:
                return container(container(NOTHING, receiver.each))
            case "zip":
                return container(container(*(each.each for each in arguments)))
            case "enumerate":
                return container(container(NOTHING, first.each))
            case "compile":
                self.metrics = metrics_of(call.node)
                return NOTHING
            case "evaluate" if call.is_foreign or root in libraries.DEEP:
                metrics = [ANYTHING] if self.metrics is None else self.metrics
                return container(number("loss"), *metrics) if metrics else number("loss")
            case "cross_val_score" | "permutation_test_score":
                return self.scored(call.node, self.models(given))
        if method in libraries.FITS and call.owner:
            # In scikit-learn the model itself. In Keras a history, in statsmodels a result.
            scikit = root in ("sklearn", "xgboost", "lightgbm") or call.is_foreign
            return Value(receiver.names) if scikit else named(f"{call.name}()")
        foreign = call.is_foreign or call.name.startswith(UNKNOWN)
        if method in libraries.PASSES and (root in NUMERIC or root in BUILTINS or foreign):
            passed = receiver if call.is_foreign else first
            if is_object(call.owner):  # a metric, say
                passed = number(libraries.kind_of(last_of(call.owner)))
            return passed if "random" not in call.name else ANYTHING
        if foreign or root in BUILTINS:
            return Value(ANYTHING.names | functions)
        return self.library(call, given)

    def library(self, call: Call, given: frozenset[str]) -> Value:
        """Return what a call of a library returns: an object, with those that it is given."""
        last = last_of(call.name)
        kind = libraries.kind_of(last)
        if call.owner.startswith("sklearn.metrics") and last[:1].islower():
            return number(kind or ("loss" if last.endswith(("error", "loss")) else ""))
        if kind and (last[:1].islower() or call.name.endswith("()")):  # or a loss, which is called
            return number(kind)
        if call.name.count("(") > 2:
            return ANYTHING
        inside = {name for name in given if is_object(name) or name.startswith(("def ", "class "))}
        scoring = calls.scoring_of(call.node)
        scored = {f"scored {libraries.kind_of(scoring)}"} if scoring else set()
        return named(f"{call.name}()", *inside, *scored)

    def scored(self, node: ast.AST, models: frozenset[str]) -> Value:
        """Return the score of models: by what they are told, or what they are."""
        if scoring := calls.scoring_of(node):
            return number(libraries.kind_of(scoring))
        told = {name.removeprefix("scored ") for name in models if name.startswith("scored ")}
        return number(told.pop() if len(told) == 1 else libraries.score_kind(models))

    def construct(self, name: str, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """Return an object of a class of the notebook; read how it is made."""
        found = named(f"{name}()")
        for made in self.defined(name).get("__init__", NOTHING).names & self.functions.keys():
            self.enter(made, [found, *arguments], keywords)
        return found

    def enter(self, name: str, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """Return what a function of the notebook returns; read it, as it is called."""
        key = (name, tuple(arguments), tuple(keywords.items()), self.muted > 0)
        if key in self.results:
            found, steps = self.results[key]
            self.steps |= steps
            return found
        if name in self.entered or len(self.entered) >= DEPTH or self.left <= 0:
            return ANYTHING
        outside = self.scope, self.returned, self.steps
        function = self.functions[name]
        self.scope, self.returned, self.steps = function.scope.new_child(), [], set()
        self.entered.append(name)
        self.parameters(function.node.args, arguments, keywords)
        if isinstance(function.node, ast.Lambda):
            self.returned.append(self.value(function.node.body))
        else:
            self.block(function.node.body)
        self.entered.pop()
        found, steps = union(self.returned), self.steps
        self.results[key] = found, steps
        self.scope, self.returned, self.steps = outside
        self.steps |= steps
        return found

    def parameters(
        self, spec: ast.arguments, arguments: list[Value], keywords: dict[str, Value]
    ) -> None:
        """Give a function's parameters what it is called with, or what they are by default."""
        ordered = [each.arg for each in (*spec.posonlyargs, *spec.args)]
        defaults = dict(zip(reversed(ordered), reversed(spec.defaults), strict=False))
        defaults |= {
            each.arg: default
            for each, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
        }
        given = {**dict(zip(ordered, arguments, strict=False)), **keywords}
        for name in (*ordered, *(each.arg for each in spec.kwonlyargs)):
            default = defaults.get(name)
            unknown = self.value(default) if default else ANYTHING
            self.scope[name] = given.get(name, unknown)
        if spec.vararg:
            self.scope[spec.vararg.arg] = container(*arguments[len(ordered) :])
        if spec.kwarg:
            self.scope[spec.kwarg.arg] = ANYTHING


def metrics_of(node: ast.AST) -> list[Value]:
    """Return the metrics that `compile` is given."""
    given = next((k.value for k in getattr(node, "keywords", []) if k.arg == "metrics"), None)
    if given is None or is_none(given):
        return []
    if not isinstance(given, ast.List | ast.Tuple):
        return [ANYTHING]
    return [number(libraries.kind_of(ast.unparse(each))) for each in given.elts]


def is_step(target: ast.expr, value: ast.expr) -> bool:
    """Tell whether an assignment makes a variable anew from itself: `w = w - g`, `w = step(w)`."""
    difference = isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub)
    if not difference and not isinstance(value, ast.Call | ast.ListComp):
        return False
    made, used = (
        {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
        for each in (target, value)
    )
    return bool(made & used)

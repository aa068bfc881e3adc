"""Analyse the calls in a notebook's code, both to functions that it defines and to libraries."""

from __future__ import annotations

import ast
import builtins
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nbval_tolerance.compare import Phase
from nbval_tolerance.source import calls, libraries
from nbval_tolerance.source.calls import Call, is_none, last_of, name_of
from nbval_tolerance.source.printing import Part, printed
from nbval_tolerance.source.values import (
    ANYTHING,
    NOTHING,
    UNKNOWN,
    Value,
    container,
    is_object,
    named,
    number,
    told_by,
    union,
)

DEPTH = 20  # The maximum nesting depth of calls to functions that the notebook defines.
# The maximum number of expressions to analyse for each cell. Without a limit, nested calls could
# take exponential time.
STEPS = 100_000
BUILTINS = set(dir(builtins))
ORDER = (Phase.UNTRAINED, Phase.FITTED, Phase.FIT)
# Methods that add to a container, and whether each adds several values at once.
GROWS = {"append": False, "add": False, "insert": False, "extend": True}
NUMERIC = {"numpy", "pandas", "math", "copy", "statistics", "torch", "tensorflow", "keras", "jax"}


@dataclass(frozen=True)
class Draw:
    """A call that draws random numbers or reads the clock, so its result differs from run to run.

    Attributes
    ----------
    cell
        The number, starting at 0, of the code cell that contains the call, or that calls the
        function containing it.
    call
        The called expression as written in the source, such as `np.random.rand`.
    seed
        The code that would seed the draw, such as `np.random.seed(0)`, or an argument of the call,
        such as `random_state=0`. Empty if the draw cannot be seeded.
    clock
        Whether the call reads the clock.
    """

    cell: int
    call: str
    seed: str
    clock: bool = False


@dataclass
class Cell:
    """What a code cell does: train or fit a model, show numbers, and draw random numbers.

    Attributes
    ----------
    phase
        `FIT` if the cell trains a network, `FITTED` if it fits another model, and `UNTRAINED`
        otherwise.
    shown
        The kinds of the numbers that the cell shows without naming them in words. `?` stands for
        numbers of an unknown kind.
    draws
        The cell's unseeded random draws, and its calls that read the clock.
    """

    phase: Phase = Phase.UNTRAINED
    shown: set[str] = field(default_factory=set)
    draws: list[Draw] = field(default_factory=list)


@dataclass(frozen=True)
class Function:
    """A function defined in the notebook, and the variables that it can access."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: ChainMap


class Caller(ABC):
    """Tracks the possible values of a notebook's variables, and the effects of its calls.

    Parameters
    ----------
    training, deterministic
        Names of functions that train, and of functions that only seem to train: either the final
        component of a name (`train_epoch`) or several components (`optimizer.step`).
    """

    def __init__(self, training: tuple[str, ...] = (), deterministic: tuple[str, ...] = ()) -> None:
        self.training, self.deterministic = training, deterministic
        self.scope: ChainMap = ChainMap({})
        self.functions: dict[str, Function] = {}
        self.methods: set[str] = set()  # Keys of `functions` that denote methods.
        self.classes: dict[str, tuple[Value, dict[str, Value]]] = {}  # Bases and definitions.
        self.attributes: dict[str, Value] = {}  # The attributes of all objects, by name.
        self.metrics: list[Value] | None = None  # The metrics passed to the last `compile`.
        self.roots: set[str] = set()  # The names of the imported libraries.
        self.seeded: set[str] = set()  # The names of the seeded generators.
        self.cell, self.index = Cell(), -1

    def begin(self) -> None:
        """Prepare to analyse the next cell."""
        self.cell, self.index = Cell(), self.index + 1
        self.steps: set[str] = set()  # the parts of a training step found in this loop
        self.returned: list[Value] = []
        self.entered: list[str] = []  # The functions being analysed.
        self.results: dict = {}  # The cached results of the functions that the cell has called.
        self.muted = 0  # Nonzero inside a call that the project lists as deterministic.
        self.left = STEPS

    @abstractmethod
    def value(self, node: ast.AST) -> Value:
        """Return the possible values of an expression, and record its effects, such as training."""

    @abstractmethod
    def block(self, statements: Iterable[ast.stmt]) -> None:
        """Analyse statements."""

    @abstractmethod
    def put(self, target: ast.expr, value: Value) -> None:
        """Add a value to a container."""

    def reach(self, phase: Phase | None) -> None:
        """Record that the cell trains a network, or fits another model."""
        if phase and not self.muted:
            self.cell.phase = max(phase, self.cell.phase, key=ORDER.index)

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Analyse a loop, which trains a network if it computes gradients and updates variables."""
        outside, self.steps = self.steps, set()
        yield
        if {"gradient", "update"} <= self.steps:
            self.reach(Phase.FIT)
        self.steps |= outside

    def defined(self, name: str) -> dict[str, Value]:
        """Return all attributes, including inherited ones, of a class defined in the notebook."""
        _, own = self.classes.get(name.removesuffix("()"), (NOTHING, {}))
        return self.inherited(name) | own

    def inherited(self, name: str) -> dict[str, Value]:
        """Return the attributes that a class in the notebook inherits from its base classes."""
        name = name.removesuffix("()")
        bases, _ = self.classes.get(name, (NOTHING, {}))
        found: dict[str, Value] = {}
        for base in bases.names - {name}:
            found |= self.defined(base) if base.startswith("class ") else {}
        return found

    def show(self, node: ast.Call) -> None:
        """Record the kinds of the numbers that a call prints."""
        for keyword in node.keywords:
            self.value(keyword.value)
        self.cell.shown |= self.told(printed(node.args)).kinds

    def told(self, parts: Iterable[Part]) -> Value:
        """Return the numbers in a printed text, except named numbers, integers and percentages."""
        values = [(part, self.value(part.node)) for part in parts if part.node is not None]
        return union(
            Value(value.all)
            for part, value in values
            if not libraries.kind_of(part.words) and not part.form.endswith(("d", "s", "%"))
        )

    def chance(self, function: Value, node: ast.Call) -> None:
        """Record that a call seeds a random generator, or draws from an unseeded one."""
        self.seeded |= calls.seeded_by(function.names, node.func, node)
        for chance in calls.drawn_by(function.names, node, self.roots, self.seeded):
            draw = Draw(self.index, ast.unparse(node.func), chance.seed, chance.clock)
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
        """Return the possible results of a call, and record its effects, such as training.

        Parameters
        ----------
        function
            The possible values of the called expression.
        written
            The called expression, as a syntax node.
        arguments, keywords
            The arguments of the call; `**` stands for a dictionary of keywords.
        node
            The syntax node of the call, or of the function to which a decorator is applied.
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
        # If the notebook defines the estimator, analyse the estimator's `fit` method.
        if method in libraries.FITS or any(map(libraries.FITTING_CALL.match, function.names)):
            for name in sorted(receiver.all | given):
                for fit in self.defined(name).get("fit", NOTHING).names - function.names:
                    if fit in self.functions:
                        self.enter(fit, [named(name)], {})
        if method in libraries.APPLIES:
            for name in sorted(given & self.functions.keys()):
                with self.loop():
                    self.enter(name, [ANYTHING] * 3, {})
                    # Other methods, such as `scan`, update a variable that they pass from step to
                    # step.
                    if method not in ("map", "apply", "run"):
                        self.steps.add("update")
        if method == "score" and any(
            UNKNOWN in n or is_object(n.rpartition(".")[0]) for n in function.names
        ):
            return self.scored(node, models)
        return told_by(method, union(found))

    def models(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names of objects.

        An instance of a class that the notebook defines counts as one of each base class.
        """
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
        """Return the possible results of calling a function that is not defined in the notebook."""
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
            # `fit` returns the model itself in scikit-learn, a history in Keras, and a results
            # object in statsmodels.
            scikit = root in ("sklearn", "xgboost", "lightgbm") or call.is_foreign
            return Value(receiver.names) if scikit else named(f"{call.name}()")
        foreign = call.is_foreign or call.name.startswith(UNKNOWN)
        if method in libraries.PASSES and (root in NUMERIC or root in BUILTINS or foreign):
            passed = receiver if call.is_foreign else first
            if is_object(call.owner):  # such as a metric
                passed = number(libraries.kind_of(last_of(call.owner)))
            return passed if "random" not in call.name else ANYTHING
        if foreign or root in BUILTINS:
            return Value(ANYTHING.names | functions)
        return self.library(call, given)

    def library(self, call: Call, given: frozenset[str]) -> Value:
        """Return the result of a call to a library: a number or an object.

        The object also represents the objects and functions that were passed to the call.
        """
        last = last_of(call.name)
        if kind := libraries.kind_of_the_run(call.name):
            return number(kind)
        kind = libraries.kind_of(last)
        if call.owner.startswith("sklearn.metrics") and last[:1].islower():
            return number(kind or ("loss" if last.endswith(("error", "loss")) else ""))
        if kind and (last[:1].islower() or call.name.endswith("()")):  # includes loss objects
            return number(kind)
        if call.name.count("(") > 2:
            return ANYTHING
        inside = {name for name in given if is_object(name) or name.startswith(("def ", "class "))}
        scoring = calls.scoring_of(call.node)
        scored = {f"scored {libraries.kind_of(scoring)}"} if scoring else set()
        return named(f"{call.name}()", *inside, *scored)

    def scored(self, node: ast.AST, models: frozenset[str]) -> Value:
        """Return the score of models.

        The kind of score depends on the `scoring` argument or, if it is missing, on the models.
        """
        if scoring := calls.scoring_of(node):
            return number(libraries.kind_of(scoring))
        told = {name.removeprefix("scored ") for name in models if name.startswith("scored ")}
        return number(told.pop() if len(told) == 1 else libraries.score_kind(models))

    def construct(self, name: str, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """Analyse `__init__` of a class in the notebook, and return an instance of the class."""
        found = named(f"{name}()")
        for made in self.defined(name).get("__init__", NOTHING).names & self.functions.keys():
            self.enter(made, [found, *arguments], keywords)
        return found

    def enter(self, name: str, arguments: list[Value], keywords: dict[str, Value]) -> Value:
        """Return the possible results of calling a function that the notebook defines."""
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
        """Assign a call's arguments, or default values, to the parameters of a function."""
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
    """Return the metrics that are passed to `compile`."""
    given = next((k.value for k in getattr(node, "keywords", []) if k.arg == "metrics"), None)
    if given is None or is_none(given):
        return []
    if not isinstance(given, ast.List | ast.Tuple):
        return [ANYTHING]
    return [number(libraries.kind_of(ast.unparse(each))) for each in given.elts]

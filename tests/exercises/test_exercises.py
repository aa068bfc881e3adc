"""Test that the checks accept correct answers and reject wrong ones.

Also test that the exercises match their solutions. These tests run the cells in the pytest process;
separately, nbval runs the solutions in a kernel.
"""

from __future__ import annotations

import ast
import builtins
import dis
import os
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, SimpleNamespace

import nbformat
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import mutants

from tfcourse.exercises import EXERCISES, SOLUTIONS, exercise, without_solution

os.environ["CHECK_SEED"] = "1"  # use the same hidden test cases in every run, as in grading

PATHS = sorted(SOLUTIONS.glob("*.ipynb"))
TABLE = tomllib.loads((Path(__file__).parent / "wrong_answers.toml").read_text())
WRONG = [
    pytest.param(number, name, entry, id=f"{number}-{name}-{entry['slip']}")
    for number, exercises in TABLE.items()
    for name, entries in exercises.items()
    for entry in entries
]
RIGHT_TABLE = tomllib.loads((Path(__file__).parent / "right_answers.toml").read_text())
RIGHT = [
    pytest.param(number, name, entry["code"], id=f"{number}-{name}-{entry['how']}")
    for number, exercises in RIGHT_TABLE.items()
    for name, entries in exercises.items()
    for entry in entries
]
# Mutants that are also correct answers, identified by their changed line.
STILL_RIGHT = tomllib.loads((Path(__file__).parent / "still_right.toml").read_text())
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


class Run:
    """Run a notebook's code cells in order, and record the variables before each answer cell.

    Learners' answers can reassign any name. Before the first answer, the run therefore overwrites
    every global name that the checks could use, including Python's built-ins.
    """

    def __init__(self, notebook: nbformat.NotebookNode):
        self.names = {"__name__": "__main__"}
        self.overwritten = {}  # the checks' globals
        self.before = {}  # exercise -> variables defined before its answer cell
        self.checks = {}  # exercise -> source code of its check
        self.said = {}  # exercise -> mistake that its check reports
        for cell in notebook.cells:
            if cell.cell_type == "code":
                name, _, role = cell.id.rpartition("-")
                if role == "answer":
                    if not self.before:
                        self.overwrite()
                    self.before[name] = dict(self.names)
                if role == "check":
                    self.checks[name] = cell.source
                    self.said[name] = self.verdict(name, self.names)
                else:
                    exec(cell.source, self.names)

    def overwrite(self) -> None:
        """Overwrite the checks' global names; give the answers a copy of the original globals."""
        self.overwritten = self.names
        self.names = self.names["apart"](function_among(self.names)).__globals__
        self.overwritten.update(dict.fromkeys([*self.names, *dir(builtins)], Overwritten()))

    def verdict(self, name: str, names: dict) -> str | None:
        """Run an exercise's check; return the mistake that it reports, or None."""
        exec(self.checks[name], names)
        return names[self.checks[name].partition("(")[0]].mistake


class Overwritten:
    """A placeholder for the value of an overwritten name; any use of it raises TypeError."""

    def __bool__(self, *_: object) -> bool:
        raise TypeError("a check uses a name that a learner has overwritten")

    __call__ = __eq__ = __iter__ = __len__ = __getitem__ = __array__ = __bool__


def function_among(names: dict) -> FunctionType:
    """Return a function whose globals are the given dictionary."""
    return FunctionType((lambda: None).__code__, names)


def loaded(function: object) -> Iterator[tuple[FunctionType, str]]:
    """Yield the global names that a function uses, directly or through other functions."""
    waiting, known = [function], []
    while waiting:
        each = waiting.pop()
        each = getattr(each, "__wrapped__", each)  # undo functools.cache
        if isinstance(each, type) and each.__module__ == "__main__":
            waiting += [value for value in vars(each).values() if isinstance(value, FunctionType)]
        if not isinstance(each, FunctionType) or each in known:
            continue
        if each.__code__.co_filename != "<string>":  # a library's function
            continue
        known.append(each)
        waiting += [cell.cell_contents for cell in each.__closure__ or ()]
        codes = [each.__code__]
        while codes:
            code = codes.pop()
            codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
            for line in dis.get_instructions(code):
                if line.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                    yield each, line.argval
                    waiting.append(each.__globals__.get(line.argval))


@pytest.fixture(scope="module")
def run_of():
    """Return a function that runs the solutions of a given lesson and caches the result."""
    runs = {}

    def run(number: str) -> Run:
        if number not in runs:
            (path,) = SOLUTIONS.glob(f"{number}_*.ipynb")
            runs[number] = Run(nbformat.read(path, as_version=4))
        return runs[number]

    return run


@each_notebook
def test_every_check_accepts_its_solution(path, run_of):
    run = run_of(path.stem[:2])
    assert 2 <= len(run.checks) <= (6 if path.stem.startswith("13") else 4)  # lesson 13 has six
    assert list(run.checks) == list(run.before)
    assert run.said == dict.fromkeys(run.checks)


@each_notebook
def test_no_name_that_a_learner_uses_breaks_a_check(path, run_of):
    # The other tests run the checks with every name overwritten; this test also covers code paths
    # that those runs do not reach.
    run = run_of(path.stem[:2])
    assert all(isinstance(value, Overwritten) for value in run.overwritten.values())
    for name, source in run.checks.items():
        uses = list(loaded(run.names[source.partition("(")[0]]))
        assert uses
        for function, used in uses:
            names, where = function.__globals__, f"{name}: {function.__name__} uses {used}"
            assert names is not run.overwritten, f"{where}, which a learner may overwrite"
            assert used in names or hasattr(builtins, used), f"{where}, defined only later"
            assert not (used in names and hasattr(builtins, used)), f"{where}, also a built-in"


def test_a_learner_may_call_a_result_as_a_check_calls_its_helper():
    # As in a notebook, all cells share a namespace. The learner's code reassigns names that the
    # checks use.
    (path,) = SOLUTIONS.glob("04_*.ipynb")
    names = {"__name__": "__main__"}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and not cell.id.startswith("softmax"):
            exec(cell.source, names)
    exec("number = sum = check = hidden_cases = types = how_many_times(z, 9, 5)", names)
    exec("check_ratio(how_many_times)", names)
    assert names["check_ratio"].mistake is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some wrong answers divide by zero
@pytest.mark.parametrize(("number", "name", "entry"), WRONG)
def test_a_wrong_answer_is_rejected_and_told_why(number, name, entry, run_of, capsys):
    run = run_of(number)
    names = dict(run.before[name])
    exec(entry["code"], names)
    mistake = run.verdict(name, names)
    assert mistake, "the check accepts the wrong answer"
    assert entry["says"] in mistake
    assert capsys.readouterr().out.endswith(f"Not yet. {mistake}\n")


@pytest.mark.parametrize(("number", "name", "code"), RIGHT)
def test_another_right_answer_is_accepted(number, name, code, run_of):
    names = dict(run_of(number).before[name])
    exec(code, names)
    assert run_of(number).verdict(name, names) is None


# Each entry lists the layers after Flatten in a correct answer to exercise 03.budget.
LAYERS = [
    "Dense(25, activation=tf.nn.relu), Dense(10)",
    'Dense(25), Activation("relu"), Dense(10)',
    "Dense(25), ReLU(), Dense(10)",
    'Rescaling(1 / 255), Dense(25, activation="relu"), Dropout(0.2), Dense(10)',
    'Dense(25, activation="relu"), Dense(10, activation="softmax")',
]


@pytest.mark.parametrize("layers", LAYERS)
def test_a_model_is_judged_by_what_it_computes(layers, run_of):
    names = dict(run_of("03").names)
    start = "from tensorflow.keras.layers import *\nstart = [tf.keras.Input((28, 28)), Flatten()]\n"
    exec(f"{start}small_model = tf.keras.Sequential([*start, {layers}])", names)
    assert run_of("03").verdict("budget", names) is None


# Alternative correct answers to lesson 00's exercises. Each answer is a function that returns the
# given expression.
RETURNS = [
    ("device", "device_of(tensor)", 'tensor.device.split("/")[-1].split(":")[1]'),
    ("device", "device_of(tensor)", '"GPU" if "GPU" in tensor.device else "CPU"'),
    ("device", "device_of(tensor)", "tensor.device[-5:-2]"),
    ("device", "device_of(tensor)", "tf.DeviceSpec.from_string(tensor.device).device_type"),
    ("repeat", "draw(seed)", "np.random.seed(seed) or np.random.rand(3)"),
    ("repeat", "draw(seed)", "np.random.default_rng(seed).random(3)"),
    ("repeat", "draw(seed)", "tf.random.set_seed(seed) or tf.random.uniform([3])"),
    ("repeat", "draw(seed)", "tf.keras.utils.set_random_seed(seed) or list(np.random.rand(3))"),
    ("repeat", "draw(seed)", "tf.random.stateless_uniform([3], [seed, 0])"),
]


@pytest.mark.parametrize(("name", "function", "result"), RETURNS)
def test_a_function_is_judged_by_what_it_returns(name, function, result, run_of):
    names = dict(run_of("00").names)
    exec(f"def {function}:\n    return {result}", names)
    assert run_of("00").verdict(name, names) is None


@pytest.mark.parametrize("kind", ["CPU", "GPU"])
def test_the_device_is_named_on_a_machine_with_a_gpu_as_well(kind, run_of, monkeypatch):
    run = run_of("00")
    tensor = SimpleNamespace(device=f"/job:localhost/replica:0/task:0/device:{kind}:0")
    monkeypatch.setattr(run.names["tf"], "reduce_sum", lambda _: tensor)
    assert run.verdict("device", dict(run.names)) is None
    for said in ["CPU", "GPU"]:
        assert run.verdict("device", {**run.names, "device_of": lambda _, said=said: said})


@each_notebook
def test_no_check_takes_nan_for_an_answer(path, run_of):
    # `<`, `>` and `==` are false for nan, so a carelessly written check would accept it.
    run = run_of(path.stem[:2])
    for name, check in run.checks.items():
        answer = re.search(r"\((\w+)", check)[1]
        right = run.names[answer]
        for wrong in [np.nan, lambda *inputs, right=right: nan_like(right(*inputs))]:
            names = {**run.names, answer: wrong}
            assert run.verdict(name, names), f"{name} accepts {wrong}"


def nan_like(value: object) -> object:
    return np.full(np.shape(value), np.nan)[()]


@each_notebook
def test_every_exercise_has_five_wrong_answers_and_three_right_ones(path):
    number = path.stem[:2]
    for name in names_of(path):
        wrong, right = TABLE[number][name], RIGHT_TABLE[number][name]
        assert len(wrong) >= 5, name
        assert len({entry["says"] for entry in wrong}) >= 2, name
        assert len(right) >= 3, name


@each_notebook
def test_hints_come_in_steps_and_a_right_answer_is_told_why(path):
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    for name in names_of(path):
        hints = re.findall(r"<details><summary>Hint (\d)</summary>", cells[f"{name}-text"])
        assert hints in (["1", "2"], ["1", "2", "3"]), name
        functions = [node for node in ast.parse(cells[f"{name}-find"]).body if is_check(node)]
        why = ast.get_docstring(functions[0])
        assert why, f"{name}: its check has no docstring to print after Right."
        assert len(why.split()) >= 15, name
        assert "Try" in why or "?" in why, f"{name}: the docstring does not say what to try next"


def is_check(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("check_")


def names_of(path: Path) -> list[str]:
    """Return the names of the exercises in a notebook."""
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    return [name.removesuffix("-check") for name in ids if name.endswith("-check")]


@each_notebook
def test_a_small_mistake_in_the_solution_is_rejected(path, run_of, monkeypatch):
    # Make one small change at a time. still_right.toml lists the changes after which the solution
    # is still correct.
    monkeypatch.chdir(path.parent)
    run = run_of(path.stem[:2])
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    accepted = {}
    for name in run.checks:
        accepted[name] = []
        for line, source in mutants.mutants(cells[f"{name}-answer"]):
            names = dict(run.before[name])
            if "tf" in names:  # train each mutant from the same random seed
                names["tf"].keras.utils.set_random_seed(1)
            try:
                exec(source, names)
            except Exception:
                continue  # the learner would see this error
            if run.verdict(name, names) is None:
                accepted[name].append(line)
    listed = STILL_RIGHT.get(path.stem[:2], {})
    assert accepted == {name: listed.get(name, []) for name in accepted}


def test_a_learner_sees_how_many_exercises_are_done(tmp_path, monkeypatch, capsys):
    for path in EXERCISES.glob("*.ipynb"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.chdir(tmp_path)
    lesson = PATHS[0].stem
    run = Run(nbformat.read(PATHS[0], as_version=4))
    first, second = run.checks
    monkeypatch.setenv("JPY_SESSION_NAME", f"somewhere/{lesson}.ipynb")
    capsys.readouterr()

    def said(name: str) -> str:
        assert run.verdict(name, dict(run.names)) is None
        return capsys.readouterr().out.splitlines()[-1]

    of = sum(len(names_of(path)) for path in PATHS)
    one = f"Done: 1 of 2 exercises in this lesson, 1 of {of} in the course."
    assert said(first) == one
    assert said(first) == one, "an exercise counts only once"
    assert said(second) == f"Done: 2 of 2 exercises in this lesson, 2 of {of} in the course."
    (tmp_path / "progress.json").write_text("{")
    assert said(first) == one, "a damaged file is replaced"
    (tmp_path / "utf-16.ipynb").write_bytes("{}".encode("utf-16"))
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "link.ipynb").symlink_to("nowhere")
    assert said(first) == one, "other files in the folder do not matter"
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert "exercises" not in said(first), "grading runs record no progress"


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        ("len(answer(1))", "lambda x: x[0]", "Your code raised TypeError: 'int' object"),
        ("len(answer(1))", "lambda x: missing", "Your code raised NameError: name 'missing'"),
        ("len(answer(1))", "lambda x: x", "The check can't work with your answer: TypeError"),
        ("missing(answer(1))", "lambda x: x", "A folded cell above has not run."),
        ("answer(1)", "lambda x: None", "or your function returns `None`, as for `<lambda>(1)`."),
        ("answer(np.ones(9))", "lambda x: None", "or your function returns `None`. Does each way"),
        ("answer(1)", "lambda x: x.bit_length", "returns the method `bit_length` itself"),
        ("answer(1)", "lambda x: (x, len)", "returns the function `len` itself"),
    ],
)
def test_only_the_learners_own_errors_are_called_theirs(check, answer, says):
    cells = {cell.id: cell.source for cell in nbformat.read(PATHS[0], as_version=4).cells}
    names = {}
    exec(f"{cells['setup']}\n{cells['checks-common']}", names)
    exec(f"@check\ndef check_it(answer):\n    {check}", names)
    exec(f"check_it({answer})", names)
    assert says in names["check_it"].mistake


@pytest.mark.parametrize(
    ("answer", "untouched"),
    [
        ("answer = ...", True),
        ('def answer(x):\n    """Return it."""\n    ...', True),
        ('def answer(x):\n    """Return it."""\n    return x', False),
        ('def answer(x):\n    """Return it."""\n    print(x)', False),
        ('def answer(x):\n    """Return it."""\n    return 3', False),
        ("def answer(x):\n    return 3", False),
        ("answer = lambda x: 3", False),
        ("answer = None", False),
        ("answer = 3", False),
    ],
)
def test_only_an_untouched_answer_is_no_attempt(tmp_path, monkeypatch, answer, untouched):
    monkeypatch.setenv("COURSE_ATTEMPTS", str(tmp_path / "attempts"))
    monkeypatch.setenv("JPY_SESSION_NAME", "01_the_whole_game.ipynb")
    cells = {cell.id: cell.source for cell in nbformat.read(PATHS[0], as_version=4).cells}
    names = {}
    exec(f"{cells['setup']}\n{cells['checks-common']}", names)
    exec("@check\ndef check_it(answer, given):\n    return 'Never right.'", names)
    exec(f"{answer}\ncheck_it(answer, len)", names)
    assert (tmp_path / "attempts").exists() is not untouched


def test_hidden_cases_are_new_for_a_learner_and_the_same_in_a_grading(monkeypatch):
    names = Run(nbformat.read(PATHS[0], as_version=4)).names
    draws = [names["hidden_cases"]().random() for _ in range(2)]
    assert draws[0] == draws[1]
    monkeypatch.delenv("CHECK_SEED")
    draws = [names["hidden_cases"]().random() for _ in range(2)]
    assert draws[0] != draws[1]


@each_notebook
def test_an_exercise_is_what_its_solutions_give(path):
    text = nbformat.writes(exercise(path)) + "\n"
    assert (EXERCISES / path.name).read_text() == text, "run: make exercises"
    assert {p.name for p in EXERCISES.iterdir()} == {p.name for p in PATHS}


@each_notebook
def test_an_exercise_holds_no_solution_and_no_output(path):
    text = (EXERCISES / path.name).read_text()
    assert "SOLUTION" not in text
    exercise_cells = nbformat.reads(text, as_version=4).cells
    solution_cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    for cell in exercise_cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        if cell.id.endswith("-answer"):
            solved, given = solution_cells[cell.id].source.split("\n"), cell.source.split("\n")
            assert Counter(line.split("  #")[0] for line in solved) - Counter(given), cell.id


@each_notebook
def test_an_untouched_exercise_runs_to_its_end_and_every_check_says_not_yet(path, capsys):
    run = Run(nbformat.read(EXERCISES / path.name, as_version=4))
    said = [line for line in capsys.readouterr().out.splitlines() if "Not yet" in line]
    assert len(said) == len(run.checks)
    for name, mistake in run.said.items():
        assert mistake
        assert "raised" not in mistake, name


def test_all_notebooks_check_in_the_same_way():
    sources = set()
    for path in PATHS:
        cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
        assert cells["checks-common"].metadata.jupyter.source_hidden
        sources.add(cells["checks-common"].source)
    assert len(sources) == 1


@each_notebook
def test_each_answer_is_followed_by_its_check(path):
    ids = [cell.id for cell in nbformat.read(EXERCISES / path.name, as_version=4).cells]
    answers = [i for i, name in enumerate(ids) if name.endswith("-answer")]
    for i in answers:
        name = ids[i].removesuffix("-answer")
        assert ids[i - 1 : i + 2] == [f"{name}-text", f"{name}-answer", f"{name}-check"]


@each_notebook
def test_links_lead_somewhere(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for target in re.findall(r"\]\(([^)]+)\)", cell.source if cell.cell_type != "code" else ""):
            assert "://" in target or (EXERCISES / target).exists(), target


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("x = f(1)  # SOLUTION", "x = ..."),
        ("x = f(1)  # SOLUTION: g(1)", "x = g(1)"),
        ("a,\nb,  # SOLUTION:\nc,", "a,\nc,"),
        ("def f():\n    # BEGIN SOLUTION\n    1\n    # END SOLUTION", "def f():\n    ..."),
        ("# BEGIN SOLUTION\nx = 1\n\ny = 2\n# END SOLUTION: x = ...\nz", "x = ...\nz"),
        ("x = 1  # a remark", "x = 1  # a remark"),
    ],
)
def test_marks(source, given):
    assert without_solution(source) == given

"""The plugin and `execute`, on small notebooks with a real kernel (no TensorFlow: seconds)."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest

from tfcourse.regression import execute as execute_module

CELLS = {
    "shapes": "print('train', (6, 28, 28))",
    "display": "from IPython.display import display; display({'a': 1}); 6 * 7",
    "untrained": "print('score', 0.25)",
    "training": "class Model:\n    def fit(self): print('loss: 0.300')\nModel().fit()",
    "trained": "print('test accuracy 0.975')\nprint('mistakes', 262)",
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a notebook, executed and stored the way `make execute` does it."""
    path = tmp_path_factory.mktemp("lesson") / "07_small.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# Small")]
    cells += [nbformat.v4.new_code_cell(source, id=name) for name, source in CELLS.items()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    execute_module.execute(notebook, path.parent)
    execute_module.write(notebook, path)
    return path


@pytest.fixture
def lesson(executed: Path, tmp_path: Path) -> Path:
    """Return a copy of that notebook which a test may change."""
    return shutil.copy(executed, tmp_path / executed.name)


@pytest.fixture
def run(pytester: pytest.Pytester, lesson: Path):
    """Return a function that changes the stored lesson, runs it, and returns pytest's result."""

    def run(cell: str | None = None, old: str = "", new: str = "") -> pytest.RunResult:
        notebook = nbformat.read(lesson, as_version=4)
        for entry in notebook.cells:
            if entry.id == cell:
                (output,) = (o for o in entry.outputs if o.get("text"))
                assert old in output.text
                output.text = output.text.replace(old, new)
        nbformat.write(notebook, lesson)
        return pytester.runpytest_subprocess("--nbval", "-p", "tfcourse.regression", lesson)

    return run


def test_a_fresh_lesson_passes(run):
    run().assert_outcomes(passed=len(CELLS))


def test_a_small_move_after_training_passes(run):
    run("trained", "0.975", "0.978").assert_outcomes(passed=len(CELLS))


@pytest.mark.parametrize(
    ("cell", "old", "new"),
    [
        ("shapes", "28, 28", "28, 27"),
        ("untrained", "0.25", "0.26123"),
        ("training", "0.300", "0.400"),
        ("trained", "0.975", "0.955"),
        ("trained", "262", "263"),
    ],
)
def test_one_changed_number_fails_and_is_named(run, cell, old, new):
    result = run(cell, old, new)
    result.assert_outcomes(passed=len(CELLS) - 1, failed=1)
    number = list(CELLS).index(cell)
    result.stdout.fnmatch_lines([f"*07_small.ipynb, Cell {number}*", "*stored:*", "*computed:*"])
    report = result.stdout.str()
    assert new.split()[-1] in report, "the stored value"
    assert old.split()[-1] in report, "the value computed now"


def test_an_output_that_is_gone_or_of_another_kind_fails(run, lesson):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[1].source = "pass"
    notebook.cells[2].source = "6 * 7"
    nbformat.write(notebook, lesson)
    result = run()
    result.assert_outcomes(passed=len(CELLS) - 2, failed=2)
    result.stdout.fnmatch_lines(["*the outputs differ in kind*"])


def test_red_output_fails(run, lesson):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[1].source += "\nimport sys; print('frightening', file=sys.stderr)"
    nbformat.write(notebook, lesson)
    result = run()
    result.assert_outcomes(passed=len(CELLS) - 1, failed=1)
    result.stdout.fnmatch_lines(["*frightening*"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [("1 / 0", "ZeroDivisionError"), ("import sys; print(1, file=sys.stderr)", "stderr")],
)
def test_execute_leaves_a_failing_lesson_as_it_was(lesson, monkeypatch, capsys, source, reason):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[1].source = source
    nbformat.write(notebook, lesson)
    before = lesson.read_bytes()
    monkeypatch.setattr(execute_module, "NOTEBOOKS", lesson.parent)
    assert execute_module.main(["07"]) == 1
    assert reason in capsys.readouterr().out
    assert lesson.read_bytes() == before


def test_execute_stores_what_a_second_run_finds(lesson, monkeypatch):
    before = lesson.read_bytes()
    monkeypatch.setattr(execute_module, "NOTEBOOKS", lesson.parent)
    assert execute_module.main([]) == 0
    assert lesson.read_bytes() == before


def test_execute_names_the_lessons_that_there_are(lesson, monkeypatch, capsys):
    monkeypatch.setattr(execute_module, "NOTEBOOKS", lesson.parent)
    with pytest.raises(SystemExit) as error:
        execute_module.main(["08"])
    assert error.value.code == 2
    assert "07_small" in capsys.readouterr().err

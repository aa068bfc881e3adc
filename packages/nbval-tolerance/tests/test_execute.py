"""`make execute`, on small notebooks with a real kernel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from nbval_tolerance import execute as module
from nbval_tolerance.stored import problems

SOURCES = [
    "print('train', (6, 28, 28))",
    "print('before'); display('shown'); print('after')",
    "for i in range(9): print(f'{i}/8', end='\\r')\nprint()",
    "class Model:\n    def fit(self): print('test accuracy: 0.975')\nModel().fit()",
]

# What another window does to the notebook `name`: it puts a source into the first cell, and saves.
EDIT = """notebook = nbformat.read(name, as_version=4)
notebook.cells[0].source = {!r}
nbformat.write(notebook, name)"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lesson that was executed and stored."""
    path = tmp_path_factory.mktemp("lesson") / "07_small.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in SOURCES]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NOTEBOOKS", path.parent)
        assert module.main(["07"]) == 0
    return path


@pytest.fixture
def lesson(executed: Path, tmp_path: Path, monkeypatch) -> Path:
    """Return a copy of that lesson which a test may change, among the lessons to execute."""
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    return shutil.copy(executed, tmp_path / executed.name)


def read(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def edit(path: Path, number: int, old: str, new: str, output: bool = False) -> None:
    """Change the source of one cell, or its stored text."""
    notebook = nbformat.read(path, as_version=4)
    where = notebook.cells[number].outputs[0] if output else notebook.cells[number]
    key = "text" if output else "source"
    assert old in where[key]
    where[key] = where[key].replace(old, new)
    nbformat.write(notebook, path)


def test_what_is_stored_is_well_and_is_what_a_reader_sees(lesson):
    assert problems(nbformat.read(lesson, as_version=4)) == []
    cells = read(lesson)
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4]
    order = [output.get("text") or output.data["text/plain"] for output in cells[1].outputs]
    assert order == ["before\n", "'shown'", "after\n"]
    assert cells[2].outputs[0].text == "8/8\n", "only the last frame of a progress bar"


def test_chunks_of_one_stream_are_joined_where_nothing_stands_between():
    chunks = [nbformat.v4.new_output("stream", text=text) for text in ("a", "b\n")]
    cell = nbformat.v4.new_code_cell(outputs=[*chunks, nbformat.v4.new_output("display_data")])
    module.tidy(cell)
    assert [output.get("text") for output in cell.outputs] == ["ab\n", None]


def test_a_second_run_changes_nothing(lesson, capsys):
    before = lesson.read_bytes()
    assert module.main([]) == 0
    assert lesson.read_bytes() == before
    assert "says what is stored" in capsys.readouterr().out


def test_outputs_within_their_tolerance_are_kept(lesson):
    edit(lesson, 3, "0.975", "0.974", output=True)
    before = lesson.read_bytes()
    assert module.main([]) == 0
    assert lesson.read_bytes() == before


def test_a_comment_needs_no_acceptance_but_a_new_hash(lesson):
    edit(lesson, 3, "Model()", "# Train it.\nModel()")
    assert problems(nbformat.read(lesson, as_version=4))
    assert module.main([]) == 0
    assert problems(nbformat.read(lesson, as_version=4)) == []


def test_changes_are_shown_and_stored_only_when_accepted(lesson, capsys):
    edit(lesson, 0, "6, 28", "7, 28")
    before = lesson.read_bytes()
    assert module.main(["07"]) == 1
    shown = capsys.readouterr().out
    assert "Cell 0, shown as [1]" in shown
    assert "computed: train (7, 28, 28)" in shown
    assert "--accept" in shown
    assert lesson.read_bytes() == before
    assert module.main(["07", "--accept"]) == 0
    assert read(lesson)[0].outputs[0].text == "train (7, 28, 28)\n"
    assert problems(nbformat.read(lesson, as_version=4)) == []


@pytest.mark.parametrize(
    ("number", "old", "new"),
    [
        (3, "0.975", "0.974"),  # within its tolerance
        (0, "'train', ", "'train  ', "),  # white space alone
        (1, "display('shown')", "display('shown', metadata={'text/plain': {'colour': 1}})"),
    ],
)
def test_what_an_edit_changes_is_never_kept_from_before(lesson, capsys, number, old, new):
    edit(lesson, number, old, new)
    before = lesson.read_bytes()
    assert module.main(["07"]) == 1
    assert f"Cell {number}, shown as" in capsys.readouterr().out
    assert lesson.read_bytes() == before
    assert module.main(["07", "--accept"]) == 0
    outputs = str(read(lesson)[number].outputs)
    assert module.main(["07"]) == 0
    assert (
        str(read(lesson)[number].outputs)
        == outputs
        != str(nbformat.reads(before, 4).cells[number].outputs)
    )


def test_kept_outputs_show_the_numbers_of_their_cells(lesson):
    edit(lesson, 0, "print", "6 * 7\nprint")
    edit(lesson, 1, "display('shown'); print('after')", "print('after')\n'result'")
    assert module.main(["--accept"]) == 0
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("x = 1"))
    nbformat.write(notebook, lesson)
    assert module.main([]) == 0
    cell = read(lesson)[2]
    assert [o.execution_count for o in cell.outputs if "execution_count" in o] == [3]


def test_another_courses_notebook_is_named_by_its_path(lesson, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path / "none")
    edit(lesson, 0, "6, 28", "7, 28")
    assert module.main([str(lesson), "--accept"]) == 0
    assert "7" in read(lesson)[0].outputs[0].text


def test_a_cells_own_time_limit_holds(lesson, capsys):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[0].source = "import time; time.sleep(30)"
    notebook.cells[0].metadata.tags = ["regression:seconds=1"]
    nbformat.write(notebook, lesson)
    assert module.main(["07"]) == 1
    assert "after 1.0 seconds" in capsys.readouterr().out


def test_ctrl_c_writes_nothing_and_says_so(lesson):
    edit(lesson, 0, SOURCES[0], "import time; print('slow'); time.sleep(60)")
    before = lesson.read_bytes()
    command = [sys.executable, "-m", "nbval_tolerance.execute", lesson, "--accept"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not [child for child in psutil.Process(process.pid).children() if child.status()]:
        time.sleep(0.1)
    time.sleep(3)  # the kernel starts, or the cell sleeps
    os.killpg(process.pid, signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    assert "interrupted, not written" in output
    assert lesson.read_bytes() == before


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1), ("n", 1)])
def test_at_a_terminal_it_asks(lesson, monkeypatch, answer, code):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    edit(lesson, 0, "6, 28", "7, 28")
    assert module.main(["07"]) == code
    assert ("7" in read(lesson)[0].outputs[0].text) is (code == 0)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print(1, file=sys.stderr)", "stderr"),
        ("import os; os._exit(3)", "died"),
    ],
)
def test_a_lesson_that_fails_is_left_as_it_was(lesson, capsys, source, reason):
    edit(lesson, 0, SOURCES[0], source)
    before = lesson.read_bytes()
    assert module.main(["07", "--accept"]) == 1
    assert reason in capsys.readouterr().out
    assert lesson.read_bytes() == before


def test_what_is_saved_while_it_runs_is_not_lost(lesson, capsys):
    saved = "print('edited in another window')"
    edit(lesson, 0, SOURCES[0], f"import nbformat\nname = '{lesson.name}'\n{EDIT.format(saved)}")
    assert module.main(["07", "--accept"]) == 1
    assert "changed while it ran" in capsys.readouterr().out
    assert read(lesson)[0].source == saved


def test_a_later_cell_must_not_change_what_an_earlier_one_has_put_out(lesson, capsys):
    edit(lesson, 0, SOURCES[0], "shown = display('loading', display_id=True)")
    edit(lesson, 1, SOURCES[1], "shown.update('done')")
    before = lesson.read_bytes()
    assert module.main(["07", "--accept"]) == 1
    said = capsys.readouterr().out
    assert "A later cell changed what this one, [1]," in said
    assert "display_id=True" in said
    assert lesson.read_bytes() == before


def test_a_file_that_is_no_notebook_is_named(lesson, capsys):
    lesson.write_text('{"cells": [')
    assert module.main(["07"]) == 1
    assert "07_small ... FAILED: it is no notebook" in capsys.readouterr().out
    assert lesson.read_text() == '{"cells": ['


def test_an_older_notebook_with_metadata_of_its_own_keeps_them(lesson):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.nbformat_minor = 2
    for cell in notebook.cells:
        del cell["id"]
    notebook.metadata.title = "Small"
    nbformat.write(notebook, lesson)
    edit(lesson, 0, "6, 28", "7, 28")
    assert module.main(["07", "--accept"]) == 0
    stored = nbformat.read(lesson, as_version=4)
    assert (stored.nbformat_minor, stored.metadata.title) == (2, "Small")


def test_it_names_the_lessons_that_there_are(lesson, capsys):
    with pytest.raises(SystemExit) as error:
        module.main(["08"])
    assert error.value.code == 2
    assert "07_small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("01", ["notebooks/01_a", "solutions/01_a"]),
        ("01_a", ["notebooks/01_a", "solutions/01_a"]),
        ("solutions/01", ["solutions/01_a"]),
        ("notebooks/01_a.ipynb", ["notebooks/01_a"]),
        ("02", ["notebooks/02_b"]),
    ],
)
def test_a_number_means_a_lesson_and_its_solutions(tmp_path, monkeypatch, name, meant):
    monkeypatch.setattr(module, "NOTEBOOKS", tmp_path / "notebooks")
    for path in ["01_a.ipynb", "02_b.ipynb", "solutions/01_a.ipynb", "exercises/01_a.ipynb"]:
        (tmp_path / "notebooks" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notebooks" / path).touch()
    found = [f"{path.parent.name}/{path.stem}" for path in module.find_lessons([name])]
    assert found == meant

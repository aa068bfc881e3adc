"""Test that `plan` is fast, runs no submitted code, and refuses notebooks that it cannot grade."""

from __future__ import annotations

import contextlib
import json
import os
import time

import nbformat
import pytest

from tfcourse.exercises import SOLUTIONS, exercise
from tfcourse.grading import __main__ as command
from tfcourse.grading.grader import exercises_of, plain, rows_of
from tfcourse.grading.submission import NotGradableError, parse, plan, read, watched


def test_the_lesson_is_told_by_the_cells_and_not_by_the_file_name():
    exercises = exercises_of(SOLUTIONS)
    for name, notebook in exercises.items():
        assert plan(notebook, exercises).lesson == name
    with pytest.raises(NotGradableError, match="no answer"):
        plan(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")]), exercises)


@pytest.mark.parametrize("path", sorted(SOLUTIONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_submission_comes_with_no_solutions(path):
    """A grading job must not contain a line that occurs only in the solution notebooks."""
    exercises = exercises_of(SOLUTIONS)
    job = plan(exercises[path.stem], exercises).as_job()
    sent = "\n".join([job["ours"], *(step["text"] for step in job["steps"])]).splitlines()
    given = "\n".join(cell.source for cell in exercise(path).cells).splitlines()
    secret = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    assert set(sent) & (set(secret.splitlines()) - set(given)) == set()


@pytest.mark.parametrize("kept", ["in the metadata", "nowhere", "random", "hostile"])
def test_a_notebook_stored_without_ids_is_graded_all_the_same(kept, tmp_path):
    exercises = exercises_of(SOLUTIONS)
    for name in exercises:
        notebook = exercise(SOLUTIONS / f"{name}.ipynb")
        answer = next(i for i, cell in enumerate(notebook.cells) if cell.id.endswith("-answer"))
        notebook.cells[answer].source = "mine = 2"
        notebook.cells.insert(answer, nbformat.v4.new_code_cell("mine = 1"))
        expected = plan(notebook, exercises)
        notebook.nbformat_minor = 5 if kept in ("random", "hostile") else 4
        for number, cell in enumerate(notebook.cells):
            cell_id = cell.pop("id")
            if kept == "in the metadata":
                cell.metadata["id"] = cell_id
            elif kept == "random":
                cell["id"] = f"cell{number}"
            elif kept == "hostile":
                cell["id"] = cell.metadata["id"] = [[], {}, None, 1, 1e999][number % 5]
        (tmp_path / "without.ipynb").write_text(json.dumps(notebook))
        assert plan(read(tmp_path / "without.ipynb"), exercises) == expected
        assert [step.text for step in expected.steps if step.kind == "theirs"][:2] == [
            "mine = 1",
            "mine = 2",
        ]


# A notebook's JSON -> the error message, or None if the notebook can be graded.
CELL = {"cell_type": "code", "id": "flatten-answer", "metadata": {}, "outputs": [], "source": "x"}
NOTEBOOKS = {
    "null": "it has no list of cells",
    '"cells"': "it has no list of cells",
    '{"cells": {}}': "it has no list of cells",
    '{"worksheets": []}': "an old notebook format: open and save it in JupyterLab",
    '{"cells": [1]}': "cell 1 has no text",
    '{"cells": [{}]}': "cell 1 has no text",
    '{"cells": []}': "no answer",
    '{"cells": [{"source": 5}]}': "cell 1 has no text",
    '{"cells": [{"source": [1, 2]}]}': "cell 1 has no text",
    '{"cells": [{"source": {"a": 1}}]}': "cell 1 has no text",
    '{"cells": [{"source": ["a", ["b"]]}]}': "cell 1 has no text",
    '{"cells": [' + "[" * 100_000: "maximum recursion depth",
    '{"a":' * 100_000: "maximum recursion depth",
    '{"cells": [' + "1" * 100_000 + "]}": "not a notebook",
    json.dumps({"cells": [CELL] * 501}): "more than 500 cells",
    json.dumps({"cells": [{**CELL, "source": "x" * 1_000_001}]}): "1,000,000 characters of code",
    json.dumps({"cells": [CELL]}): None,
    "\ufeff" + json.dumps({"cells": [CELL]}): None,
    json.dumps({"cells": [CELL], "metadata": [], "nbformat": "4", "nbformat_minor": None}): None,
    json.dumps({"cells": [CELL, CELL]}): None,
    json.dumps({"cells": [{**CELL, "metadata": [1]}]}): None,
    json.dumps({"cells": [{**CELL, "metadata": None, "outputs": {"a": float("nan")}}]}): None,
    json.dumps({"cells": [{**CELL, "outputs": 7, "execution_count": 10**4000}]}): None,
    json.dumps({"cells": [CELL, {**CELL, "id": [1]}, {**CELL, "id": {}}]}): None,
    json.dumps({"cells": [CELL, {**CELL, "id": None, "cell_type": ["code"]}]}): None,
    json.dumps({"cells": [{**CELL, "source": "'\ud800x'"}]}): None,
    json.dumps({"cells": [CELL, {"cell_type": "code", "source": "# \ud800\udc00 \udc00"}]}): None,
    json.dumps({"cells": [{**CELL, "source": ["x", "\n", "y"]}]}): None,
}


@pytest.mark.parametrize("content", NOTEBOOKS, ids=lambda content: content[:60])
def test_a_notebook_may_hold_anything(content):
    def planned():
        return plan(parse(content.encode()), exercises_of(SOLUTIONS))

    if says := NOTEBOOKS[content]:
        with pytest.raises(NotGradableError, match=says):
            planned()
    else:
        job = planned().as_job()
        assert json.loads(json.dumps(job, ensure_ascii=False).encode()) == job  # as for a kernel
        (answer,) = [step["text"] for step in job["steps"] if step["exercise"] == "flatten"][1:2]
        assert answer in ("x", "x\ny", "'\N{REPLACEMENT CHARACTER}x'")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_a_notebook_may_be_stored_in_any_encoding(encoding):
    text = json.dumps({"cells": [{**CELL, "source": "x = 'Jürgen'"}]}, ensure_ascii=False)
    exercises = exercises_of(SOLUTIONS)
    steps = plan(parse(text.encode(encoding)), exercises).steps
    assert "x = 'Jürgen'" in [step.text for step in steps]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04\x14\x00", "a ZIP archive: unpack it"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\xef\xbb\xbf\r\n<html>", "a web page"),
        (b"\x89PNG\r\n", "not a notebook"),
        (b"import numpy as np", "a Python script"),
        (b"# %% [markdown]\n", "a Python script"),
        (b"PK\x03\x04\x14\x00 word/document.xml", "a Word document"),
        (b"\x1f\x8b\x08", "a compressed file: unpack it"),
        (b"7z\xbc\xaf\x27", "a 7z archive"),
        (b"Rar!\x1a", "a RAR archive"),
        (b"\0" * 5000, "empty: ask for it again"),
        (b'{"cells": [\n<<<<<<< HEAD\n', "contains an unresolved Git merge conflict"),
        (b'{"cells": [{"source": "x = 1', "incomplete"),
    ],
)
def test_another_kind_of_file_is_named(content, says):
    with pytest.raises(NotGradableError, match=f"^{says}"):
        parse(content)


def test_edits_of_our_cells_run_but_do_not_change_the_checks():
    exercises = exercises_of(SOLUTIONS)
    notebook = exercise(SOLUTIONS / "04_logits_and_softmax.ipynb")
    expected = plan(notebook, exercises)
    edits = {"setup": "import math", "ratio-find": "old = 1", "ratio-check": "old"}
    for cell in notebook.cells:
        cell.source = edits.get(cell.id, cell.source)
    found = plan(notebook, exercises)
    assert (found.ours, found.watched) == (expected.ours, expected.watched)
    texts = [step.text for step in found.steps]
    assert [step.text for step in found.steps if step.instead_of] == ["import math", "old = 1"]
    assert texts.index("old") + 1 == texts.index("check_ratio(how_many_times)")
    assert list(found.remarks) == ["ratio"]


def test_two_cells_with_the_same_id_both_run():
    exercises = exercises_of(SOLUTIONS)
    cells = [{**CELL, "source": "first"}, {**CELL, "source": "second"}]
    steps = plan(parse(json.dumps({"cells": cells}).encode()), exercises).steps
    theirs = [step.text for step in steps if step.kind == "theirs" and step.text]
    assert theirs == ["first", "second"]


def lesson_04() -> nbformat.NotebookNode:
    return exercise(SOLUTIONS / "04_logits_and_softmax.ipynb")


def place(notebook: nbformat.NotebookNode, name: str) -> int:
    return next(number for number, cell in enumerate(notebook.cells) if cell.id == name)


def sources(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what runs for a notebook; `=` and an exercise's name stand for its check."""
    steps = plan(notebook, exercises_of(SOLUTIONS)).steps
    return [f"={step.exercise}" if step.kind == "check" else step.text for step in steps]


def test_cells_run_in_the_order_of_the_submission():
    notebook = lesson_04()
    moved = [cell for cell in notebook.cells if cell.id.startswith("softmax-")][1:]
    moved[1].source = "first"
    notebook.cells = [cell for cell in notebook.cells if cell not in moved]
    here = place(notebook, "ratio-text")
    notebook.cells[here:here] = moved
    found = sources(notebook)
    assert found.index("first") < found.index("=softmax") < found.index("=ratio")


def test_an_exercise_that_was_cut_and_pasted_is_found():
    notebook = lesson_04()
    for name in ("ratio-answer", "ratio-check"):
        notebook.cells.append(notebook.cells.pop(place(notebook, name)))
        notebook.cells[-1].id = f"new-{name}"
    notebook.cells[-2].source = "pasted"
    found = plan(notebook, exercises_of(SOLUTIONS))
    assert [step.exercise for step in found.steps if step.text == "pasted"] == ["ratio"]
    assert sources(notebook)[-2:] == ["pasted", "=ratio"]
    assert found.remarks == {}


def test_answers_that_were_merged_with_their_checks_are_found_without_ids():
    notebook = lesson_04()
    for name in ("temperature", "ratio", "softmax"):
        answer, check = place(notebook, f"{name}-answer"), place(notebook, f"{name}-check")
        notebook.cells[answer].source += "\n" + notebook.cells.pop(check).source
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    found = sources(notebook)
    for name in ("temperature", "ratio", "softmax"):
        merged = next(n for n, text in enumerate(found) if f"\ncheck_{name}(" in text)
        assert found[merged + 1] == f"={name}"


def test_a_text_cell_that_became_code_runs():
    notebook = lesson_04()
    here = place(notebook, "ratio-text")
    notebook.cells[here] = nbformat.v4.new_code_cell("helper = 1", id="ratio-text")
    assert "helper = 1" in sources(notebook)


@pytest.mark.parametrize("kind", ["markdown", "raw"])
def test_an_answer_that_became_text_does_not_run(kind):
    notebook = lesson_04()
    answer = notebook.cells[place(notebook, "ratio-answer")]
    answer.cell_type, answer.source = kind, "nothing"
    found = plan(notebook, exercises_of(SOLUTIONS))
    assert "nothing" not in sources(notebook)
    assert found.remarks == {"ratio": "the answer cell is missing, or is not a code cell"}


def test_a_check_that_became_text_is_judged_all_the_same():
    notebook = lesson_04()
    notebook.cells[place(notebook, "ratio-check")].cell_type = "markdown"
    assert sources(notebook) == sources(lesson_04())


def test_a_copy_of_an_answer_below_the_check_runs_after_the_check():
    notebook = lesson_04()
    here = place(notebook, "ratio-check")
    copy = nbformat.v4.new_code_cell("what if", id="ratio-answer")
    notebook.cells.insert(here + 1, copy)
    found = sources(notebook)
    assert found.index("=ratio") < found.index("what if")


def test_a_check_that_is_called_often_is_judged_twice():
    notebook = lesson_04()
    for _ in range(9):
        notebook.cells.append(nbformat.v4.new_code_cell("check_ratio(how_many_times)  # again"))
    assert sources(notebook).count("=ratio") == 2
    assert sources(notebook)[-1] == "=ratio"


def test_a_second_lesson_in_a_notebook_is_named():
    notebook = lesson_04()
    other = exercise(SOLUTIONS / "05_loss.ipynb")
    notebook.cells += [cell for cell in other.cells if cell.id.startswith("entropy-")]
    found = plan(notebook, exercises_of(SOLUTIONS))
    assert (found.lesson, found.others) == ("04_logits_and_softmax", ["05_loss"])
    *_, row = rows_of(found, "", "")
    assert row["says"].startswith("not graded: the notebook also contains answers to 04_logits")


def test_line_ends_of_windows_are_no_edits():
    cells = [{**cell, "source": cell.source.replace("\n", "\r\n")} for cell in lesson_04().cells]
    exercises = exercises_of(SOLUTIONS)
    found = plan(parse(json.dumps({"cells": cells}).encode()), exercises)
    assert found == plan(lesson_04(), exercises)


def test_two_checks_in_one_line_are_both_found():
    notebook = lesson_04()
    text = "check_ratio(how_many_times); check_softmax(softmax)  # check_temperature(temperature)"
    notebook.cells.append(nbformat.v4.new_code_cell(text))
    assert sources(notebook)[-3:] == [text, "=ratio", "=softmax"]


@pytest.mark.parametrize("ids", ["ours", "none", "another tool's"])
def test_an_answer_in_an_older_version_of_a_lesson_is_found(ids):
    notebook = lesson_04()
    edits = {
        "setup": lambda source: source.replace("z = ", "logits = "),
        "ratio-find": lambda source: source.replace("That is", "This is"),
        "checks-common": lambda source: source + "\nold = 1",
        "ratio-answer": lambda _: "the answer",
    }
    for number, cell in enumerate(notebook.cells):
        cell.source = edits.get(cell.id, str)(cell.source)
        if ids == "none":
            del cell["id"]
        elif ids != "ours":
            cell.id = f"cell-{number}"
    found = plan(parse(json.dumps(notebook).encode()), exercises_of(SOLUTIONS))
    assert [step.exercise for step in found.steps if step.text == "the answer"] == ["ratio"]
    assert found.ours == plan(lesson_04(), exercises_of(SOLUTIONS)).ours
    texts = [step.text for step in found.steps]
    assert texts.index("the answer") < texts.index("check_ratio(how_many_times)")


def test_the_names_that_a_check_uses_are_found():
    source = (
        "import numpy as np\nimport os.path\nfrom json import loads as read\n"
        "def f(x):\n    return np.linalg.norm(sum(x)) + len(os.path.sep) + x.shape[0]"
    )
    assert set(watched(source)) >= {
        "numpy.linalg.norm", "json.loads", "builtins.sum", "builtins.len"
    }  # fmt: skip
    assert not [name for name in watched(source) if name.endswith("shape")]


@pytest.mark.parametrize("cells", [499, 100_000])
def test_planning_takes_no_time(cells):
    cell = {**CELL, "id": None, "source": "x = " + "1" * (1_500 if cells < 500 else 5)}
    content = json.dumps({"cells": [CELL] + [{**cell, "metadata": n} for n in range(cells)]})
    exercises = exercises_of(SOLUTIONS)
    began = time.process_time()
    with contextlib.suppress(NotGradableError):
        plan(parse(content.encode()), exercises)
    assert time.process_time() - began < 5  # takes half a second on an idle machine


def test_too_large_a_file_is_not_read(tmp_path):
    path = tmp_path / "large.ipynb"
    with path.open("wb") as file:
        file.truncate(11_000_000)
    with pytest.raises(NotGradableError, match="larger than"):
        read(path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a.ipynb").touch()
    scandir = os.scandir

    def refused(path):
        if path.name == "closed":
            raise PermissionError
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert command.files(tmp_path) == [tmp_path / "closed"]
    with pytest.raises(NotGradableError, match="a folder that cannot be read"):
        read(tmp_path / "closed")


def test_lines_of_a_message_stay_apart():
    said = "name 'x' is not defined\nCall it in a cell of your own.\nThen run the check."
    assert (
        plain(said) == "name 'x' is not defined; Call it in a cell of your own. Then run the check."
    )


def test_the_file_that_counts_exercises_is_no_submission(tmp_path):
    for name in ("progress.json", "a.ipynb"):
        (tmp_path / name).touch()
    assert command.files(tmp_path) == [tmp_path / "a.ipynb"]

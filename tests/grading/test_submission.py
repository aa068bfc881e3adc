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
from tfcourse.grading.grader import exercises_of
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
    '{"worksheets": []}': "it has no list of cells",
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
        (b"import numpy as np", "not a notebook"),
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

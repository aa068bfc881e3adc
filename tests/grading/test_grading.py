"""`make grade` handles misbehaving submissions. They are small and do not use TensorFlow."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from tfcourse.exercises import SOLUTIONS, exercise
from tfcourse.grading import __main__ as grader
from tfcourse.grading.submission import NotGradableError, plan, read

# Each submission starts a kernel, and several run into the time limit, so this takes minutes.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 15  # the limit for one cell
CELLS = {
    "title": "# Exercises: small",
    "setup": "import traceback\nimport types\n\nimport numpy as np\n\nnumbers = np.arange(5)",
    "checks-common": "",  # small_solution() inserts the real source
    "double-find": "@check\ndef check_double(double):\n"
    "    if not np.array_equal(double(numbers), 2 * numbers):\n"
    "        return f'Twice 4 is not {double(numbers)[4]}.'",
    "total-find": "@check\ndef check_total(total):\n"
    "    if sum([total]) != 10:\n        return f'{total} is not the total.'",
    "double-text": "## 1. Double",
    "double-answer": "def double(x):\n    # BEGIN SOLUTION\n    return 2 * x\n    # END SOLUTION",
    "double-check": "check_double(double)",
    "total-text": "## 2. Total",
    "total-answer": "total = 10  # SOLUTION",
    "total-check": "check_total(total)",
}
RIGHT, DONE = "", {"total": "total = 10"}
UNTOUCHED = "There is still a `...`"
# Name of the submission -> (cells that differ from the untouched exercise, the verdict on `double`,
# the verdict on `total`). A cell named after its exercise is the one with the learner's answer.
CASES = {
    "solved": ({"double": "def double(x):\n    return x + x", **DONE}, RIGHT, RIGHT),
    "untouched": ({}, UNTOUCHED, UNTOUCHED),
    "wrong": ({"double": "def double(x):\n    return x", **DONE}, "Twice 4 is not 4.", RIGHT),
    "syntax error": ({"double": "def double(x) return x", **DONE}, "raised SyntaxError", RIGHT),
    "other names": (
        {"double": "sum = len = check = None\ndef double(x):\n    return 2 * x", **DONE},
        RIGHT,
        RIGHT,
    ),
    "shadows sum": ({"double": "sum = 0\ndef double(x):\n    return 2 * x", **DONE}, RIGHT, RIGHT),
    "endless cell": ({"double": "while True:\n    pass", **DONE}, "STOPPED: still running", RIGHT),
    "endless function": (
        {"double": "def double(x):\n    while True:\n        pass", **DONE},
        "STOPPED: still running",
        RIGHT,
    ),
    "endless and stubborn": (
        {
            "double": "while True:\n    try:\n        while True:\n            pass\n"
            "    except BaseException:\n        pass",
            **DONE,
        },
        "STOPPED: still running",
        "STOPPED: still running",
    ),
    "list of 10 GB": (
        {"double": "def double(x):\n    return [0] * (10 * 2**27)", **DONE},
        "MemoryError",
        RIGHT,
    ),
    "shared memory of 4 GB": (
        {
            "double": "import mmap, time\nm = mmap.mmap(-1, 4 * 2**30)\n"
            "for part in range(64):\n    m.write(bytes(2**26))\n    time.sleep(0.1)",
            **DONE,
        },
        "STOPPED: held more than 1.0 GB of memory",
        "STOPPED: held more than",
    ),
    "1024 processes": (
        {"double": "import os, time\nfor _ in range(10):\n    os.fork()\ntime.sleep(99)", **DONE},
        "STOPPED: started more than 64 processes",
        "STOPPED: started more than",
    ),
    "slips away": (
        {
            "double": "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
            "    if os.fork() == 0:\n        time.sleep(99)\n    os._exit(0)\n"
            "def double(x):\n    return 2 * x",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "floods the output": (
        {"double": "while True:\n    print('x' * 1000)", **DONE},
        "STOPPED: printed more than 10 MB",
        "STOPPED: printed more than 10 MB",
    ),
    "takes over what is printed": (
        {"double": "import io, sys\nsys.stdout = io.StringIO()", **DONE},
        "STOPPED: its output does not reach the grader",
        "STOPPED: its output does not reach the grader",
    ),
    "overwrites the check": (
        {"double": "def check_double(double):\n    print('Right.')"},
        "TAMPERED: the submission replaced check_double",
        "TAMPERED: the submission replaced check_double",
    ),
    "overwrites NumPy": (
        {"double": "np.array_equal = lambda *a: True\ndef double(x):\n    return x"},
        "TAMPERED: the submission replaced np.array_equal",
        "TAMPERED",
    ),
    "edits the check": (
        {"double-find": "def check_double(double):\n    print('Right.')", **DONE},
        f"edited the check; ours was used; {UNTOUCHED}",
        RIGHT,
    ),
    "prints the verdict": (
        {
            "double": 'print(\'Right.\')\nprint(\'{"exercise": "double", "mistake": null}\')\n'
            "_verdict = None",
            **DONE,
        },
        "name 'double' is not defined",
        RIGHT,
    ),
    "ends the check from within": (
        {"double": "def double(x):\n    raise SystemExit", **DONE},
        "The check did not finish",
        RIGHT,
    ),
    "deletes files": (
        {
            "double": "import os, shutil\nfor place in ['.', os.path.expanduser('~'), "
            "os.environ['KERAS_HOME']]:\n    shutil.rmtree(place, ignore_errors=True)\n"
            "def double(x):\n    return 2 * x",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "kills its kernel": (
        {"double": "import os\nos.kill(os.getpid(), 9)", **DONE},
        "STOPPED: its kernel ended",
        "STOPPED: its kernel ended",
    ),
    "kills its grader": (
        {"double": "import os\nos.kill(os.getppid(), 9)", **DONE},
        "STOPPED: the submission ended its own grading",
        "STOPPED",
    ),
    "half a surrogate pair": (
        {"double": "def double(x):\n    raise ValueError('\\ud800 lone')", **DONE},
        r"raised ValueError: \\ud800 lone",
        RIGHT,
    ),
    "writes to the terminal": (
        {"double": "raise ValueError('\\r\\x1b[2K2/2')", **DONE},
        r"raised ValueError: \\r\\x1b\[2K2/2",
        RIGHT,
    ),
    "prints what is no text": (
        {
            "double": "import os\nwith open(f'/proc/{os.getppid()}/fd/1', 'ab') as grader:\n"
            "    grader.write(b'\\xff' * 1000)\ndef double(x):\n    return 2 * x",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "prints past its kernel": (
        {
            "double": 'import os\nos.write(1, b\'{"exercise": "double", "mistake": null}\\n\')\n'
            "os.kill(os.getpid(), 9)",
            **DONE,
        },
        "STOPPED: its kernel ended",
        "STOPPED: its kernel ended",
    ),
    "without an answer": ({"double": None, **DONE}, "the answer's cell is missing", RIGHT),
}
FILES = {
    "notes.txt": "not a notebook",
    "empty.ipynb": "not a notebook",
    "list.ipynb": "not a",
    r"M\xfcller.ipynb": "not a notebook",  # the name has a byte that is not UTF-8
    "./=1+1.ipynb": "not a notebook",
}


def small_solution() -> nbformat.NotebookNode:
    real = nbformat.read(next(SOLUTIONS.glob("*.ipynb")), as_version=4).cells
    cells = []
    for name, source in CELLS.items():
        text = name.endswith(("text", "title"))
        new = nbformat.v4.new_markdown_cell if text else nbformat.v4.new_code_cell
        cells.append(new(source, id=name))
        if name == "checks-common":
            cells[-1].source = next(cell.source for cell in real if cell.id == name)
    return nbformat.v4.new_notebook(cells=cells)


def handed_in(notebook: nbformat.NotebookNode, edits: dict) -> nbformat.NotebookNode:
    """Return an exercise with a learner's edits; None deletes a cell."""
    ids = {name if "-" in name else f"{name}-answer": text for name, text in edits.items()}
    notebook.cells = [cell for cell in notebook.cells if ids.get(cell.id, "") is not None]
    for cell in notebook.cells:
        cell.source = ids.get(cell.id, cell.source)
    return notebook


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Grade all cases in one run; return the table's rows, the output and the scratch folder."""
    folder = tmp_path_factory.mktemp("grading")
    (folder / "solutions").mkdir()
    solution = folder / "solutions" / "01_small.ipynb"
    nbformat.write(small_solution(), solution)
    for name, (edits, *_) in CASES.items():
        path = folder / "submissions" / name / "small.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(handed_in(exercise(solution), edits), path)
    for name, text in {"notes.txt": "hello", "empty.ipynb": "", "list.ipynb": "[1]"}.items():
        (folder / "submissions" / name).write_text(text)
    for name in [b"M\xfcller.ipynb", b"=1+1.ipynb"]:
        (folder / "submissions" / os.fsdecode(name)).touch()
    data = folder / "keras" / "datasets" / "mnist.npz"
    data.parent.mkdir(parents=True)
    data.write_text("data")
    scratch = folder / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "tfcourse.grading", folder / "submissions"]
    options = ["--solutions", solution.parent, "--seconds", str(SECONDS), "--memory", "1"]
    finished = subprocess.run(
        [*command, *options],
        env={
            **os.environ,
            "KERAS_HOME": str(data.parents[1]),
            "A_SECRET": "of the instructor",
            "TMPDIR": str(scratch),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert data.read_text() == "data"
    assert not (folder / "submissions" / "grades.incomplete.csv").exists()
    with (folder / "submissions" / "grades.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows, finished.stdout, scratch


@pytest.mark.parametrize("name", CASES)
def test_a_submission_is_graded_or_stopped(name, graded):
    found = {row["exercise"]: row for row in graded[0] if row["submission"].startswith(f"{name}/")}
    assert list(found) == ["double", "total"]
    for row, says in zip(found.values(), CASES[name][1:], strict=True):
        assert (row["says"] == "") is (row["right"] == "1"), row
        assert re.search(says, row["says"]) if says else row["says"] == "", row


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_notebook_is_named_in_the_table(name, graded):
    (row,) = [row for row in graded[0] if row["submission"] == name]
    assert FILES[name] in row["says"]
    assert row["right"] == "0"


def test_what_is_printed_is_a_line_for_each_submission(graded):
    lines = graded[1].splitlines()
    assert any(line.split() == ["solved/small.ipynb", "2/2"] for line in lines)
    assert f"{len(CASES) + len(FILES)} submissions" in lines[-1]


def test_what_is_printed_does_not_command_the_terminal(graded):
    assert [c for c in graded[1] if not c.isprintable() and c != "\n"] == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_keeps_its_rows_and_the_table_of_before(
    error, tmp_path, monkeypatch, capsys
):
    (tmp_path / "grades.csv").write_text("of last week")
    for name in ["a.ipynb", "b.ipynb", "c.ipynb"]:
        (tmp_path / name).write_text("no notebook")
    grade, left = grader.grade, iter([None, None, error])
    seen = []

    def interrupted(path, *others):
        if stop := next(left, None):
            raise stop
        seen.append(path.name)
        return grade(path, *others)

    monkeypatch.setattr(grader, "grade", interrupted)
    if error is KeyboardInterrupt:
        assert grader.main([str(tmp_path)]) == 130
    else:
        with pytest.raises(error):
            grader.main([str(tmp_path)])
    assert "INCOMPLETE: 2 of 3 submissions" in capsys.readouterr().out
    assert (tmp_path / "grades.csv").read_text() == "of last week"
    rows = (tmp_path / "grades.incomplete.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["submission", "a.ipynb", "b.ipynb"]
    seen.clear()
    assert grader.main([str(tmp_path)]) == 0  # tables do not count as submissions
    assert seen == ["a.ipynb", "b.ipynb", "c.ipynb"]
    assert [path.name for path in tmp_path.glob("*.csv")] == ["grades.csv"]
    assert len((tmp_path / "grades.csv").read_text().splitlines()) == 4


def test_nothing_is_left_running(graded):
    left = []
    for process in psutil.process_iter():
        try:
            if str(graded[2]) in process.environ().get("JUPYTER_RUNTIME_DIR", ""):
                left.append(process)
        except psutil.Error:
            pass
    assert left == []


def test_cells_that_a_learner_added_run_where_they_stand():
    notebook = small_solution()
    new = nbformat.v4.new_code_cell
    notebook.cells.insert(1, new("early = 1", id="mine-1"))
    notebook.cells.insert(-1, new("late = 1", id="mine-2"))
    steps = plan(notebook, {"01_small": small_solution()}).steps
    kinds = [(step.kind, step.text.split("\n")[0]) for step in steps]
    assert kinds[4:7] == [("baseline", ""), ("theirs", "early = 1"), ("theirs", "def double(x):")]
    assert kinds[-3:-1] == [("theirs", "total = 10  # SOLUTION"), ("theirs", "late = 1")]


def test_the_lesson_is_told_by_the_cells_and_not_by_the_file_name():
    solutions = {path.stem: nbformat.read(path, as_version=4) for path in SOLUTIONS.glob("*.ipynb")}
    for name in solutions:
        assert plan(exercise(SOLUTIONS / f"{name}.ipynb"), solutions).lesson == name
    with pytest.raises(NotGradableError, match="no answer"):
        plan(small_solution(), solutions)


@pytest.mark.parametrize("kept", ["in the metadata", "nowhere", "random"])
def test_a_notebook_stored_without_ids_is_graded_all_the_same(kept, tmp_path):
    solutions = {path.stem: nbformat.read(path, as_version=4) for path in SOLUTIONS.glob("*.ipynb")}
    for name in solutions:
        notebook = exercise(SOLUTIONS / f"{name}.ipynb")
        answer = next(i for i, cell in enumerate(notebook.cells) if cell.id.endswith("-answer"))
        notebook.cells[answer].source = "mine = 2"
        notebook.cells.insert(answer, nbformat.v4.new_code_cell("mine = 1"))
        expected = plan(notebook, solutions)
        notebook.nbformat_minor = 5 if kept == "random" else 4
        for number, cell in enumerate(notebook.cells):
            cell_id = cell.pop("id")
            if kept == "in the metadata":
                cell.metadata["id"] = cell_id
            elif kept == "random":
                cell["id"] = f"cell{number}"
        nbformat.write(notebook, tmp_path / "without.ipynb")
        assert plan(read(tmp_path / "without.ipynb"), solutions) == expected
        assert [step.text for step in expected.steps if step.kind == "theirs"][:2] == [
            "mine = 1",
            "mine = 2",
        ]


def test_too_large_a_file_is_not_read(tmp_path):
    path = tmp_path / "large.ipynb"
    with path.open("wb") as file:
        file.truncate(11_000_000)
    with pytest.raises(NotGradableError, match="larger than"):
        read(path)

"""Test that `make grade` copes with misbehaving submissions.

To save time, the exercises do not use TensorFlow. Each submission is graded twice: once in a
container, and once in a local process.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell

from tfcourse.exercises import SOLUTIONS, exercise
from tfcourse.grading import __main__ as command
from tfcourse.grading import containers, kernel, processes
from tfcourse.grading.grader import exercises_of, grade, plain, rows_of
from tfcourse.grading.submission import NotGradableError, Plan, plan

# Each submission starts a kernel, and several reach the time limit, so these tests take minutes.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
WAYS = [pytest.param("--docker", marks=pytest.mark.docker), "--no-docker"]
SECONDS = 15  # the time limit for each cell
CELLS = {
    "title": "# Exercises: small",
    "setup": "import traceback\nimport types\n\nimport numpy as np\n\nnumbers = np.arange(5)",
    "checks-common": "",  # small_solution() adds the real source
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
EXERCISES = ["double", "total"]
RIGHT, DONE = "", {"total": "total = 10"}
UNTOUCHED = "There is still a `...`"
DOUBLE = "def double(x):\n    return x + x"
SOLVED = {"double": DOUBLE, **DONE}
NUMPY = {"double": "def double(x):\n    return np.multiply(x, 2)", "total": "total = numbers.sum()"}
# Names that our checks, or the code that runs them, use.
EVERY_NAME = (
    "np = types = traceback = json = sys = builtins = numbers = check = get_ipython = 'coat'\n"
    "print = exec = globals = type = id = getattr = isinstance = len = sum = Exception = 5"
)
SAYS = """
class Number(int):
    def __new__(cls, text):
        self = super().__new__(cls, 1)
        self.text = text
        return self
    def __format__(self, _):
        return self.text
"""
# Submission -> (the cells that the learner edited, the verdict on `double`, the verdict on
# `total`). In the first item, the name of an exercise refers to its answer cell.
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
        "STOPPED: (started more than 64 processes|still running|the submission ended)",
        "STOPPED",
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
        {
            "double": "import io, sys\nsys.stdout = io.StringIO()\ndef double(x):\n"
            "    return 2 * x",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "takes over what is published": (
        {"double": "get_ipython().display_pub.pub_socket = None", **DONE},
        "STOPPED: its output does not reach the grader",
        "STOPPED: its output does not reach the grader",
    ),
    "overwrites the publisher": (
        {
            "double": "import ipykernel.zmqshell\npublisher = get_ipython().display_pub\n"
            "publisher.publish = lambda *a, **k: None\n"
            "ipykernel.zmqshell.ZMQDisplayPublisher.publish = publisher.publish",
            **DONE,
        },
        "'double' is not defined",
        RIGHT,
    ),
    "overwrites the check": (
        {"double": "def check_double(double):\n    print('Right.')"},
        "'double' is not defined",
        UNTOUCHED,
    ),
    "overwrites NumPy": (
        {"double": "np.array_equal = lambda *a: True\ndef double(x):\n    return x", **DONE},
        "^replaces numpy.array_equal; the check used the original; Twice 4 is not 4",
        RIGHT,
    ),
    "overwrites the stored originals": (
        {
            "double": "np.array_equal = lambda *a: True\ndef double(x):\n    return x\n"
            "store = get_ipython()._tfcourse_grading\n"
            "store['objects'] = [(*each[:3], np.array_equal) if each[2] == 'array_equal' else each "
            "for each in store['objects']]",
            **DONE,
        },
        "TAMPERED: the submission changed the grader's numpy.array_equal",
        "TAMPERED",
    ),
    "edits the check": (
        {"double-find": "def check_double(double):\n    print('Right.')", **DONE},
        f"its check was edited, .*; ours was used; {UNTOUCHED}",
        RIGHT,
    ),
    # --- What honest learners do
    "starts with a reset": ({"title-added": "%reset -f", **SOLVED}, RIGHT, RIGHT),
    "deletes names": ({"double": f"{DOUBLE}\ndel np, types, traceback", **DONE}, RIGHT, RIGHT),
    "assigns every name": ({"double": f"{DOUBLE}\n{EVERY_NAME}", **DONE}, RIGHT, RIGHT),
    "assigns the check's name": (
        {"double": f"{DOUBLE}\ncheck_double = 'done'", **DONE},
        RIGHT,
        RIGHT,
    ),
    "replaces a function": (
        {"double": f"{DOUBLE}\nold = np.array_equal\nnp.array_equal = lambda *a: old(*a)", **DONE},
        RIGHT,
        RIGHT,
    ),
    "replaces a built-in function": (
        {
            "double": f"import builtins\n{DOUBLE}\nbuiltins.sum = np.sum\nbuiltins.show = print",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "reloads its modules": (
        {
            "double": f"import importlib, sys\n{DOUBLE}\nimportlib.reload(types)\n"
            "del sys.modules['traceback']\nimport traceback",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "imports in our cell": (
        {
            "setup": "import operator\n" + CELLS["setup"],
            "double": "def double(x):\n    return operator.mul(2, x)",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "changes the data in our cell": (
        {"setup": CELLS["setup"] + "[::-1]", "double": "def double(x):\n    return x", **DONE},
        "^Twice 4 is not 4",  # with the learner's data: "is not 0"
        RIGHT,
    ),
    "uses the names of the grader": (
        {
            "double": f"{DOUBLE}\n_run, _names, values, theirs = 1, 2, 3, 4",
            "total": "total = _run + _names + values + theirs",
        },
        RIGHT,
        RIGHT,
    ),
    "hides what it replaced": (
        {
            "double": "original = np.array_equal\nnp.array_equal = lambda *a: True\n"
            "def double(x):\n    return x\n"
            "store = get_ipython()._tfcourse_grading\n"
            "store['objects'] = [each if each[2] != 'array_equal' else "
            "(each[0], {'a': original}, 'a', original) for each in store['objects']]",
            **DONE,
        },
        "TAMPERED: the submission changed the grader's numpy.array_equal",
        "TAMPERED",
    ),
    "breaks our cell": (
        {"setup": "from google.colab import files\n" + CELLS["setup"], **NUMPY},
        RIGHT,
        RIGHT,
    ),
    "breaks our cell, and uses its edits": (
        {
            "setup": "import operator\nfrom google.colab import files\nEPS = 0\n" + CELLS["setup"],
            "double": "def double(x):\n    return operator.mul(2, x) + EPS",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "breaks our cell, and is wrong": (
        {"setup": "1 / 0\n" + CELLS["setup"], "double": "def double(x):\n    return x", **DONE},
        "^one of our cells, which was edited, raised ZeroDivisionError: .*; Twice 4 is not 4",
        RIGHT,
    ),
    "tries again below the check": (
        {
            "double": "def double(x):\n    return x",
            "double-check-added": f"{DOUBLE}\ncheck_double(double)",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "experiments below the check": (
        {
            "double": DOUBLE,
            "double-check-added": "def double(x):\n    return x\ncheck_double(double)",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "raises first, and is right below": (
        {
            "double": "def double(x):\n    return x\n1 / 0",
            "double-check-added": f"{DOUBLE}\ncheck_double(double)",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "raises first, and is wrong below": (
        {
            "double": "1 / 0",
            "double-check-added": "def double(x):\n    return 3 * x\ncheck_double(double)",
            **DONE,
        },
        "^Twice 4 is not 12",
        RIGHT,
    ),
    "loops first, and is right below": (
        {
            "double": "while True:\n    pass",
            "double-check-added": f"{DOUBLE}\ncheck_double(double)",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "edits the check, and is right": (
        {"double-find": "def check_double(double):\n    print('Not yet.')", **SOLVED},
        RIGHT,
        RIGHT,
    ),
    "is wrong in each attempt": (
        {
            "double": "def double(x):\n    return x",
            "double-check-added": "def double(x):\n    return 3 * x\ncheck_double(double)",
            **DONE,
        },
        "^Twice 4 is not 12",
        RIGHT,
    ),
    "restarts its kernel": (
        {"double": "# pip install einops\nimport os\nos.kill(os.getpid(), 9)", **DONE},
        "^STOPPED: its kernel ended in the cell that begins with '# pip install einops'",
        "STOPPED",
    ),
    "deletes our cells": (
        {"setup": None, "double-find": None, "total-check": None, **NUMPY},
        RIGHT,
        RIGHT,
    ),
    "adds to the check": (
        {"double-check": "%%time\ncheck_double(double)  # at last", **SOLVED},
        RIGHT,
        RIGHT,
    ),
    "shows everything": (
        {
            "title-added": "from IPython.core.interactiveshell import InteractiveShell\n"
            "InteractiveShell.ast_node_interactivity = 'all'\n%xmode Minimal\n%pdb on",
            "double": f"1 / 0\n{DOUBLE}",
            **DONE,
        },
        "the answer raised ZeroDivisionError",
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
        {
            "double": "import os, psutil, signal\nfor each in psutil.Process().parents()[:2]:\n"
            "    for number in [signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL]:\n"
            "        os.kill(each.pid, number)\n"
            "def double(x):\n    return 2 * x",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "looks into its grader": (
        {
            "double": "import os\nworker = f'/proc/{os.getppid()}'\n"
            "for look, name in [(os.readlink, 'fd/0'), (os.readlink, 'fd/1'), (open, 'mem'),\n"
            "        (open, 'environ'), (os.listdir, 'root'), (os.listdir, 'cwd')]:\n"
            "    try:\n        look(f'{worker}/{name}')\n"
            "    except PermissionError:\n        continue\n    raise ValueError(name)\n"
            "def double(x):\n    return 2 * x",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "sleeps at its exit": (
        {
            "double": "import atexit, time\natexit.register(time.sleep, 9999)\n"
            "def double(x):\n    return 2 * x",
            **DONE,
        },
        RIGHT,
        RIGHT,
    ),
    "closes what it prints to": (
        {"double": "import os\nos.closerange(0, 3)\ndef double(x):\n    return 2 * x", **DONE},
        RIGHT,
        RIGHT,
    ),
    "fills the disk": (
        {
            "double": "import os, pathlib\nhome = pathlib.Path(os.environ['HOME'])\n"
            "for number in range(3):\n"
            "    (home / f'{number}').write_bytes(bytes(250 * 2**20))\n"
            "def double(x):\n    return 2 * x",
            **DONE,
        },
        "raised OSError: .*File too large",
        RIGHT,
    ),
    "says a formula": ({"total": SAYS + "total = Number('=1+1')"}, UNTOUCHED, "^'=1\\+1 is not"),
    "says a novel": ({"total": SAYS + "total = Number('x' * 2_000_000)"}, UNTOUCHED, "^x{1000}$"),
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
            "double": "import os\ntry:\n    os.write(1, b'\\xff' * 1000)\n"
            "    open(f'/proc/{os.getppid()}/fd/1', 'ab').write(b'\\xff' * 1000)\n"
            "except PermissionError:\n    pass\ndef double(x):\n    return 2 * x",
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
    "without an answer": ({"double": None, **DONE}, "the answer cell is missing", RIGHT),
}
# Cases that attack the worker process. If user namespaces are unavailable, these cases could attack
# the grader itself.
APART = {"kills its grader", "looks into its grader", "prints what is no text"}
FILES = {
    "Jürgen Müßig.ipynb": "empty: ask for it again",
    "notes.txt": "not a notebook",
    "empty.ipynb": "empty: ask for it again",
    "list.ipynb": "not a notebook: it has no list of cells",
    "deep.ipynb": "not a notebook: maximum recursion depth",
    r"M\xfcller.ipynb": "empty",  # not valid UTF-8
    "./=1+1.ipynb": "empty",
    r"new\nline\u202e\x1b.ipynb": "empty",
    r"new\\nline.ipynb": "empty",  # a literal backslash and n
    "a link.ipynb": "a link: ask for the notebook itself",
    "a link to nothing.ipynb": "a link",
    "a linked folder": "a link",
    "grades.csv": "a link",
    "grades.incomplete.csv": "a link",
    "a second name.ipynb": "a file with a second name",
    "pipe.ipynb": "a pipe, a socket or a device",
    "socket.ipynb": "a pipe, a socket or a device",
    "many.ipynb": "has more than 500 cells",
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
    """Return an exercise notebook with a learner's edits.

    An edit of None deletes the cell. An edit of NAME-added adds a cell after the cell NAME.
    """
    ids = {f"{name}-answer" if name in EXERCISES else name: text for name, text in edits.items()}
    cells = []
    for cell in notebook.cells:
        if (source := ids.get(cell.id, cell.source)) is not None:
            cells.append({**cell, "source": source})
        if added := ids.get(f"{cell.id}-added"):
            cells.append(nbformat.v4.new_code_cell(added))
    notebook.cells = [nbformat.from_dict(cell) for cell in cells]
    return notebook


@dataclass
class Graded:
    """The results of grading all cases in one run."""

    way: str
    folder: Path
    rows: list[dict[str, str]]
    printed: str

    def of(self, name: str) -> list[dict[str, str]]:
        return [row for row in self.rows if row["submission"] == name]


@pytest.fixture(scope="module", params=WAYS)
def graded(request, tmp_path_factory) -> Graded:
    """Grade all cases in one run, either in containers or in local processes."""
    way = request.param
    options = [way]
    if way == "--docker":
        options += ["--image", request.getfixturevalue("image")("cpu")]
    folder = tmp_path_factory.mktemp("grading")
    submissions, solution = folder / "submissions", folder / "solutions" / "01_small.ipynb"
    solution.parent.mkdir()
    nbformat.write(small_solution(), solution)
    (folder / "victim").write_text("of the instructor")
    for name, (edits, *_) in {**CASES, **against_others(submissions)}.items():
        if way == "--docker" or processes.apart() or name not in APART:
            path = submissions / name / "small.ipynb"
            path.parent.mkdir(parents=True)
            nbformat.write(handed_in(exercise(solution), edits), path)
    make_files(submissions, folder / "victim")
    data = folder / "keras" / "datasets" / "mnist.npz"
    data.parent.mkdir(parents=True)
    data.write_text("data")
    scratch = folder / "scratch"
    scratch.mkdir()
    options += ["--solutions", solution.parent, "--seconds", str(SECONDS), "--memory", "1"]
    finished = subprocess.run(
        [sys.executable, "-m", "tfcourse.grading", submissions, *options],
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
    assert not (submissions / "grades.incomplete.csv").exists()
    # Excel takes a file without this mark for the system's own encoding.
    assert (submissions / "grades.csv").read_bytes().startswith(codecs.BOM_UTF8)
    with (submissions / "grades.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return Graded(way, folder, rows, finished.stdout)


def against_others(submissions: Path) -> dict[str, tuple]:
    """Return a case that tries to erase other submissions and replace the table of results."""
    code = f"""
import pathlib, shutil
folder = pathlib.Path({str(submissions)!r})
for path in folder.rglob("small.ipynb"):
    path.write_text("")
for path in folder.glob("*.csv"):
    path.unlink()
    path.symlink_to(folder.parent / "victim")
"""
    return {"against the others": ({"double": code, **DONE}, "'double' is not defined", RIGHT)}


def make_files(folder: Path, victim: Path) -> None:
    """Create files and folders that are not valid submissions."""
    solved = folder / "solved" / "small.ipynb"
    for name, text in {
        "notes.txt": "hello",
        "empty.ipynb": "",
        "list.ipynb": "[1]",
        "deep.ipynb": "[" * 1_000_000,
        "new\nline\u202e\x1b.ipynb": "",
        "Jürgen Müßig.ipynb": "",
        r"new\nline.ipynb": "",
        "many.ipynb": json.dumps({"cells": [{"source": ""}] * 501}),
        "second.txt": "",
    }.items():
        (folder / name).write_text(text)
    for name in [b"M\xfcller.ipynb", b"=1+1.ipynb"]:
        (folder / os.fsdecode(name)).touch()
    (folder / "a link.ipynb").symlink_to(solved)
    (folder / "a link to nothing.ipynb").symlink_to("nothing")
    (folder / "a linked folder").symlink_to(solved.parent)
    (folder / "grades.csv").symlink_to(victim)
    (folder / "grades.incomplete.csv").symlink_to(victim)
    (folder / "a second name.ipynb").hardlink_to(folder / "second.txt")
    os.mkfifo(folder / "pipe.ipynb")
    with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(folder):  # paths must be short
        unix.bind("socket.ipynb")


@pytest.mark.parametrize("name", CASES)
def test_a_submission_is_graded_or_stopped(name, graded):
    if graded.way == "--no-docker" and name in APART and not processes.apart():
        pytest.skip("this system has no user namespaces")
    found = {row["exercise"]: row for row in graded.of(f"{name}/small.ipynb")}
    assert list(found) == ["double", "total"]
    for row, says in zip(found.values(), CASES[name][1:], strict=True):
        assert (row["says"] == "") is (row["right"] == "1"), row
        assert re.search(says, row["says"]) if says else row["says"] == "", row


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_notebook_is_named_in_the_table(name, graded):
    (row,) = graded.of(name)
    assert FILES[name] in row["says"]
    assert row["right"] == "0"


def test_a_submission_cannot_empty_another_or_change_the_table(graded):
    """The results are correct even without Docker, where a submission can write to these files."""
    assert [row["right"] for row in graded.of("against the others/small.ipynb")] == ["0", "1"]
    assert [row["right"] for row in graded.of("solved/small.ipynb")] == ["1", "1"]
    assert (graded.folder / "victim").read_text() == "of the instructor"
    assert not (graded.folder / "submissions" / "grades.csv").is_symlink()


def test_what_is_printed_is_a_line_for_each_submission(graded):
    lines = graded.printed.splitlines()
    assert ("in a container of" in lines[0]) is (graded.way == "--docker")
    assert ("NO CONTAINERS: --no-docker." in lines[0]) is (graded.way == "--no-docker")
    assert any(line.split() == ["solved/small.ipynb", "2/2"] for line in lines)
    assert f"{len({row['submission'] for row in graded.rows})} submissions" in lines[-1]


def test_what_is_printed_does_not_command_the_terminal(graded):
    assert [c for c in graded.printed if not c.isprintable() and c != "\n"] == []


@pytest.fixture
def no_kernel(monkeypatch):
    """Replace grading with a stub; each call raises the next error in the returned list."""
    happens = []

    def graded(plan, *others):
        if error := happens.pop(0):
            raise error
        return rows_of(plan, '{"exercise": "double", "mistake": null}', "")

    monkeypatch.setattr(command, "read", lambda *_: Plan("01_small", [], ["double"], {}, "", []))
    monkeypatch.setattr(command, "grade", graded)
    return happens


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (containers.EngineError("the engine is gone"), "Docker failed: the engine is gone"),
    ],
)
def test_an_interrupted_run_keeps_its_rows_and_the_table_of_before(
    error, code, tmp_path, no_kernel, capsys
):
    (tmp_path / "grades.csv").write_text("of last week")
    for name in ["a.ipynb", "b.ipynb", "c.ipynb"]:
        (tmp_path / name).touch()
    arguments = [str(tmp_path), "--no-docker"]
    no_kernel += [None, None, error]
    with pytest.raises(SystemExit) as ended:
        sys.exit(command.main(arguments))
    assert ended.value.code == code
    assert "INCOMPLETE: 2 of 3 submissions" in capsys.readouterr().out
    assert (tmp_path / "grades.csv").read_text() == "of last week"
    rows = (tmp_path / "grades.incomplete.csv").read_text("utf-8-sig").splitlines()
    assert [row.partition(",")[0] for row in rows] == ["submission", "a.ipynb", "b.ipynb"]
    no_kernel += [None, None, None]
    assert command.main(arguments) == 0  # tables are not submissions
    assert no_kernel == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.ipynb", "b.ipynb", "c.ipynb", "grades.csv"
    ]  # fmt: skip
    assert len((tmp_path / "grades.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize("error", [OSError("x"), MemoryError(), RecursionError(), KeyError("x")])
def test_an_exception_is_the_row_of_the_submission_that_raised_it(error, tmp_path, no_kernel):
    for name in ["a.ipynb", "b.ipynb"]:
        (tmp_path / name).touch()
    no_kernel += [error, None]
    assert command.main([str(tmp_path), "--no-docker"]) == 0
    rows = list(csv.DictReader((tmp_path / "grades.csv").open(encoding="utf-8-sig")))
    assert f"could not be graded: {type(error).__name__}" in rows[0]["says"]
    assert [row["right"] for row in rows] == ["0", "1"]


def test_a_table_that_cannot_be_written_is_found_before_anything_runs(tmp_path, no_kernel):
    (tmp_path / "grades.incomplete.csv").mkdir()
    with pytest.raises(SystemExit, match=r"The table cannot be written: .*incomplete\.csv"):
        command.main([str(tmp_path), "--no-docker", "--table", str(tmp_path / "grades.csv")])
    (tmp_path / "grades.csv").mkdir()
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path), "--no-docker", "--table", str(tmp_path / "grades.csv")])


def test_a_submission_that_fills_the_disk_does_not_end_the_run(
    tmp_path, no_kernel, monkeypatch, capsys
):
    (tmp_path / "submissions").mkdir()
    for name in ["a.ipynb", "b.ipynb", "c.ipynb"]:
        (tmp_path / "submissions" / name).touch()
    no_kernel += [None, None, None]
    full = iter([False, False, True, True, False])
    write = command.write

    def written(*inputs):
        if next(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*inputs)

    monkeypatch.setattr(command, "write", written)
    assert command.main([str(tmp_path / "submissions"), "--no-docker"]) == 0
    rows = (tmp_path / "submissions" / "grades.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["a.ipynb", "b.ipynb", "c.ipynb"]
    no_kernel += [None, None, None]
    full = iter([False, True, True, True, True])
    with pytest.raises(SystemExit, match=r"The table cannot be written: .*No space left"):
        command.main([str(tmp_path / "submissions"), "--no-docker"])
    assert "c.ipynb" in capsys.readouterr().out


def test_a_submitted_folder_may_have_the_name_of_the_table(tmp_path, no_kernel, capsys):
    for name in ["grades.csv", "grades-2.incomplete.csv"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.ipynb").touch()
    no_kernel += [None, None]
    assert command.main([str(tmp_path), "--no-docker"]) == 0
    table = tmp_path / "grades-3.csv"
    assert f"2 submissions; the table is in {table}" in capsys.readouterr().out
    assert table.read_text().count("a.ipynb") == 2
    with pytest.raises(SystemExit):
        command.main([str(tmp_path), "--no-docker", "--table", str(tmp_path / "grades.csv")])


FAKE = "#!/bin/sh\n[ $1 != {failing} ] || {{ echo 'It is broken.' >&2; exit {code}; }}"


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ("nothing", None),
        ("version", "no Docker engine answers (It is broken.)"),
        ("image", "there is no image tensorflow-course:cpu (`make images KINDS=cpu` builds it)"),
        (None, "Docker cannot be used"),
    ],
)
def test_docker_is_used_if_it_is_there(failing, reason, tmp_path, no_kernel, monkeypatch, capsys):
    program = tmp_path / "docker"
    monkeypatch.setenv("DOCKER", str(program))
    if failing:
        program.write_text(FAKE.format(failing=failing, code=1))
        program.chmod(0o755)
    (tmp_path / "submissions").mkdir()
    arguments = [str(tmp_path / "submissions")]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert ("NO CONTAINERS" in said) is bool(reason)
    assert (reason or "in a container of tensorflow-course:cpu") in said
    if reason:
        with pytest.raises(SystemExit, match=re.escape(f"--docker: {reason}")):
            command.main([*arguments, "--docker"])


def test_an_engine_that_fails_ends_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DOCKER", str(tmp_path / "docker"))
    (tmp_path / "docker").write_text(FAKE.format(failing="run", code=125))
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "submissions").mkdir()
    nbformat.write(exercise(next(SOLUTIONS.glob("*.ipynb"))), tmp_path / "submissions" / "a.ipynb")
    with pytest.raises(SystemExit, match=r"Docker failed: It is broken\."):
        command.main([str(tmp_path / "submissions")])
    assert "INCOMPLETE: 0 of 1" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_stays_of_a_grader_that_was_stopped(number, way, tmp_path, request):
    options = [way, "--seconds", "600", "--solutions", tmp_path / "solutions"]
    if way == "--docker":
        options += ["--image", request.getfixturevalue("image")("cpu")]
    for name in ["solutions", "submissions", "scratch"]:
        (tmp_path / name).mkdir()
    solution = tmp_path / "solutions" / "01_small.ipynb"
    nbformat.write(small_solution(), solution)
    mark = secrets.token_hex(8)  # to identify the process
    program = ["python3", "-c", "import time; time.sleep(600)", mark]
    slow = {"double": f"import os\nos.execvp('python3', {program})"}
    nbformat.write(handed_in(exercise(solution), slow), tmp_path / "submissions" / "slow.ipynb")
    grader = subprocess.Popen(
        [sys.executable, "-m", "tfcourse.grading", tmp_path / "submissions", *options],
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        eventually(lambda: marked(mark))
    finally:
        grader.send_signal(number)
    assert grader.wait(60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    eventually(lambda: not marked(mark))


def marked(mark: str) -> list[psutil.Process]:
    """Return all processes, even in containers, whose last command-line argument is `mark`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-1:] == [mark]:
                found.append(process)
    return found


def eventually(holds) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_nothing_is_left_running(graded):
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(graded.folder) in process.environ().get("JUPYTER_RUNTIME_DIR", ""):
                left.append(process)
    assert left == []


INSTALL = """
import importlib, zipfile
with zipfile.ZipFile("surprise-1-py3-none-any.whl", "w") as wheel:
    about = "surprise-1.dist-info"
    wheel.writestr("surprise.py", "def double(x):\\n    return x + x")
    wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\\nName: surprise\\nVersion: 1")
    wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any")
    wheel.writestr(f"{about}/RECORD", "")
INSTALLER install --no-index ./surprise-1-py3-none-any.whl
INSTALLER uninstall --yes idna
importlib.invalidate_caches()
"""


@pytest.mark.parametrize("installer", ["%pip", "!pip", "!pip3", "!python3 -m pip", "!uv pip"])
def test_a_package_that_a_submission_installs_is_not_there_for_the_next(
    installer, tmp_path, monkeypatch
):
    own = os.path.dirname(sys.executable)  # as after `source .venv/bin/activate`
    monkeypatch.setenv("PATH", f"{own}:{os.environ['PATH']}")
    solution = tmp_path / "01_small.ipynb"
    nbformat.write(small_solution(), solution)
    code = INSTALL.replace("INSTALLER", installer)
    if installer == "!uv pip":
        code = code.replace("uninstall --yes", "uninstall")
    uses = {"double": "from surprise import double"}
    says = []
    for edits in [{"title-added": code, **uses, **DONE}, {**uses, **DONE}]:
        notebook = handed_in(exercise(solution), edits)
        rows = grade(plan(notebook, {"01_small": exercise(solution)}), processes.run)
        says += [row["says"] for row in rows]
    missing = "the answer raised ModuleNotFoundError: No module named 'surprise'"
    assert says == [RIGHT, RIGHT, missing, RIGHT]
    found = subprocess.run([sys.executable, "-c", "import idna, surprise"], capture_output=True)
    assert b"'surprise'" in found.stderr


def test_the_import_of_tensorflow_does_not_count_as_the_learners_time():
    exercises = exercises_of(SOLUTIONS)
    rows = grade(plan(exercises["05_loss"], exercises), processes.run, seconds=2)
    assert [row["says"] for row in rows if "STOPPED" in row["says"]] == []


def test_cells_that_a_learner_added_run_where_they_stand():
    notebook = small_solution()
    new = nbformat.v4.new_code_cell
    notebook.cells.insert(1, new("early = 1", id="mine-1"))
    notebook.cells.insert(-1, new("late = 1", id="mine-2"))
    steps = plan(notebook, {"01_small": small_solution()}).steps  # keeps the answers
    kinds = [(step.kind, step.text.split("\n")[0]) for step in steps]
    assert [kind for kind, _ in kinds[:3]] == ["theirs", "ours", "ours"]
    assert kinds[0] == ("theirs", "early = 1")
    assert kinds[-3:-1] == [("theirs", "total = 10  # SOLUTION"), ("theirs", "late = 1")]


def test_a_method_is_the_same_each_time_it_is_looked_up(monkeypatch):
    """Each access to `np.add.at` creates a new object, which must not be reported as tampering."""
    shell = InteractiveShell()
    monkeypatch.setattr(kernel, "get_ipython", lambda: shell)
    published = []
    monkeypatch.setattr(kernel, "publish", lambda _, **what: published.append(what))
    kernel.remember("", ["numpy.add.at", "numpy.array_equal"])
    kernel.prepare("", "def check(): pass\ncheck.mistake = None")
    kept = [np.add.at for _ in range(100)]
    kernel.judge("", "check()", ["numpy.add.at", "numpy.array_equal"], {})
    assert kept
    assert published[-1] == {"mistake": None, "replaced": [], **published[0]}
    assert set(published[0]["identities"]) == {"numpy", "numpy.add.at", "numpy.array_equal"}


@pytest.mark.parametrize(
    "says",
    [
        *("=1+1", "+1", "-1", "@SUM(1)", "\x1b[2K", "\ud800", "\u202e", "a\nb"),
        *(" =1", "\n=1", "\t=1", "\xa0=1", "\u3000=1"),
        *("\N{FULLWIDTH EQUALS SIGN}1", "\N{FULLWIDTH PLUS SIGN}1", "\N{FULLWIDTH COMMERCIAL AT}"),
        *("\N{FULLWIDTH HYPHEN-MINUS}1", "\N{SMALL EQUALS SIGN}1", "\N{SUPERSCRIPT PLUS SIGN}1"),
    ],
)
def test_what_is_said_is_not_obeyed(says):
    text = plain(says)
    assert text[0] in "'\\a"
    assert text.isprintable()


@pytest.mark.parametrize("call", ["check_a(", "xef check_a(", "def check_a("])
def test_megabytes_of_calls_are_refused(call):
    """Searching the whole cell for each call would take hours."""
    cell = nbformat.v4.new_code_cell(call * (9 * 10**6 // len(call)))
    cell.id = "guess-answer"
    with pytest.raises(NotGradableError, match="characters of code"):
        plan(nbformat.v4.new_notebook(cells=[cell]), exercises_of(SOLUTIONS))

"""Plan what to run for a submission: our cells, combined with the learner's answers.

This module does not run any submitted code, because submissions are untrusted.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from nbformat import NotebookNode

# The source of the functions that run in a submission's kernel.
KERNEL = Path(__file__).with_name("kernel.py").read_text(encoding="utf-8")

LARGEST = 10_000_000  # bytes, a thousand times the size of an exercise notebook with outputs
MOST_CELLS = 500  # an exercise notebook has about twenty cells
MOST_CODE = 1_000_000  # characters in the learner's cells
# How the files begin that learners hand in by mistake -> what to say about them.
OTHERS = {
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"%PDF": "a PDF file: ask for the notebook itself, which ends in .ipynb",
    b"<": "a web page: ask for the notebook itself, which ends in .ipynb",
}


class NotGradableError(Exception):
    """Raised if a file cannot be graded as a submission."""


@dataclass
class Step:
    """A step of the plan: a cell for the worker to run.

    `kind` is "baseline" (a marker before the first cell), "ours" (a cell of the exercise notebook),
    "theirs" (an answer, or a cell that the learner added) or "check". `text` is the source of the
    cell. `exercise` is empty for cells that the learner added. If the learner edited one of our
    cells, `text` is the edited source, and `instead_of` is ours.
    """

    kind: str
    text: str
    exercise: str = ""
    instead_of: str = ""


@dataclass
class Plan:
    """A submission's plan: the steps to run and the exercises to grade."""

    lesson: str
    steps: list[Step]
    exercises: list[str]
    remarks: dict[str, str]  # exercise -> a remark for the table, if the answer is wrong
    ours: str  # the source of our cells, which the checks need
    watched: list[str]  # the library functions that the checks need

    def as_job(self) -> dict:
        """Return the parts of the plan that the worker needs, as JSON-compatible data."""
        steps = [asdict(step) for step in self.steps]
        return {"steps": steps, "ours": self.ours, "watched": self.watched, "kernel": KERNEL}


def read(path: Path) -> NotebookNode:
    """Read a notebook from a regular file.

    Links are rejected because they could point to a classmate's notebook or to the solution. Pipes
    are rejected because reading them could block forever.

    Raises
    ------
    NotGradableError
        If the path is a link or not a regular file, or if the file is too large or not a notebook.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise NotGradableError("a link: ask for the notebook itself")
    if stat.S_ISDIR(status.st_mode):
        raise NotGradableError("a folder that cannot be read")
    if not stat.S_ISREG(status.st_mode):
        raise NotGradableError("a pipe, a socket or a device: ask for the notebook itself")
    if status.st_nlink > 1:
        raise NotGradableError(
            "a file with a second name (a hard link): find out whose it is, and put a copy here"
        )
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise NotGradableError(f"larger than {LARGEST // 1_000_000} MB")
    return parse(content)


def parse(content: bytes) -> NotebookNode:
    """Parse a notebook; return its cells with only the fields that `plan` needs.

    We do not use nbformat's reader, because its validation can take minutes for a malicious
    notebook, which can also contain metadata of unexpected types.

    Raises
    ------
    NotGradableError
        If the content is not a notebook or has too many cells.
    """
    try:
        notebook = json.loads(decoded(content))
    except (ValueError, RecursionError) as error:
        start = content.lstrip(b"\xef\xbb\xbf \t\r\n")
        what = next((what for each, what in OTHERS.items() if start.startswith(each)), None)
        raise NotGradableError(what or f"not a notebook: {str(error)[:100]}") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise NotGradableError("not a notebook: it has no list of cells")
    if len(cells) > MOST_CELLS:
        raise NotGradableError(f"has more than {MOST_CELLS} cells")
    return NotebookNode(cells=[parsed(cell, number) for number, cell in enumerate(cells, 1)])


def decoded(content: bytes) -> str:
    """Decode a notebook: UTF-8, UTF-16 or UTF-32, or else what Windows' editors call ANSI."""
    try:
        return content.decode(json.detect_encoding(content), "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def parsed(cell: object, number: int) -> NotebookNode:
    """Return a cell's type, its source, its id, and any id in its metadata."""
    cell = cell if isinstance(cell, dict) else {}
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise NotGradableError(f"not a notebook: cell {number} has no text")
    # Replace lone surrogates, as browsers do, because messages to a kernel cannot contain them.
    source = source.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    metadata = cell.get("metadata")
    return NotebookNode(
        cell_type=cell.get("cell_type"),
        source=source,
        id=cell.get("id"),
        metadata={"id": metadata.get("id") if isinstance(metadata, dict) else None},
    )


def plan(submission: NotebookNode, exercises: dict[str, NotebookNode]) -> Plan:
    """Return the plan for a submission.

    All cells run in the order of our exercise, and each added cell runs after the same cell of ours
    as in the submission. The learner's edits of our cells run, too, because answers can depend on
    them. The checks are always ours, and use only our cells.

    Parameters
    ----------
    submission
        The learner's notebook, as `read` or `parse` returns it.
    exercises
        The learners' version of each exercise notebook, by lesson name. It includes the checks but
        not the solutions, because a submission could read them.

    Raises
    ------
    NotGradableError
        If the notebook is not based on any of the exercises, or contains too much code.
    """
    cells = with_ids(submission.cells, exercises)
    found = {cell.id for cell in cells}
    lesson = max(exercises, key=lambda name: len(found & answers(exercises[name])))
    exercise = exercises[lesson]
    if not found & answers(exercise):
        raise NotGradableError(
            "has no answer to any of our exercises (judging by the cells' ids or the checks)"
        )
    known = {cell.id for cell in exercise.cells}
    # If two cells have the same id, the last one counts, and the others are additions.
    last = {cell.id: number for number, cell in enumerate(cells)}
    theirs = {
        id_: cells[number].source
        for id_, number in last.items()
        if cells[number].cell_type not in ("markdown", "raw")
    }
    added: dict[str, list[Step]] = {}
    before = "title"
    for number, cell in enumerate(cells):
        if cell.id in known and last[cell.id] == number:
            before = cell.id
        elif cell.cell_type == "code":
            added.setdefault(before, []).append(Step("theirs", cell.source))

    steps, ours, remarks, names = [Step("baseline", "")], [], {}, []
    for cell in exercise.cells:
        name, _, role = cell.id.rpartition("-")
        text = theirs.get(cell.id, cell.source)
        edited = text.strip() != cell.source.strip()
        if cell.cell_type != "code":
            pass
        elif role == "answer":
            names.append(name)
            steps.append(Step("theirs", theirs.get(cell.id, ""), name))
            if cell.id not in theirs:
                remarks[name] = "the answer's cell is missing, or is not a code cell"
        elif role == "check":
            steps += [Step("theirs", text)] if edited else []
            steps.append(Step("check", cell.source, name))
        else:
            ours.append(cell.source)
            steps.append(Step("ours", text, name, cell.source if edited else ""))
        if role in ("find", "check") and edited:
            remarks[name] = "its check differs from ours (edited, or another version); ours counts"
        steps += added.get(cell.id, [])
    if (
        sum(len(step.text) for step in steps if step.kind == "theirs" or step.instead_of)
        > MOST_CODE
    ):
        raise NotGradableError(f"has more than {MOST_CODE:,} characters of code")
    text = "\n\n".join(ours)
    return Plan(lesson, steps, names, remarks, text, watched(f"{text}\n\n{KERNEL}"))


def with_ids(cells: list[NotebookNode], exercises: dict[str, NotebookNode]) -> list[NotebookNode]:
    """Return a learner's cells; restore the ids of our cells if the file lacks them.

    When Colab saves a notebook in a format before 4.5, it stores the ids in the metadata; other
    tools omit the ids, or make their own. In such a notebook, an answer is the last code cell
    before its check, and any other cell of ours is identified by its source. All remaining cells
    get the id None.
    """
    known = {cell.id for exercise in exercises.values() for cell in exercise.cells}
    cells = [
        NotebookNode(
            cell_type=cell.cell_type,
            source=cell.source,
            # In a malicious file, an id can have any type, even an unhashable one.
            id=next(
                (
                    each
                    for each in (cell.get("id"), cell.metadata.get("id"))
                    if isinstance(each, str) and each in known
                ),
                None,
            ),
        )
        for cell in cells
    ]
    if any(cell.id and cell.id.endswith("-answer") for cell in cells):
        return cells
    called = [called_check(cell) for cell in cells]
    exercise = max(exercises.values(), key=lambda each: len(answers(each).intersection(called)))
    ours = {cell.source.strip(): cell.id for cell in exercise.cells}
    answer = None  # the learner's latest code cell, unless one of our cells follows it
    for cell, answered in zip(cells, called, strict=True):
        cell.id = ours.get(cell.source.strip())
        if answered in answers(exercise):
            cell.id = f"{answered.removesuffix('answer')}check"
            if answer:
                answer.id = answered
        if cell.id or cell.cell_type == "code":
            answer = None if cell.id else cell
    return cells


def called_check(cell: NotebookNode) -> str | None:
    """Return the id of the answer that a cell checks, or None if the cell calls no check."""
    found = cell.cell_type == "code" and re.search(r"^[^#\n]*\bcheck_(\w+)\(", cell.source, re.M)
    return f"{found[1]}-answer" if found and f"def check_{found[1]}(" not in cell.source else None


def answers(exercise: NotebookNode) -> set[str]:
    """Return the ids of an exercise notebook's answer cells."""
    return {cell.id for cell in exercise.cells if cell.id.endswith("-answer")}


def watched(source: str) -> list[str]:
    """Return the library functions and built-in functions that a source uses, as dotted names."""
    names = {"ipykernel.zmqshell.ZMQDisplayPublisher.publish"}  # receives the verdicts
    modules = {}  # the name in the source -> the module
    tree = list(ast.walk(ast.parse(source)))
    for node in tree:
        if isinstance(node, ast.Import):
            modules |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names |= {f"{node.module}.{each.name}" for each in node.names}
    for node in tree:
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in modules and parts:
            names.add(".".join([modules[node.id], *reversed(parts)]))
        elif isinstance(node, ast.Name) and hasattr(builtins, node.id):
            names.add(f"builtins.{node.id}")
    return sorted(names)

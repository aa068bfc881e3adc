"""Decide what to run from a submission: the learner's answers, placed among our cells.

Submissions are untrusted, so this module runs none of their code.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from nbformat import NotebookNode

LARGEST = 10_000_000  # bytes; an exercise with outputs has about ten thousand
MOST_CELLS = 500  # an exercise has about twenty
MOST_CODE = 1_000_000  # characters in the learner's cells


class NotGradableError(Exception):
    """A file is not a submission; the message says why."""


@dataclass
class Step:
    """One step for the worker.

    `kind` is "ours" (a cell of the exercise, run as it is), "baseline" (the learner's code begins
    here), "theirs" (one of the learner's cells) or "check". `text` is the cell's source. `exercise`
    is empty for a cell that the learner added.
    """

    kind: str
    text: str
    exercise: str = ""


@dataclass
class Plan:
    """A submission that can be graded."""

    lesson: str
    steps: list[Step]
    exercises: list[str]
    remarks: dict[str, str]  # by exercise: what we noticed before we ran anything
    watched: list[str]  # names that the checks rely on

    def as_job(self) -> dict:
        """Return the part of the plan that the worker needs, as plain data."""
        ours = "\n\n".join(step.text for step in self.steps if step.kind == "ours")
        steps = [asdict(step) for step in self.steps]
        return {"steps": steps, "ours": ours, "watched": self.watched}


def read(path: Path) -> NotebookNode:
    """Return the notebook in a regular file.

    A link could lead to a classmate's notebook or to the solution, and a pipe would block forever.

    Raises
    ------
    NotGradableError
        If the path is a link or not a regular file, or the file is too large or not a notebook.
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
    """Return the cells of a notebook, reduced to the parts that a plan needs.

    nbformat's own reader expects well-formed notebooks. A hostile notebook can keep its validation
    busy for minutes, and can have metadata of any type.

    Raises
    ------
    NotGradableError
        If the content is not a notebook, or has too many cells.
    """
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotGradableError(f"not a notebook: {str(error)[:100]}") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise NotGradableError("not a notebook: it has no list of cells")
    if len(cells) > MOST_CELLS:
        raise NotGradableError(f"has more than {MOST_CELLS} cells")
    return NotebookNode(cells=[parsed(cell, number) for number, cell in enumerate(cells, 1)])


def parsed(cell: object, number: int) -> NotebookNode:
    """Return a cell's type, source and id (which may be in its metadata, or None)."""
    cell = cell if isinstance(cell, dict) else {}
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise NotGradableError(f"not a notebook: cell {number} has no text")
    # No message to a kernel can contain half a surrogate pair; browsers replace it, too.
    source = source.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    metadata = cell.get("metadata")
    return NotebookNode(
        cell_type=cell.get("cell_type"),
        source=source,
        id=cell.get("id"),
        metadata={"id": metadata.get("id") if isinstance(metadata, dict) else None},
    )


def plan(submission: NotebookNode, exercises: dict[str, NotebookNode]) -> Plan:
    """Return what to run from a submission: our cells, with the learner's own in between.

    Cells are identified by their ids (see `with_ids`). The answers and any added cells are the
    learner's. All other cells, above all the checks, are ours. An added cell runs after the same
    one of our cells as in the learner's notebook.

    Parameters
    ----------
    submission
        The learner's notebook, as `read` or `parse` returns it.
    exercises
        The exercises by the lesson's name, as learners get them: with the checks, but without the
        solutions, which a submission could read.

    Raises
    ------
    NotGradableError
        If the notebook was not made from any of the exercises, or contains too much code.
    """
    cells = with_ids(submission.cells, exercises)
    theirs = {cell.id: cell.source for cell in cells}
    lesson = max(exercises, key=lambda name: len(theirs.keys() & answers(exercises[name])))
    exercise = exercises[lesson]
    ours = answers(exercise)
    if not theirs.keys() & ours:
        raise NotGradableError(
            "has no answer to any of our exercises (judging by the cells' ids or the checks)"
        )
    own = additions(cells, {cell.id for cell in exercise.cells})
    steps, early, remarks, names = [], [], {}, []
    begun = False  # everything before the first exercise's text is ours
    for cell in exercise.cells:
        name, _, role = cell.id.rpartition("-")
        if not begun and role == "text" and f"{name}-answer" in ours:
            # Cells that were added before the first exercise run after the baseline, too.
            steps += [Step("baseline", ""), *early]
            begun = True
        if cell.cell_type == "code":
            if role == "answer":
                names.append(name)
                steps.append(Step("theirs", theirs.get(cell.id, ""), name))
                if cell.id not in theirs:
                    remarks[name] = "the answer's cell is missing"
            else:
                steps.append(Step("check" if role == "check" else "ours", cell.source, name))
                if role in ("find", "check") and theirs.get(cell.id, cell.source) != cell.source:
                    remarks[name] = "edited the check; ours was used"
        added = [Step("theirs", source) for source in own.get(cell.id, [])]
        (steps if begun else early).extend(added)
    if sum(len(step.text) for step in steps if step.kind == "theirs") > MOST_CODE:
        raise NotGradableError(f"has more than {MOST_CODE:,} characters of code")
    return Plan(lesson, steps, names, remarks, watched(exercise))


def with_ids(cells: list[NotebookNode], exercises: dict[str, NotebookNode]) -> list[NotebookNode]:
    """Return a learner's cells with our cells' ids, even if the file has no ids.

    Colab writes the ids into the metadata if the format is older than 4.5; other tools leave them
    out. Without ids, our cells are identified by their text, and an answer by the check below it.
    The id of a cell that is not ours is None.
    """
    known = {cell.id for exercise in exercises.values() for cell in exercise.cells}
    cells = [
        NotebookNode(
            cell_type=cell.cell_type,
            source=cell.source,
            # An id can be any value, even one that is not hashable.
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
    sources = {cell.source.strip() for cell in cells}
    ours = max(
        [{cell.source.strip(): cell.id for cell in each.cells} for each in exercises.values()],
        key=lambda ours: len(ours.keys() & sources),
    )
    answer = None  # the last code cell that is not ours, if no cell of ours follows it
    for cell in cells:
        cell.id = ours.get(cell.source.strip())
        if answer and cell.id and cell.id.endswith("-check"):
            answer.id = f"{cell.id.removesuffix('check')}answer"
        if cell.id or cell.cell_type == "code":
            answer = None if cell.id else cell
    return cells


def answers(exercise: NotebookNode) -> set[str]:
    """Return the ids of the cells that a learner fills in."""
    return {cell.id for cell in exercise.cells if cell.id.endswith("-answer")}


def additions(cells: list[NotebookNode], known: set[str]) -> dict[str, list[str]]:
    """Return the code that the learner added, by the id of our preceding cell."""
    found: dict[str, list[str]] = {}
    last = "title"
    for cell in cells:
        if cell.id in known:
            last = cell.id
        elif cell.cell_type == "code":
            found.setdefault(last, []).append(cell.source)
    return found


def watched(exercise: NotebookNode) -> list[str]:
    """Return the names that our checks call, such as `np.allclose` and `check_softmax`."""
    text = "\n".join(
        cell.source for cell in exercise.cells if cell.id.endswith(("-find", "-common"))
    )
    dotted = re.findall(r"\b(?:np|tf|types|traceback)(?:\.[A-Za-z_]\w*)+", text)
    # Our cells run again for each check, so a learner's own helper called `check` changes nothing.
    return sorted({*dotted, *re.findall(r"^def (check_\w+)", text, re.MULTILINE)})

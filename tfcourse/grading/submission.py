"""Plan what to run for a submission: our cells, combined with the learner's answers.

This module does not run any submitted code, because submissions are untrusted.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from nbformat import NotebookNode

LARGEST = 10_000_000  # bytes, a thousand times the size of an exercise notebook with outputs
MOST_CELLS = 500  # an exercise notebook has about twenty cells
MOST_CODE = 1_000_000  # characters in the learner's cells


class NotGradableError(Exception):
    """Raised if a file cannot be graded as a submission."""


@dataclass
class Step:
    """A step of the plan: a cell for the worker to run.

    `kind` is "ours" (an unchanged cell of the exercise notebook), "baseline" (a marker before the
    learner's first cell), "theirs" (one of the learner's cells) or "check". `text` is the source of
    the cell. `exercise` is empty for cells that the learner added.
    """

    kind: str
    text: str
    exercise: str = ""


@dataclass
class Plan:
    """A submission's plan: the steps to run and the exercises to grade."""

    lesson: str
    steps: list[Step]
    exercises: list[str]
    remarks: dict[str, str]  # exercise -> a remark for the table
    watched: list[str]  # names that must not be replaced

    def as_job(self) -> dict:
        """Return the parts of the plan that the worker needs, as JSON-compatible data."""
        ours = "\n\n".join(step.text for step in self.steps if step.kind == "ours")
        steps = [asdict(step) for step in self.steps]
        return {"steps": steps, "ours": ours, "watched": self.watched}


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
    """Return the plan for a submission, which combines our cells with the learner's.

    Cells are identified by their ids (see `with_ids`). Answers and added cells are taken from the
    submission; all other cells, in particular the checks, are taken from our exercise. An added
    cell keeps its position relative to our cells.

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
    begun = False  # whether the loop has reached the first exercise
    for cell in exercise.cells:
        name, _, role = cell.id.rpartition("-")
        if not begun and role == "text" and f"{name}-answer" in ours:
            # If the learner added cells before the first exercise, run them after the baseline,
            # like all of the learner's code.
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
    """Return a learner's cells; restore the ids of our cells if the file lacks them.

    When Colab saves a notebook in a format before 4.5, it stores the ids in the metadata; other
    tools omit them. If the cells have no ids, the course's own cells are identified by their
    source, and a learner's answers by the checks that follow them. Any other cell gets the id None.
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
    sources = {cell.source.strip() for cell in cells}
    ours = max(
        [{cell.source.strip(): cell.id for cell in each.cells} for each in exercises.values()],
        key=lambda ours: len(ours.keys() & sources),
    )
    answer = None  # the learner's latest code cell, unless one of our cells follows it
    for cell in cells:
        cell.id = ours.get(cell.source.strip())
        if answer and cell.id and cell.id.endswith("-check"):
            answer.id = f"{cell.id.removesuffix('check')}answer"
        if cell.id or cell.cell_type == "code":
            answer = None if cell.id else cell
    return cells


def answers(exercise: NotebookNode) -> set[str]:
    """Return the ids of an exercise notebook's answer cells."""
    return {cell.id for cell in exercise.cells if cell.id.endswith("-answer")}


def additions(cells: list[NotebookNode], known: set[str]) -> dict[str, list[str]]:
    """Return the code cells that the learner added, keyed by the id of our preceding cell."""
    found: dict[str, list[str]] = {}
    last = "title"
    for cell in cells:
        if cell.id in known:
            last = cell.id
        elif cell.cell_type == "code":
            found.setdefault(last, []).append(cell.source)
    return found


def watched(exercise: NotebookNode) -> list[str]:
    """Return the names that our checks depend on, such as `np.allclose` and `check_softmax`."""
    text = "\n".join(
        cell.source for cell in exercise.cells if cell.id.endswith(("-find", "-common"))
    )
    dotted = re.findall(r"\b(?:np|tf|types|traceback)(?:\.[A-Za-z_]\w*)+", text)
    # Our cells run again before each check, so a learner's function named `check` has no effect.
    return sorted({*dotted, *re.findall(r"^def (check_\w+)", text, re.MULTILINE)})

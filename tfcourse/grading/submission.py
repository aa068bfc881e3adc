"""Decide what to run from a submission: the learner's answers, placed among our cells.

All functions except `read` are pure.
"""

from __future__ import annotations

import copy
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

LARGEST = 10_000_000  # bytes; an exercise with outputs has about ten thousand


class NotGradableError(Exception):
    """A file is not a submission; the message says why."""


@dataclass
class Step:
    """One step for the worker.

    `kind` is "ours" (a cell of the solution, run as it is), "baseline" (the learner's code begins
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
        """Return what the worker needs, as plain data."""
        ours = "\n\n".join(step.text for step in self.steps if step.kind == "ours")
        steps = [asdict(step) for step in self.steps]
        return {"steps": steps, "ours": ours, "watched": self.watched}


def read(path: Path) -> NotebookNode:
    """Return the notebook in a file.

    Raises
    ------
    NotGradableError
        If the file is too large, or is not a notebook.
    """
    if path.stat().st_size > LARGEST:
        raise NotGradableError(f"larger than {LARGEST // 1_000_000} MB")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # a learner's file may contain anything
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise NotGradableError(f"not a notebook: {what[0][:100]}") from error
    return notebook


def plan(submission: NotebookNode, solutions: dict[str, NotebookNode]) -> Plan:
    """Return what to run from a submission: our cells, with the learner's own in between.

    Cells are identified by their ids (see `with_ids`). The answers and any added cells are the
    learner's. All other cells, and above all the checks, are ours. An added cell runs where the
    learner put it: after the same cell of ours.

    Raises
    ------
    NotGradableError
        If the notebook was not made from any of the solutions.
    """
    submission = with_ids(submission, solutions)
    theirs = {cell.get("id"): cell.source for cell in submission.cells}
    lesson = max(solutions, key=lambda name: len(theirs.keys() & answers(solutions[name])))
    solution = solutions[lesson]
    if not theirs.keys() & answers(solution):
        raise NotGradableError(
            "has no answer to any of our exercises (judging by the cells' ids or the checks)"
        )
    own = additions(submission, {cell.id for cell in solution.cells})
    steps, remarks, exercises = [], {}, []
    begun = False  # everything before the first exercise's text is ours
    for cell in solution.cells:
        name, _, role = cell.id.rpartition("-")
        if not begun and role == "text" and f"{name}-answer" in answers(solution):
            steps.append(Step("baseline", ""))
            begun = True
        if cell.cell_type == "code":
            if role == "answer":
                exercises.append(name)
                steps.append(Step("theirs", theirs.get(cell.id, ""), name))
                if cell.id not in theirs:
                    remarks[name] = "the answer's cell is missing"
            else:
                steps.append(Step("check" if role == "check" else "ours", cell.source, name))
                if role in ("find", "check") and theirs.get(cell.id, cell.source) != cell.source:
                    remarks[name] = "edited the check; ours was used"
        steps += [Step("theirs", source) for source in own.pop(cell.id, [])]
    # Cells that were added before the first exercise run after the baseline, too.
    early = [step for step in steps[: index(steps)] if step.kind == "theirs"]
    steps = [step for step in steps if step not in early]
    steps[index(steps) + 1 : index(steps) + 1] = early
    return Plan(lesson, steps, exercises, remarks, watched(solution))


def with_ids(submission: NotebookNode, solutions: dict[str, NotebookNode]) -> NotebookNode:
    """Return a notebook whose cells have their ids, even if it was stored without them.

    Colab writes the ids into the metadata if the format is older than 4.5; other tools leave them
    out. If they are missing, our cells are identified by their text, and an answer by the check
    below it.
    """
    submission = copy.deepcopy(submission)
    known = {cell.id for solution in solutions.values() for cell in solution.cells}
    for cell in submission.cells:
        if cell.get("id") not in known:
            cell["id"] = cell.metadata.get("id")
    if any(cell.id in known and cell.id.endswith("-answer") for cell in submission.cells):
        return submission
    sources = [cell.source.strip() for cell in submission.cells]
    ours = max(
        [{cell.source.strip(): cell.id for cell in each.cells} for each in solutions.values()],
        key=lambda ours: len(ours.keys() & sources),
    )
    answer = None  # the last code cell that is not ours, if no cell of ours follows it
    for cell, source in zip(submission.cells, sources, strict=True):
        cell["id"] = ours.get(source)
        if answer and cell.id and cell.id.endswith("-check"):
            answer["id"] = f"{cell.id.removesuffix('check')}answer"
        if cell.id or cell.cell_type == "code":
            answer = None if cell.id else cell
    return submission


def answers(solution: NotebookNode) -> set[str]:
    """Return the ids of the cells that a learner fills in."""
    return {cell.id for cell in solution.cells if cell.id.endswith("-answer")}


def additions(submission: NotebookNode, known: set[str]) -> dict[str, list[str]]:
    """Return the code that the learner added, by the id of our cell before it."""
    found: dict[str, list[str]] = {}
    last = "title"
    for cell in submission.cells:
        if cell.get("id") in known:
            last = cell.id
        elif cell.cell_type == "code":
            found.setdefault(last, []).append(cell.source)
    return found


def index(steps: list[Step]) -> int:
    """Return the position of the step "baseline"."""
    return next(i for i, step in enumerate(steps) if step.kind == "baseline")


def watched(solution: NotebookNode) -> list[str]:
    """Return the names that our checks call, such as `np.allclose` and `check_softmax`."""
    text = "\n".join(
        cell.source for cell in solution.cells if cell.id.endswith(("-find", "-common"))
    )
    dotted = re.findall(r"\b(?:np|tf|types|traceback)(?:\.[A-Za-z_]\w*)+", text)
    # Our cells run again for each check, so a learner's own helper called `check` changes nothing.
    return sorted({*dotted, *re.findall(r"^def (check_\w+)", text, re.MULTILINE)})

"""Grade one submission: run its plan, and convert the verdicts to rows of a table.

To grade a submitted notebook in a container:

    rows = grade(plan(parse(content), exercises_of(SOLUTIONS)), containers.run)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from nbformat import NotebookNode

from tfcourse import spreadsheet
from tfcourse.exercises import exercise
from tfcourse.grading.limits import Ended
from tfcourse.grading.submission import Plan

COLUMNS = ["submission", "lesson", "exercise", "right", "says"]
TOTAL = 10  # the time limit for a submission, as a multiple of the limit for one cell

Row = dict[str, str | int]


def exercises_of(solutions: Path) -> dict[str, NotebookNode]:
    """Return the learners' version of each exercise notebook, keyed by lesson name."""
    return {path.stem: exercise(path) for path in solutions.glob("*.ipynb")}


def grade(
    plan: Plan, run: Callable[[dict], Ended], seconds: float = 60, memory: int = 3 * 2**30
) -> list[Row]:
    """Return a row for each exercise of a submission.

    Parameters
    ----------
    plan
        The plan to run.
    run
        `containers.run` or `processes.run`.
    seconds
        The time limit for one cell. The limit for the whole submission is ten times as long.
    memory
        The submission's memory limit, in bytes.
    """
    limits = {"seconds": seconds, "total": TOTAL * seconds, "memory": memory}
    ended = run({**plan.as_job(), **limits})
    return rows_of(plan, ended.printed, ended.stopped)


def refused(why: str) -> list[Row]:
    """Return the row for a submission that cannot be graded, with the reason."""
    return [{"lesson": "", "exercise": "", "right": 0, "says": plain(why)}]


def rows_of(plan: Plan, printed: str, reason: str) -> list[Row]:
    """Parse the verdicts that the worker printed; return a row for each exercise.

    If an exercise was judged more than once, any right answer counts; otherwise, the last verdict.
    """
    told: dict[str, dict] = {}
    for line in printed.splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # the worker was killed before it had finished printing the line
            continue
        if "exercise" not in event:
            reason = reason or event["stopped"]
        elif not is_right(told.get(event["exercise"], {})):
            told[event["exercise"]] = event
    rows = []
    for name in plan.exercises:
        event = told.get(name, {"stopped": reason or "the submission ended its own grading"})
        if "tampered" in event:
            says = f"TAMPERED: {event['tampered']}"
        elif "stopped" in event:
            says = f"STOPPED: {event['stopped']}"
        else:
            says = event["mistake"] or ""
        right = is_right(event)
        remarks = [plan.remarks.get(name, ""), event.get("remark", "")]
        if replaced := event.get("replaced"):
            remarks.append(f"replaces {', '.join(replaced)}; the check used the original")
        says = "" if right else plain("; ".join(filter(None, [*remarks, says])))
        rows.append({"lesson": plan.lesson, "exercise": name, "right": int(right), "says": says})
    for lesson in plan.others:
        says = f"not graded: the notebook also contains answers to {plan.lesson}"
        rows.append({"lesson": lesson, "exercise": "", "right": 0, "says": says})
    return rows


def is_right(event: dict) -> bool:
    """Return whether the worker found an answer right."""
    return "mistake" in event and not event["mistake"]


def plain(text: str) -> str:
    """Convert a text to a single line that is safe to show in terminals and spreadsheets."""
    # The lines of a check's message are sentences, but those of an error message may not be.
    text = re.sub(r"(?<=[^\s.!?:;,])\n", "; ", text).replace("\n", " ")
    return spreadsheet.safe(printable(text))


def printable(text: str) -> str:
    """Escape the unprintable characters in a learner's text.

    A terminal would interpret some of these characters as control sequences, and lone surrogates
    cannot be encoded as UTF-8.
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)

"""Hand in notebooks, with `hand-in` in a terminal or the button in JupyterLab."""

import argparse
import contextlib
import http.client
import json
import re
import sys
import urllib.error
import zlib
from datetime import datetime
from pathlib import Path

import course_hub

LARGEST = 10_000_000  # bytes; the hub refuses larger notebooks
# Where the learner's notebooks were handed in from, keyed by assignment and lesson.
MEMORY = Path("~/.local/share/tensorflow-course/handed-in.json")
EXERCISES = Path("~/tensorflow-course/exercises")
# The call of a check, at the beginning of a line of code in a notebook's file.
CHECK = re.compile(rb'"check_\w+\(')
AWAY = "The hub is not responding, so nothing was handed in. Try again in a minute."
# The hub might have stored the notebook before the connection was lost.
UNCERTAIN = "The hub is not responding. Your notebook may not have been handed in: try again soon."


class NotHandedInError(Exception):
    """Nothing was handed in. The message tells the learner why."""


def assignments():
    """Return the class's assignments, with the earliest deadline first."""
    if not course_hub.is_there():
        raise NotHandedInError("You can hand in notebooks only from a server that a hub started.")
    try:
        return course_hub.ask("assignments", seconds=30)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return []
        raise NotHandedInError(f"The hub refused. {course_hub.message(error)}") from None
    except (OSError, ValueError, http.client.HTTPException):
        raise NotHandedInError(AWAY) from None


def wanted(lesson, given):
    """Return the assignment for which a lesson's notebook counts, or None.

    If several assignments include the lesson, return the next one to be due. If all their deadlines
    have passed, return the last one.
    """
    asking = [each for each in given if lesson in each["lessons"]]
    return next((each for each in asking if not each["late"]), asking[-1] if asking else None)


def lesson_of(path, given):
    """Return the lesson to which a notebook or a renamed copy of it belongs, or None."""
    lessons = {lesson for each in given for lesson in each["lessons"]}
    return next((lesson for lesson in sorted(lessons) if Path(path).stem.startswith(lesson)), None)


def hand_in(path, given):
    """Hand in a notebook; return a message with the receipt."""
    path = Path(path)
    if not path.is_file():
        raise NotHandedInError(f"The notebook {path} does not exist.")
    lesson = lesson_of(path, given)
    assignment = lesson and wanted(lesson, given)
    if not assignment:
        raise NotHandedInError(f"No assignment includes {path.name}.")
    content = read(path)
    where = f"assignments/{assignment['id']}/{lesson}"
    try:
        receipt = course_hub.ask(where, zlib.compress(content), method="PUT", seconds=180)
    except urllib.error.HTTPError as error:
        reason = course_hub.message(error)
        raise NotHandedInError(f"{path.name} was not handed in. {reason}") from None
    except (OSError, ValueError, http.client.HTTPException):
        raise NotHandedInError(UNCERTAIN) from None
    remember(assignment, lesson, path)
    return f"{path.name} was handed in for “{assignment['title']}” {told(receipt)}."


def read(path):
    """Return a notebook's content; refuse a notebook without exercises."""
    try:
        if path.stat().st_size > LARGEST:
            raise NotHandedInError(
                f"{path.name} is larger than {LARGEST // 10**6} MB. Clear the outputs of its cells "
                "(Edit, Clear Outputs of All Cells), save it, and try again."
            )
        content = path.read_bytes()
    except OSError as error:
        raise NotHandedInError(f"{path.name} cannot be read: {error.strerror}.") from None
    if not CHECK.search(content):  # for example, the lesson of the same name
        raise NotHandedInError(
            f"{path.name} has no exercises, or is not a notebook. Look for the exercises in the "
            "“exercises” folder."
        )
    return content


def remembered():
    """Return the paths of the notebooks that were handed in from this home."""
    try:
        found = json.loads(MEMORY.expanduser().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(assignment, lesson, path):
    """Store the path of a notebook that was handed in; do nothing if the disk is full."""
    file = MEMORY.expanduser()
    found = {**remembered(), f"{assignment['id']}/{lesson}": str(path.absolute())}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))


def notebook_of(assignment, lesson, where):
    """Return the path of the notebook that was handed in for a lesson.

    If it is unknown or no longer there, return the path of the lesson's own exercises.
    """
    path = where.get(f"{assignment['id']}/{lesson}")
    if isinstance(path, str) and Path(path).is_file():
        return path
    return str((EXERCISES / f"{lesson}.ipynb").expanduser())


def told(receipt):
    """Return a receipt in words."""
    when = datetime.fromisoformat(receipt["when"]).astimezone()
    late = ", late" if receipt["late"] else ""
    kilobytes = max(1, receipt["size"] // 1000)
    return f"on {day(when)}{late} ({kilobytes} kB, receipt {receipt['digest'][:8]})"


def day(when):
    """Return a time in words, for example "1 December at 09:30 CET"."""
    return f"{when.day} {when:%B at %H:%M %Z}"


def status(given):
    """Yield lines about the assignments, and the learner's submissions and grades."""
    for each in given:
        due = datetime.fromisoformat(each["due"]).astimezone()
        yield f"{each['title']}, due {day(due)}"
        for lesson, receipt in each["lessons"].items():
            yield f"  {lesson}: {'handed in ' + told(receipt) if receipt else 'not handed in'}"
            if other := (receipt or {}).get("other"):
                yield f"    another notebook, handed in {told(other)}, does not count"
            for line in (receipt or {}).get("feedback", []):
                yield f"    {line}"
            for line in (receipt or {}).get("comment", "").splitlines():
                yield f"    {line}"
    if not given:
        yield "There are no assignments."


def main():
    """Run the `hand-in` command."""
    parser = argparse.ArgumentParser(
        prog="hand-in",
        description="Hand in notebooks for your class's assignments. Without a notebook, list "
        "the assignments, your submissions and your grades.",
        epilog="Save your notebooks first. You can hand in again: your last submission normally "
        "counts.",
    )
    parser.add_argument("notebook", nargs="*", help="for example, exercises/05_loss.ipynb")
    options = parser.parse_args()
    failed = False
    try:
        given = assignments()
        if not options.notebook:
            print("\n".join(status(given)))
    except NotHandedInError as error:
        sys.exit(str(error))
    for notebook in options.notebook:
        try:
            print(hand_in(notebook, given))
        except NotHandedInError as error:
            print(error, file=sys.stderr)
            failed = True
    sys.exit(failed)

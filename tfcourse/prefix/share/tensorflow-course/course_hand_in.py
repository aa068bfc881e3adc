"""Hand in notebooks: `hand-in` in a terminal, and the button in JupyterLab."""

import argparse
import re
import sys
import urllib.error
import zlib
from datetime import datetime
from pathlib import Path

import course_hub

LARGEST = 10 * 2**20  # bytes; the hub refuses larger notebooks
# The call of a check, at the beginning of a line in a notebook's file.
CHECK = re.compile(rb'"check_\w+\(')
AWAY = "The hub does not respond, so nothing was handed in. Try again in a minute."


class NotHandedInError(Exception):
    """Nothing was handed in, for a reason that is a sentence for the learner."""


def assignments():
    """Return the class's assignments, with the next deadline first."""
    if not course_hub.is_there():
        raise NotHandedInError("No hub has started this server, so there is nobody to hand in to.")
    try:
        return course_hub.ask("assignments", seconds=30)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return []
        raise NotHandedInError(f"The hub refused: {course_hub.message(error)}") from None
    except (OSError, ValueError):
        raise NotHandedInError(AWAY) from None


def wanted(lesson, given):
    """Return the assignment for which a lesson's notebook counts, or None.

    If several assignments ask for the lesson, this is the first that is not due yet; if all are
    due, the last.
    """
    asking = [each for each in given if lesson in each["lessons"]]
    return next((each for each in asking if not each["late"]), asking[-1] if asking else None)


def lesson_of(path, given):
    """Return the lesson to which a notebook belongs, even if it is a renamed copy, or None."""
    lessons = {lesson for each in given for lesson in each["lessons"]}
    return next((lesson for lesson in sorted(lessons) if Path(path).stem.startswith(lesson)), None)


def hand_in(path, given):
    """Hand in a notebook; return a sentence about what was taken, and when."""
    path = Path(path)
    lesson = lesson_of(path, given)
    assignment = lesson and wanted(lesson, given)
    if not assignment:
        raise NotHandedInError(f"No assignment asks for {path.name}.")
    content = read(path)
    where = f"assignments/{assignment['id']}/{lesson}"
    try:
        receipt = course_hub.ask(where, zlib.compress(content), method="PUT")
    except urllib.error.HTTPError as error:
        raise NotHandedInError(f"{path.name}: {course_hub.message(error)}") from None
    except (OSError, ValueError):
        raise NotHandedInError(AWAY) from None
    return f"{path.name} was handed in for “{assignment['title']}” {told(receipt)}."


def read(path):
    """Return a notebook's content."""
    try:
        if not path.is_file():
            raise NotHandedInError(f"There is no notebook {path}.")
        if path.stat().st_size > LARGEST:
            raise NotHandedInError(
                f"{path.name} is larger than {LARGEST // 2**20} MB. Clear the outputs of its cells "
                "(Edit, Clear Outputs of All Cells), save it, and try again."
            )
        content = path.read_bytes()
    except OSError as error:
        raise NotHandedInError(f"{path.name} cannot be read: {error.strerror}.") from None
    if not CHECK.search(content):  # perhaps the lesson of the same name
        raise NotHandedInError(
            f"{path.name} has no exercises, or is not a notebook. The exercises are in the folder "
            "exercises."
        )
    return content


def told(receipt):
    """Return a receipt in words."""
    when = datetime.fromisoformat(receipt["when"]).astimezone()
    late = ", late" if receipt["late"] else ""
    kilobytes = max(1, receipt["size"] // 1000)
    return f"on {when:%d %B at %H:%M %Z}{late} ({kilobytes} kB, receipt {receipt['digest'][:8]})"


def status(given):
    """Yield lines about the assignments, what has been handed in, and its grades."""
    for each in given:
        due = datetime.fromisoformat(each["due"]).astimezone()
        yield f"{each['title']}, due {due:%d %B at %H:%M %Z}"
        for lesson, receipt in each["lessons"].items():
            yield f"  {lesson}: {'handed in ' + told(receipt) if receipt else 'not handed in'}"
            yield from (f"    {line}" for line in (receipt or {}).get("feedback", []))
    if not given:
        yield "There are no assignments."


def main():
    """Hand in notebooks from a terminal."""
    parser = argparse.ArgumentParser(
        prog="hand-in",
        description="Hand in notebooks for your class's assignments. Without a notebook, show the "
        "assignments, what you have handed in, and your grades.",
        epilog="You can hand in again: what you handed in last counts. Save your notebooks first.",
    )
    parser.add_argument("notebook", nargs="*", help="such as exercises/05_loss.ipynb")
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

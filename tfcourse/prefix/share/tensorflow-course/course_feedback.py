"""Write the feedback on each submitted notebook to a file beside it."""

import contextlib
import os
import random
import re
import stat
import tempfile
import time
from datetime import datetime
from pathlib import Path

import course_hand_in

LOOK = 300  # seconds between requests for new feedback
CODE = re.compile(r"(`[^`]+`)")
# Characters that are special in Markdown anywhere, or only at the beginning of a line.
SPECIAL = re.compile(r"[\\`*_\[\]<>|~$&]|^[-+=#]|(?<=^\d)[.)]|(?<=^\d\d)[.)]")


def write(given):
    """Write feedback files for a list of assignments, and add their paths to the list.

    A learner's own files, which are not read-only, remain unchanged. Errors, such as a full disk,
    are ignored, because the server tries again in a few minutes.
    """
    where = course_hand_in.remembered()
    found = {}
    for each in given:
        for lesson, receipt in each["lessons"].items():
            if receipt and (receipt["feedback"] or receipt.get("comment")):
                notebook = course_hand_in.notebook_of(each, lesson, where)
                found.setdefault(notebook, []).append((each, receipt))
    for notebook, parts in found.items():
        with contextlib.suppress(OSError, ValueError):
            file = Path(notebook).with_suffix(".feedback.md")
            replace(file, "\n".join(text(notebook, parts)))
            for _, receipt in parts:
                receipt["file"] = str(file)


def replace(file, content):
    """Write a read-only file, unless it has this content.

    Raises
    ------
    OSError
        If the file cannot be written, or if the learner has written or edited it.
    """
    if os.path.lexists(file):
        if not stat.S_ISREG(mode := file.lstat().st_mode) or mode & stat.S_IWUSR:
            raise FileExistsError(file)
        if file.read_text("utf-8") == content:
            return
    # A reader never sees half of a file.
    handle, fresh = tempfile.mkstemp(prefix=".feedback-", dir=file.parent)
    try:
        with open(handle, "w", encoding="utf-8") as new:
            new.write(content)
        os.chmod(fresh, 0o444)
        os.replace(fresh, file)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(fresh)


def text(notebook, parts):
    """Yield the lines of a notebook's feedback file, with the latest deadline first."""
    yield f"# Feedback on {plain(Path(notebook).name)}"
    for assignment, receipt in reversed(parts):
        yield f"\n## {plain(assignment['title'])}\n"
        late = ", after the deadline" if receipt["late"] else ""
        yield f"This is about the notebook that you handed in on {day(receipt['when'])}{late}.\n"
        if receipt["feedback"]:
            score, *verdicts = receipt["feedback"]
            yield f"**{plain(score)}**\n"
            yield from (f"- {plain(verdict)}" for verdict in verdicts)
        else:
            yield "It has not been graded."
        if comment := receipt.get("comment"):
            yield "\nYour instructor wrote:\n"
            yield from (f"> {plain(line)}  " for line in comment.splitlines())
        if not assignment["late"]:
            due = day(assignment["due"])
            yield f"\nYou can improve the notebook, and hand it in again until {due}."


def day(iso):
    """Return a time in words."""
    return course_hand_in.day(datetime.fromisoformat(iso).astimezone())


def plain(words):
    """Return a text with Markdown's special characters escaped, except between backticks."""
    parts = CODE.split(" ".join(words.split()))
    return "".join(each if CODE.match(each) else SPECIAL.sub(r"\\\g<0>", each) for each in parts)


def write_for_ever():
    """Write new feedback until the server exits."""
    time.sleep(random.uniform(0, 10))  # noqa: S311 - servers of a class often start together
    while True:
        # The hub does not respond, or runs another version.
        with contextlib.suppress(course_hand_in.NotHandedInError, LookupError, TypeError):
            write(course_hand_in.assignments())
        time.sleep(LOOK)

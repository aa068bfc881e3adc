"""The course's lessons and exercises, read from the notebooks for learners."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

from tfcourse.hub.state import ROOT

EXERCISES = ROOT / "notebooks" / "exercises"
LINK = re.compile(r"\[(\d\d [^\]]+)\]\(\.\./\d\d_")  # to the lesson, from its exercises
CHECK = "-check"  # the ID of a cell that checks an exercise ends in this


@functools.cache
def lessons(folder: Path = EXERCISES) -> dict[str, dict[str, str]]:
    """Return the title of each exercise, keyed by lesson and exercise, in the course's order.

    For example, `lessons()["03_build_a_model"]["count"]` is "2. Count the parameters".
    """
    return {path.stem: exercises(path) for path in sorted(folder.glob("*.ipynb"))}


@functools.cache
def names(folder: Path = EXERCISES) -> dict[str, str]:
    """Return the lessons' names, such as "03 Build a model", from the links in their exercises."""
    links = {path.stem: LINK.search(path.read_text("utf-8")) for path in folder.glob("*.ipynb")}
    return {lesson: link[1] if link else lesson for lesson, link in sorted(links.items())}


def titles(lesson: str) -> dict[str, str]:
    """Return the titles of a lesson's exercises; none if only an earlier version had the lesson."""
    return lessons().get(lesson, {})


def has(lesson: str, exercise: str) -> bool:
    """Return whether the course has an exercise. An earlier version may have had others."""
    return exercise in titles(lesson)


def exercises(path: Path) -> dict[str, str]:
    """Return the titles of a notebook's exercises, keyed by exercise."""
    cells = json.loads(path.read_bytes())["cells"]
    texts = {cell["id"]: "".join(cell["source"]) for cell in cells}
    names = [name.removesuffix(CHECK) for name in texts if name.endswith(CHECK)]
    return {name: title(texts.get(f"{name}-text", name)) for name in names}


def title(text: str) -> str:
    """Return the heading of a text cell."""
    return text.partition("\n")[0].lstrip("# ")


def lesson_of(notebook: str) -> str | None:
    """Return the lesson to which a notebook or a renamed copy of it belongs; None if unknown."""
    return next((lesson for lesson in lessons() if notebook.startswith(lesson)), None)

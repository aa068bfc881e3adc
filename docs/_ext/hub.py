"""Make the book's hub button open the learner's own copy of the lesson on the hub.

The theme's own button would copy the repository to the learner's server with nbgitpuller, which our
hub does not have: its learners already have the lessons.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

FOLDER = "tensorflow-course"  # a learner's lessons, as in tfcourse/hub/spawners/lessons.py


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    # The theme adds its buttons with priority 501.
    app.connect("html-page-context", open_lesson, priority=502)
    return {"parallel_read_safe": True}


def open_lesson(app: Sphinx, page: str, _: str, context: dict[str, Any], *__: Any) -> None:
    """Change the address to which the hub button leads."""
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            hub, found, _ = button.get("url", "").partition("/hub/user-redirect/git-pull?")
            if found:
                lesson = page.removeprefix("notebooks/")
                button["url"] = f"{hub}/hub/user-redirect/lab/tree/{FOLDER}/{lesson}.ipynb"

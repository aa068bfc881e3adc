"""Make the book's hub button open the learner's own copy of the lesson on the hub.

The theme's default button would clone the repository with nbgitpuller. Our hub does not install
nbgitpuller, because every learner already has a copy of the lessons.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

FOLDER = "tensorflow-course"  # must match FOLDER in tfcourse/hub/spawners/lessons.py


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    # Run after the theme, which adds its buttons with priority 501.
    app.connect("html-page-context", open_lesson, priority=502)
    return {"parallel_read_safe": True}


def open_lesson(app: Sphinx, page: str, _: str, context: dict[str, Any], *__: Any) -> None:
    """Replace the URL of the hub button."""
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            hub, found, _ = button.get("url", "").partition("/hub/user-redirect/git-pull?")
            if found:
                lesson = page.removeprefix("notebooks/")
                button["url"] = f"{hub}/hub/user-redirect/lab/tree/{FOLDER}/{lesson}.ipynb"

"""Generate the same heading anchors for the book as JupyterLab does, so that links work in both."""

from __future__ import annotations


def jupyterlab(title: str) -> str:
    """Return the anchor that JupyterLab 4 gives a heading: `Run-a-cell` for `Run a cell`."""
    return title.replace(" ", "-")

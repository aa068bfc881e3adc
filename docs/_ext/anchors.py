"""Give the book's headings the anchors that JupyterLab gives them, so that links work in both."""

from __future__ import annotations


def jupyterlab(title: str) -> str:
    """Return JupyterLab 4's anchor for a heading: for `Run a cell`, that is `Run-a-cell`."""
    return title.replace(" ", "-")

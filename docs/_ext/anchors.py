"""Headings get the anchor that they have in JupyterLab, so that a lesson's links work in both."""

from __future__ import annotations


def jupyterlab(title: str) -> str:
    """Return what JupyterLab 4 makes of a heading: `Run a cell` is `#Run-a-cell`."""
    return title.replace(" ", "-")

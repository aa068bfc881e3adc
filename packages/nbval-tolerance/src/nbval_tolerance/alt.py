"""Alternative texts of figures: an author writes them into a cell's metadata, not into its code."""

from __future__ import annotations

from nbformat import NotebookNode

from nbval_tolerance.outputs import PICTURES


def pictures(cell: NotebookNode) -> list[tuple[NotebookNode, str]]:
    """Return a cell's outputs that hold a picture, each with the MIME type that is shown."""
    return [
        (output, next(kind for kind in PICTURES if kind in output.data))
        for output in cell.outputs
        if set(PICTURES) & set(output.get("data", {}))
    ]


def wanted(cell: NotebookNode) -> list[str]:
    """Return the texts in a cell's metadata, `alt`: one, or a list of one for each figure."""
    texts = cell.metadata.get("alt", [])
    return [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, list) else []


def put(cell: NotebookNode) -> None:
    """Give the texts in a cell's metadata to the figures that it has just shown, in order."""
    for (output, kind), text in zip(pictures(cell), wanted(cell), strict=False):
        output.metadata.setdefault(kind, NotebookNode())["alt"] = text

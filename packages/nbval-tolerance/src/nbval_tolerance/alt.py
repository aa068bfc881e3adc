"""Copy the alt texts that authors write in a cell's metadata to the cell's picture outputs."""

from __future__ import annotations

from nbformat import NotebookNode

from nbval_tolerance.outputs import PICTURES


def pictures(cell: NotebookNode) -> list[tuple[NotebookNode, str]]:
    """Return each picture output of a cell, with the picture's MIME type."""
    return [
        (output, next(kind for kind in PICTURES if kind in output.data))
        for output in cell.outputs
        if set(PICTURES) & set(output.get("data", {}))
    ]


def wanted(cell: NotebookNode) -> list[str]:
    """Return the list of alt texts in a cell's metadata, even if `alt` is a single string."""
    texts = cell.metadata.get("alt", [])
    return [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, list) else []


def put(cell: NotebookNode) -> None:
    """Copy the alt texts in a cell's metadata to the pictures in its outputs, in order."""
    for (output, kind), text in zip(pictures(cell), wanted(cell), strict=False):
        output.metadata.setdefault(kind, NotebookNode())["alt"] = text

"""Copy figures' alt texts from a cell's metadata, where authors write them, to its outputs."""

from __future__ import annotations

from nbformat import NotebookNode

from nbval_tolerance.outputs import PICTURES


def pictures(cell: NotebookNode) -> list[tuple[NotebookNode, str]]:
    """Return a cell's picture outputs, each with the MIME type of its picture."""
    return [
        (output, next(kind for kind in PICTURES if kind in output.data))
        for output in cell.outputs
        if set(PICTURES) & set(output.get("data", {}))
    ]


def wanted(cell: NotebookNode) -> list[str]:
    """Return the list of alt texts in a cell's metadata, where `alt` is a string or a list."""
    texts = cell.metadata.get("alt", [])
    return [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, list) else []


def put(cell: NotebookNode) -> None:
    """Copy the alt texts in a cell's metadata to the pictures in its outputs, in order."""
    for (output, kind), text in zip(pictures(cell), wanted(cell), strict=False):
        output.metadata.setdefault(kind, NotebookNode())["alt"] = text

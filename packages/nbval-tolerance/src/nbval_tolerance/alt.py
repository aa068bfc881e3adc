"""Copy the alternative texts of figures from a cell's metadata, where authors write them."""

from __future__ import annotations

from nbformat import NotebookNode

from nbval_tolerance.outputs import PICTURES


def pictures(cell: NotebookNode) -> list[tuple[NotebookNode, str]]:
    """Return a cell's outputs that contain a picture, each with the MIME type that is shown."""
    return [
        (output, next(kind for kind in PICTURES if kind in output.data))
        for output in cell.outputs
        if set(PICTURES) & set(output.get("data", {}))
    ]


def wanted(cell: NotebookNode) -> list[str]:
    """Return the texts under `alt` in a cell's metadata: a single text, or one for each figure."""
    texts = cell.metadata.get("alt", [])
    return [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, list) else []


def put(cell: NotebookNode) -> None:
    """Assign the texts in a cell's metadata to the figures in its new outputs, in order."""
    for (output, kind), text in zip(pictures(cell), wanted(cell), strict=False):
        output.metadata.setdefault(kind, NotebookNode())["alt"] = text

"""Collapse the code cells in the book that JupyterLab collapses, such as an exercise's checks."""

from __future__ import annotations

import json

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", fold)
    return {"parallel_read_safe": True}


def fold(app: Sphinx, name: str, source: list[str]) -> None:
    """Tag each cell that JupyterLab collapses, so that MyST-NB collapses it in the book."""
    if app.env.doc2path(name).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append("hide-input")
    source[0] = json.dumps(notebook)

"""Collapse the same code in the book as in JupyterLab, such as the checks of an exercise."""

from __future__ import annotations

import json

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", fold)
    return {"parallel_read_safe": True}


def fold(app: Sphinx, name: str, source: list[str]) -> None:
    """Tag the cells that are collapsed in JupyterLab so that MyST-NB also collapses them."""
    if app.env.doc2path(name).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append("hide-input")
    source[0] = json.dumps(notebook)

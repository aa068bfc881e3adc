"""In the book, fold the code that JupyterLab folds, such as the checks of an exercise."""

from __future__ import annotations

import json

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", fold)
    return {"parallel_read_safe": True}


def fold(app: Sphinx, name: str, source: list[str]) -> None:
    """Tag the cells that JupyterLab folds, so that MyST-NB folds them, too."""
    if app.env.doc2path(name).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append("hide-input")
    source[0] = json.dumps(notebook)

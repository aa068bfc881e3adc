"""Figures with the text that their lesson stores for readers who cannot see them.

A lesson's `show(fig, alt)` puts it into the output's metadata, where nbconvert looks for it, too.
MyST-NB 1.4 knows only one text a cell, in the cell's metadata, so the texts are brought over here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

IMAGES = ("image/png", "image/jpeg")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-read", describe)
    return {"parallel_read_safe": True}


def describe(app: Sphinx, doctree: nodes.document) -> None:
    """Give each image of this page its text; warn where there is none."""
    source = Path(app.env.doc2path(app.env.current_document.docname))
    texts = stored_texts(source) if source.suffix == ".ipynb" else {}
    for image in doctree.findall(nodes.image):
        # MyST-NB names a figure's file by its content.
        image["alt"] = image.get("alt") or texts.get(Path(image["uri"]).stem, "")
        if not image["alt"]:
            logging.getLogger(__name__).warning(
                "an image without alt text: %s", image["uri"], location=source.as_posix()
            )


def stored_texts(notebook: Path) -> dict[str, str]:
    """Return the text of each figure of the notebook, by the figure's SHA-256."""
    texts = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            for kind in set(IMAGES) & set(output.get("data", {})):
                picture = base64.b64decode("".join(output["data"][kind]))
                text = output["metadata"].get(kind, {}).get("alt", "")
                texts[hashlib.sha256(picture).hexdigest()] = text
    return texts

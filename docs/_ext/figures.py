"""Set each figure's size and alternative text from the metadata stored in its lesson.

Image files have twice the displayed resolution, for high-resolution screens. Readers who cannot see
a figure rely on its alternative text. MyST-NB 1.4 does not support image sizes, and supports only
one alternative text per cell.
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
    """Set the size and alternative text of each image on a page; warn if the text is missing."""
    source = Path(app.env.doc2path(app.env.current_document.docname))
    stored = stored_metadata(source) if source.suffix == ".ipynb" else {}
    for image in doctree.findall(nodes.image):
        # MyST-NB names each image file after the hash of its content.
        about = stored.get(Path(image["uri"]).stem, {})
        if about.get("width"):
            image["width"] = f"{about['width']}px"
        image["alt"] = image.get("alt") or about.get("alt", "")
        if not image["alt"]:
            logging.getLogger(__name__).warning(
                "an image without alt text: %s", image["uri"], location=source.as_posix()
            )


def stored_metadata(notebook: Path) -> dict[str, dict]:
    """Return the metadata stored for each figure in a notebook, keyed by the figure's SHA-256."""
    found = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            for kind in set(IMAGES) & set(output.get("data", {})):
                found[name(output, kind)] = output["metadata"].get(kind, {})
    return found


def name(output: dict, kind: str) -> str:
    """Return the SHA-256 of an output's image, which MyST-NB uses as the image's file name."""
    picture = base64.b64decode("".join(output["data"][kind]))
    return hashlib.sha256(picture).hexdigest()

"""Make drawing pads and films (animations) interactive in the book, using the lessons' stored data.

A pad's or film's output contains both a picture and JSON data. From the data, the scripts in
`notebooks/interactive` create an interactive version, which does not need Python. The picture is
shown in print and in browsers without JavaScript.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from figures import name
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "interactive"
SCRIPT, STYLE = "live.js", "interactive.css"
PREFIX, SUFFIX = "application/vnd.tensorflow-course.", "+json"
KINDS = ("pad", "film")
# Bundle the modules into a classic script, because browsers do not load modules from `file:` URLs.
START = """
const kinds = {
  pad: (content, el) => pad.render({ model: offline.padModel(content), el }),
  film: (content, el) => film.render({ model: offline.filmModel(content), el }),
};
for (const place of document.querySelectorAll(".course-live")) {
  const el = document.createElement("div");
  el.className = "course-live-here";
  kinds[place.dataset.kind](JSON.parse(place.querySelector("script").textContent), el);
  place.append(el);
  place.classList.add("alive");
}
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("live", Live)
    app.connect("builder-inited", write)
    app.connect("doctree-read", bring_to_life)
    app.connect("html-page-context", load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Live(SphinxDirective):
    """Insert the first pad or film of a notebook: `{live} ../notebooks/lesson.ipynb`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the Docutils nodes for the pad or film, which surround its picture."""
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        for kind, content, output in lively(Path(path)):
            about = output["metadata"]["image/png"]
            picture = (
                f'<img alt="{html.escape(about["alt"])}" style="width: {about["width"]}px"'
                f' src="data:image/png;base64,{"".join(output["data"]["image/png"]).strip()}">'
            )
            before, after = around(kind, content)
            return [before, raw(picture), after]
        raise self.error(f"{relative} has no stored pad or film; execute it")


def bring_to_life(app: Sphinx, doctree: nodes.document) -> None:
    """Insert the JSON data of each pad and film next to its picture."""
    source = Path(app.env.doc2path(app.env.current_document.docname))
    if source.suffix != ".ipynb":
        return
    found = {name(o, "image/png"): around(kind, content) for kind, content, o in lively(source)}
    for image in list(doctree.findall(nodes.image)):
        if pair := found.get(Path(image["uri"]).stem):
            image.replace_self([pair[0], image, pair[1]])


def lively(notebook: Path) -> Iterator[tuple[str, dict, dict]]:
    """Yield the kind, JSON data and complete output of each pad and film in a notebook."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            for kind in KINDS:
                content = output.get("data", {}).get(PREFIX + kind + SUFFIX)
                if content is not None:
                    yield kind, content, output


def around(kind: str, content: dict) -> tuple[nodes.raw, nodes.raw]:
    """Return the HTML to insert before and after the picture of a pad or film."""
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    end = f'<script type="application/json">{text}</script></div>'
    return raw(f'<div class="course-live" data-kind="{kind}">'), raw(end)


def raw(text: str) -> nodes.raw:
    """Return HTML as a Docutils node."""
    return nodes.raw("", text, format="html")


def write(app: Sphinx) -> None:
    """Write the script and the style sheet for pages with a pad or a film."""
    if app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"const {part} = {closed(SOURCES / f'{part}.js')};" for part in ("offline", *KINDS)]
    (folder / SCRIPT).write_text("\n".join(["(() => {", *parts, START, "})();\n"]))
    (folder / STYLE).write_bytes((SOURCES / STYLE).read_bytes())


def closed(module: Path) -> str:
    """Return a JavaScript expression that evaluates to an object with a module's exports."""
    text = module.read_text(encoding="utf-8")
    exported = re.findall(r"^export (?:function|const) (\w+)", text, re.M)
    if found := re.search(r"^export default \{ (.+) \};$", text, re.M):
        exported.append(found[1])
        text = text.replace(found[0], "")
    text = re.sub(r"^export ", "", text, flags=re.M)
    return f"(() => {{\n{text}\nreturn {{ {', '.join(exported)} }};\n}})()"


def load(app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document) -> None:
    """Load the script and the style sheet on pages that have a pad or a film."""
    if doctree and any("course-live" in node.astext() for node in doctree.findall(nodes.raw)):
        app.add_js_file(SCRIPT, loading_method="defer")
        app.add_css_file(STYLE)

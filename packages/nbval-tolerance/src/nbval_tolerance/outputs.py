"""Compare the new outputs and probe values of notebook cells with the stored ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import groupby

from nbformat import NotebookNode

from nbval_tolerance.compare import (
    Comparison,
    Difference,
    Number,
    Phase,
    Rules,
    compare_text,
    numbers_of,
    rendered,
)
from nbval_tolerance.config import DEFAULTS, Config
from nbval_tolerance.controls import notes, rules_of
from nbval_tolerance.pictures.figures import compare_figures, side_by_side
from nbval_tolerance.pictures.svg import compare_svg, decoded

SVG = "image/svg+xml"
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", SVG)
# Matches pictures inside HTML and Markdown: data URLs and SVG elements.
EMBEDDED = re.compile(
    r"data:(?P<kind>image/(?:png|jpeg|gif|webp|svg\+xml));base64,(?P<data>[A-Za-z0-9+/=\s]+)"
    r"|(?P<svg><svg\b.*?</svg\s*>)",
    re.DOTALL,
)
# Matches a picture's plain-text representation, which a reader does not see.
OBJECT = re.compile(r"\s*<[^<>\n]*>\s*")
# The prefix of widgets' MIME types, whose data contain model ids that change with every run.
WIDGET = "application/vnd.jupyter.widget-"
VIEW = f"{WIDGET}view+json"


def compare_notebooks(
    stored: NotebookNode, computed: NotebookNode, config: Config = DEFAULTS
) -> dict[int, Comparison]:
    """Compare the outputs and probe values of two notebooks with the same code cells.

    Returns
    -------
    dict
        Maps the number of each code cell, starting at 0, to its comparison.
    """
    old, new = (
        [cell for cell in notebook.cells if cell.cell_type == "code"]
        for notebook in (stored, computed)
    )
    found = {}
    for number, (one, other, rules) in enumerate(
        zip(old, new, rules_of(stored, config), strict=True)
    ):
        found[number] = compare_outputs(one.outputs, other.outputs, rules)
        found[number] += compare_values(
            notes(one).get("values", {}), notes(other).get("values", {}), rules
        )
    return found


def compare_values(
    stored: Mapping[str, str], computed: Mapping[str, str], rules: Rules
) -> Comparison:
    """Compare the values of probes. A probe's name indicates the kind of number in its value."""
    result = Comparison()
    for name in dict.fromkeys([*stored, *computed]):
        old, new = (values.get(name, "nothing") for values in (stored, computed))
        if not (name in stored and name in computed):
            what = f"probe {name!r} is {'new' if name in computed else 'gone'}"
            result.differences.append(Difference(what, old, new, "probe"))
            continue
        found = compare_named(f"probe {name!r}", old, new, rules, label=name)
        found.differences = [replace(each, about="probe") for each in found.differences]
        result += found
    return result


def compare_outputs(
    stored: list[NotebookNode], computed: list[NotebookNode], rules: Rules
) -> Comparison:
    """Compare two lists of notebook outputs, in order.

    Streams, results, displays and errors must appear in the same order and with the same MIME
    types. MIME types in `rules.skip` are ignored, and so is a live widget's view if the output has
    another representation. The relative order of stdout and stderr is also ignored, because it is
    random. Texts, HTML (as a reader sees it), JSON and pictures are compared by content. Content of
    any other type must be present but is not compared.

    Parameters
    ----------
    stored, computed
        Lists of outputs in nbformat's format.
    rules
        How strictly to compare.
    """
    old, new = (by_stream(compared(outputs, rules.skip)) for outputs in (stored, computed))
    if [describe(output) for output in old] != [describe(output) for output in new]:
        kinds = Difference("the outputs differ in kind or order", outline(old), outline(new))
        return Comparison([kinds])
    result = Comparison()
    for one, other in zip(old, new, strict=True):
        result += compare_text(text_of(one), text_of(other), rules)
        for kind in one.get("data", {}):
            result += compare_data(kind, one.data, other.data, rules)
            if kind not in PICTURES or rules.figures:
                result += compare_named(
                    "the alternative text", alt_text(one, kind), alt_text(other, kind), rules
                )
    return result


def compare_named(
    name: str, stored: str, computed: str, rules: Rules, label: str = ""
) -> Comparison:
    """Compare two texts, and prefix each difference with a name."""
    result = compare_text(stored, computed, rules, label)
    result.differences = [
        replace(difference, what=f"{name}, {difference.what}") for difference in result.differences
    ]
    return result


def compared(outputs: list[NotebookNode], skip: Collection[str]) -> list[NotebookNode]:
    """Return outputs without the parts that are not compared.

    The omitted parts are the MIME types in `skip`, the plain-text representation of a picture, and
    a live widget's view if the output has another representation.
    """
    left = []
    for output in outputs:
        if "data" in output:
            still = without_view(output.data)
            data = {kind: content for kind, content in still.items() if kind not in skip}
            if any(kind in PICTURES for kind in output.data) and OBJECT.fullmatch(
                data.get("text/plain", "")
            ):
                del data["text/plain"]
            if output.data and not data:
                continue
            output = NotebookNode(output, data=NotebookNode(data))
        left.append(output)
    return left


def without_view(data: Mapping) -> dict:
    """Return an output's data without a live widget's view if another representation remains.

    The view refers to a model in the kernel that created it, so it is useless in a stored notebook.
    JupyterLab would show an error instead of falling back to another representation. Plain text
    that only names an object, such as `<Widget at 0x7f…>`, is not regarded as a representation.
    """
    still = {kind: content for kind, content in data.items() if kind != VIEW}
    named = set(still) <= {"text/plain"} and OBJECT.fullmatch(still.get("text/plain", "<>"))
    return dict(data) if named else still


def compare_data(
    kind: str, stored: NotebookNode, computed: NotebookNode, rules: Rules
) -> Comparison:
    """Compare the data of two outputs for a MIME type other than `text/plain`."""
    if kind in PICTURES:
        return compare_pictures(kind, stored[kind], computed[kind], rules)
    if kind not in ("text/html", "text/markdown"):
        return compare_text(rich_text(kind, stored[kind]), rich_text(kind, computed[kind]), rules)
    result = compare_embedded(stored[kind], computed[kind], rules)
    if kind == "text/html" and all(plain_has_numbers(data) for data in (stored, computed)):
        rules = replace(rules, seeded=False)  # the numbers are compared in the plain text
    texts = (rich_text(kind, without_pictures(data[kind])) for data in (stored, computed))
    result += compare_text(*texts, rules)
    return result


def without_pictures(text: str) -> str:
    """Return HTML or Markdown with a placeholder for each picture."""
    return EMBEDDED.sub(lambda one: '<img src="data:">' if one["svg"] else "data:", text)


def compare_embedded(stored: str, computed: str, rules: Rules) -> Comparison:
    """Compare the pictures inside two HTML or Markdown texts; their number and types must match."""
    old, new = (list(EMBEDDED.finditer(text)) for text in (stored, computed))
    kinds = [[one["kind"] or SVG for one in found] for found in (old, new)]
    if kinds[0] != kinds[1]:
        listed = [", ".join(names) or "none" for names in kinds]
        return Comparison([Difference("the pictures in the text differ", *listed)])
    result = Comparison()
    for kind, one, other in zip(kinds[0], old, new, strict=True):
        pair = (match["svg"] or match["data"] for match in (one, other))
        result += compare_pictures(kind, *pair, rules)
    return result


def plain_has_numbers(data: NotebookNode) -> bool:
    """Return whether an output's plain text contains all numbers in its HTML, as tables do."""
    plain, html = (
        Counter(match["number"] for match in numbers_of(rendered(text)))
        for text in (
            data.get("text/plain", ""),
            html_text(without_pictures(data["text/html"])),
        )
    )
    return html <= plain


def compare_pictures(kind: str, stored: str, computed: str, rules: Rules) -> Comparison:
    """Compare two pictures, in base64 or SVG. If base64 pictures differ, draw the difference."""
    if not rules.figures:
        return Comparison()
    how = {
        "trained": rules.phase in (Phase.FIT, Phase.TRAINED),
        "wider": rules.wider.get("figure", 1.0),
    }
    if kind == SVG:
        drawings = (
            one if "<" in one else decoded(one).decode("utf-8", "replace")
            for one in (stored, computed)
        )
        verdict = compare_svg(*drawings, rules, **how)
        return Comparison(verdict.differences, [head_room(verdict.used)])
    old, new = decoded(stored), decoded(computed)
    verdict = compare_figures(old, new, **how)
    if verdict.what is None:
        return Comparison(numbers=[head_room(verdict.used)])
    difference = Difference(
        f"the figure differs: {verdict.what}", "a figure", "another figure", "figure"
    )
    return Comparison([difference], [head_room(verdict.used)], [side_by_side(old, new, **how)])


def head_room(used: float) -> Number:
    """Return a `Number` that records how much of its tolerance a figure used."""
    return Number(0, "figure", "the figure", "another", used, 1.0)


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join adjacent chunks of a stream, because the kernel splits streams at arbitrary points."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == "stream" and describe(merged[-1]) == describe(output):
            merged[-1] = NotebookNode(merged[-1], text=merged[-1].text + output.text)
        else:
            merged.append(output)
    return merged


def by_stream(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join adjacent stream outputs into one stdout output followed by one stderr output."""
    joined: list[NotebookNode] = []
    for streams, run in groupby(outputs, lambda output: output.output_type == "stream"):
        found = list(run)
        joined += merge_streams(sorted(found, key=describe, reverse=True)) if streams else found
    return joined


def describe(output: NotebookNode) -> str:
    """Return the kind of an output, such as `stdout` or `display_data: image/png`."""
    if output.output_type == "stream":
        return output.name
    if output.output_type == "error":
        return f"error: {output.ename}"
    return f"{output.output_type}: {', '.join(sorted(output.data))}"


def outline(outputs: list[NotebookNode]) -> str:
    """Return a message that lists the kind and text of each output."""
    return "; ".join(f"{describe(o)} {text_of(o).strip()[:200]!r}" for o in outputs) or "nothing"


def text_of(output: NotebookNode) -> str:
    """Return the text of a stream, the message of an error, or the plain text of a result."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return output.evalue
    return output.data.get("text/plain", "")


def alt_text(output: NotebookNode, kind: str) -> str:
    """Return the alternative text of a picture, or an empty string if there is none."""
    return str(output.get("metadata", {}).get(kind, {}).get("alt", ""))


def rich_text(kind: str, content: str | dict | list) -> str:
    """Return the text to compare for a MIME type other than plain text, or an empty string."""
    if kind == "text/html":
        return html_text(content)
    if kind in ("text/markdown", "text/latex"):
        return content
    if kind.endswith("json") and not kind.startswith(WIDGET):
        return json.dumps(content, indent=1, sort_keys=True)
    return ""


class _Text(HTMLParser):
    """Collects the text in HTML, with a line for each table row and a bar before each cell."""

    def __init__(self):
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("style", "script")
        if tag in ("tr", "br", "p", "div", "li", "table", "h1", "h2", "h3"):
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" │ ")  # The bar also marks empty cells.
        elif tag == "img":  # Data URLs are not compared here, but other URLs must match.
            source = dict(attrs).get("src") or ""
            self.parts.append(" picture " + ("" if source.startswith("data:") else source))

    def handle_endtag(self, tag):
        if tag in ("style", "script"):
            self.hidden = max(self.hidden - 1, 0)

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def html_text(html: str) -> str:
    """Return the text that a reader sees in a piece of HTML, without styles and scripts."""
    parser = _Text()
    parser.feed(html)
    parser.close()  # flush text that ends in an unfinished entity, such as `R&D`
    lines = (line.strip() for line in "".join(parser.parts).splitlines())
    return "\n".join(line for line in lines if line)

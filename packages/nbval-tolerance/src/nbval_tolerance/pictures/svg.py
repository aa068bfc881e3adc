"""Does a new SVG show the same as the stored one? Pure functions of two texts.

What a reader sees is compared: the words, the shapes in their order, colours and coordinates. Names
(`id`) count only as far as they are referred to, as Matplotlib draws them by chance; its metadata
hold a date and are left out. Coordinates may differ by rounding and, where a network was trained,
by as many pixels as a curve in a PNG figure. Lines are the same if no point of the one is farther
from the other than that, because Matplotlib leaves out points between which a line is straight.

What cannot be read, is very long or declares entities, is compared as it is written.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import inf, sqrt
from xml.etree import ElementTree

import numpy as np

from nbval_tolerance.compare import Difference, Phase, Rules, compare_text
from nbval_tolerance.pictures.figures import REACH, compare_figures

LONGEST = 5_000_000  # characters; a scatter plot of 10,000 points has a million
DEEPEST = 200  # elements within one another
POINTS = 4_000_000  # pairs of a point and a line that are measured for one path

# In pixels: float32 rounding moves a point by 2e-5 of a figure, a trained curve as in a PNG figure.
ROUNDING, MOVED = 0.05, REACH
SHADE = {False: 1, True: 16}  # of 255 levels of a colour; trained: one step of 16 in a colour map
UNKNOWN = 500  # pixels that a drawing is taken to be wide if it does not say so

PLACES = {"d", "points", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry", "dx", "dy"}
PLACES |= {"width", "height", "viewBox", "transform"}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
TOKEN = re.compile(rf"(?P<colour>#(?:[0-9a-fA-F]{{6}}|[0-9a-fA-F]{{3}})\b)|(?P<number>{NUMBER})")
FUNCTION = re.compile(r"(\w+)\s*\(([^)]*)\)")
STRAIGHT = re.compile(r"\s*M[^A-Za-z]*(?:L[^A-Za-z]*)*\s*")  # one line, in absolute coordinates
EMBEDDED = re.compile(r"data:image/[\w.+-]+;base64,(.*)", re.DOTALL)


class UnreadableError(ValueError):
    """The text is no SVG that can be compared as a drawing."""


@dataclass(frozen=True)
class Shape:
    """One element of a drawing.

    Attributes
    ----------
    tag, values
        What it is, and what it says of itself: attribute -> value.
    where
        The nearest name around it.
    scale
        How many pixels one unit of its coordinates is.
    defined
        Whether it is only defined here, to be drawn elsewhere.
    glyph
        Whether it draws letters, whose text is known.
    """

    tag: str = ""
    values: dict[str, str] = field(default_factory=dict)
    where: str = ""
    scale: float = 1.0
    defined: bool = False
    glyph: bool = False


@dataclass(frozen=True)
class SvgComparison:
    """Whether two SVGs agree: the share of the tolerance that was used, and what differs."""

    used: float
    differences: list[Difference]


def compare_svg(
    stored: str, computed: str, rules: Rules, *, trained: bool, wider: float = 1.0
) -> SvgComparison:
    """Compare two SVG documents.

    Parameters
    ----------
    stored, computed
        The SVG in the notebook, and what its cell draws now.
    rules
        How strictly its words are compared: as before any training.
    trained
        Whether the drawing's data come from a trained network: they move from machine to machine.
    wider
        How many times as far as usual coordinates may then move.

    Returns
    -------
    SvgComparison
        Never raises: what cannot be read is the same if it is written the same.
    """
    if stored == computed:
        return SvgComparison(0.0, [])
    try:
        (old, old_words, old_by), (new, new_words, new_by) = map(read, (stored, computed))
    except UnreadableError as error:
        what = f"the SVG differs as it is written ({error})"
        return SvgComparison(inf, [Difference(what, *excerpts(stored, computed), "figure")])
    words = compare_text(
        "\n".join(old_words), "\n".join(new_words), replace(rules, phase=Phase.UNTRAINED)
    )
    if words.differences:
        what = "a text in the SVG differs"
        found = [replace(one, what=what, about="figure") for one in words.differences]
        return SvgComparison(inf, found)
    if old_by != new_by:  # whose letters may have other outlines
        old, new = ([one for one in shapes if not one.glyph] for shapes in (old, new))
    moves = trained or old_by != new_by
    allowed = MOVED * (wider if trained else 1) if moves else ROUNDING
    return compare_shapes(old, new, allowed, moves)


def compare_shapes(
    old: list[Shape], new: list[Shape], allowed: float, moves: bool
) -> SvgComparison:
    """Compare the shapes of two drawings whose words agree, in order."""
    counts = [Counter(one.tag for one in shapes) for shapes in (old, new)]
    if counts[0] != counts[1]:
        pairs = ((tag, counts[0][tag], counts[1][tag]) for tag in sorted(counts[0] | counts[1]))
        listed = ", ".join(f"{a} <{tag}> became {b}" for tag, a, b in pairs if a != b)
        first = next((a, b) for a, b in zip_longest(old, new) if not a or not b or a.tag != b.tag)
        what = f"the shapes in the SVG differ: {listed}; the first that differs"
        return SvgComparison(inf, [Difference(what, *map(described, first), "figure")])
    used, worst, count = 0.0, None, 0
    for one, other in zip(old, new, strict=True):
        for name in sorted({"tag", *one.values, *other.values}):
            pair = (one.values.get(name), other.values.get(name))
            if name == "tag":
                pair = (one.tag, other.tag)
            share = compare_values(name, *pair, one, allowed, moves) if pair[0] != pair[1] else 0.0
            count += share > 1
            if share > max(used, 1):
                what = f"the {name} of {described(one)}"
                if share < inf and name in PLACES and name != "transform" and not one.defined:
                    what += f" by {share * allowed:.2g} pixels, of which {allowed:g} are allowed"
                worst = Difference(what, *excerpts(*pair), "figure")
            used = max(used, share)
    if worst is None:
        return SvgComparison(used, [])
    what = f"the SVG differs in {count} of its shapes' values, most in {worst.what}"
    return SvgComparison(used, [replace(worst, what=what)])


def described(shape: Shape | None) -> str:
    """Return what a shape is and where, for a message."""
    if shape is None:
        return "nothing"
    return f"<{shape.tag}>" + (f" in {shape.where!r}" if shape.where else "")


def excerpts(old: str | None, new: str | None) -> list[str]:
    """Return two values from a little before the place where they begin to differ."""
    texts = [" ".join(one.split()) if one is not None else "nothing" for one in (old, new)]
    if all(map(EMBEDDED.fullmatch, texts)):
        return ["a picture", "another picture"]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((n for n, (one, other) in pairs if one != other), min(map(len, texts)))
    start = max(same - 30, 0)
    return [
        "… " * (start > 0) + one[start : start + 200] + " …" * (len(one) > start + 200)
        for one in texts
    ]


def read(svg: str) -> tuple[list[Shape], list[str], str]:
    """Return a drawing's shapes and words, in order, and the Matplotlib that drew it.

    Raises
    ------
    UnreadableError
        If it is no XML, or so large or deep that reading it may take very long.
    """
    if len(svg) > LONGEST:
        raise UnreadableError(f"it has {len(svg):,} characters")
    if "<!ENTITY" in svg:
        raise UnreadableError("it declares entities")
    if "xlink:" in svg and "xmlns:xlink" not in svg:  # as inside HTML
        svg = svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
    builder = ElementTree.TreeBuilder(insert_comments=True)
    try:
        # No entity is declared, so that none can grow.
        parser = ElementTree.XMLParser(target=builder, encoding="utf-8")  # noqa: S314
        root = ElementTree.fromstring(svg.strip().encode("utf-8", "replace"), parser)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as error:
        raise UnreadableError(f"it is no XML: {error}") from error
    drawing = Drawing({one.get("id"): str(n) for n, one in enumerate(root.iter())})
    drawing.add(root, Shape(), 0)
    drawn = re.search(r"Matplotlib v(\d+\.\d+)", svg)
    return drawing.shapes, drawing.words, drawn[1] if drawn else ""


class Drawing:
    """Collects shapes and words; `names` holds what each `id` is replaced by."""

    def __init__(self, names: dict[str | None, str]):
        self.names = names
        self.shapes: list[Shape] = []
        self.words: list[str] = []

    def add(self, element: ElementTree.Element, around: Shape, depth: int) -> None:
        """Add an element and what is in it."""
        if depth > DEEPEST:
            raise UnreadableError(f"more than {DEEPEST} elements stand within one another")
        tag = local(element.tag)
        if tag == "metadata":
            return
        values = {local(k): self.renamed(v) for k, v in element.items() if local(k) != "id"}
        title = next((one.text for one in element if local(one.tag) == "title"), None)
        shape = Shape(
            tag,
            values,
            (tag == "g" and (title or element.get("id"))) or around.where,
            around.scale * scale_of(values),
            tag in ("defs", "marker", "symbol") or (around.defined and tag != "clipPath"),
            around.glyph,
        )
        self.shapes.append(shape)
        if tag in ("style", "script"):
            values["text"] = self.renamed(element.text or "")
            return
        self.say(element.text)
        text = None  # the comment before a group of glyphs, by Matplotlib
        for child in element:
            if child.tag is ElementTree.Comment:
                text = child.text
            elif text and any(local(one.tag) == "use" for one in child.iter()):
                self.say(text)
                self.add(child, replace(shape, glyph=True), depth + 1)
                text = None
            else:
                self.add(child, shape, depth + 1)
                text = None
            self.say(child.tail)

    def say(self, text: str | None) -> None:
        """Add words, if there are any, as one line."""
        if text and text.strip():
            self.words.append(" ".join(text.split()))

    def renamed(self, value: str) -> str:
        """Return a value with the names that it refers to replaced by their numbers."""
        return re.sub(
            r"#([^\s\"'(){},;.]+)", lambda match: "#" + self.names.get(match[1], match[1]), value
        )


def local(name: str) -> str:
    """Return the name of an element or attribute without its namespace; empty for a comment."""
    return name.rpartition("}")[2] if isinstance(name, str) else ""


def scale_of(values: dict[str, str]) -> float:
    """Return by how much an element's `viewBox` and `transform` scale what is inside it."""
    scale = 1.0
    box = numbers(values.get("viewBox", ""))
    if len(box) == 4 and box[2] > 0:
        wide = re.fullmatch(rf"\s*({NUMBER})\s*(?:px|pt)?\s*", values.get("width", ""))
        scale *= (float(wide[1]) if wide else UNKNOWN) / box[2]
    for name, text in FUNCTION.findall(values.get("transform", "")):
        by = numbers(text)
        if name == "scale" and by:
            scale *= sqrt(abs(by[0] * by[-1]))
        elif name == "matrix" and len(by) == 6:
            scale *= sqrt(abs(by[0] * by[3] - by[1] * by[2]))
    return scale


def numbers(text: str) -> list[float]:
    """Return the numbers in a text."""
    return [float(number) for number in re.findall(NUMBER, text)]


def compare_values(
    name: str, old: str | None, new: str | None, shape: Shape, allowed: float, moves: bool
) -> float:
    """Return by how much two values of an attribute differ, as a share of what is allowed.

    Parameters
    ----------
    name
        The attribute.
    old, new
        Its values; None where it is missing.
    shape
        The stored shape that has it.
    allowed
        How far coordinates may move, in pixels.
    moves
        Whether the data of the drawing are those of a trained network.
    """
    if old is None or new is None:
        return inf
    pictures = [EMBEDDED.fullmatch(value.strip()) for value in (old, new)]
    if all(pictures):
        files = [decoded(picture[1]) for picture in pictures]
        return compare_figures(*files, trained=moves).used
    far = allowed / max(shape.scale, 1e-9) if name in PLACES and not shape.defined else 0.0
    share = inf
    if TOKEN.sub("§", old) == TOKEN.sub("§", new):
        share = max(
            (
                moved(one, other, may, moves)
                for (one, may), (other, _) in zip(
                    tokens(name, old, far), tokens(name, new, far), strict=True
                )
            ),
            default=0.0,
        )
    if share > 1 and name == "d" and far and all(map(STRAIGHT.fullmatch, (old, new))):
        share = min(share, apart(vertices(old), vertices(new)) / far)
    return share


def tokens(name: str, value: str, far: float) -> Iterator[tuple[str, float]]:
    """Yield each colour and number of a value, and by how much that number may differ."""
    if name != "transform":
        yield from ((match[0], far) for match in TOKEN.finditer(value))
        return
    for function, text in FUNCTION.findall(value):
        first = {"translate": 0, "rotate": 1, "matrix": 4}.get(function, inf)
        for number, match in enumerate(TOKEN.finditer(text)):
            yield match[0], far if number >= first else 0.0


def moved(old: str, new: str, far: float, moves: bool) -> float:
    """Return by how much two colours or numbers differ, as a share of what is allowed."""
    if old == new:
        return 0.0
    if "#" in old + new:
        if not (old[0] == new[0] == "#" and len(old) == len(new) == 7):
            return inf
        shades = [np.frombuffer(bytes.fromhex(one[1:]), np.uint8).astype(int) for one in (old, new)]
        return float(abs(shades[0] - shades[1]).max() / SHADE[moves])
    one, other = float(old), float(new)
    return abs(one - other) / max(far, 1e-4 + 1e-4 * abs(one))


def vertices(path: str) -> np.ndarray:
    """Return the points of a straight path, (n, 2)."""
    found = numbers(path)
    return np.array(found[: len(found) // 2 * 2]).reshape(-1, 2)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the greatest distance of a point of one line, (n, 2), from the other line."""
    if min(len(one), len(other)) < 2 or len(one) * len(other) > POINTS:
        return inf
    farthest = 0.0
    for points, line in ((one, other), (other, one)):
        start, along = line[:-1], np.diff(line, axis=0)
        to = points[:, None] - start
        length = np.maximum((along**2).sum(axis=1), 1e-12)
        part = np.clip((to * along).sum(axis=2) / length, 0, 1)
        nearest = np.hypot(*np.moveaxis(to - part[..., None] * along, 2, 0)).min(axis=1)
        farthest = max(farthest, float(nearest.max()))
    return farthest


def decoded(text: str) -> bytes:
    """Return the bytes that base64 stands for; none if it is not well formed."""
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""

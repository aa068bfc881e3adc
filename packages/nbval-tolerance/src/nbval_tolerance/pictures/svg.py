"""Decide whether a new SVG matches the stored one. Pure functions.

The comparison covers what a reader sees: the words, the shapes in their order, the colours and the
coordinates. An `id` matters only if another element refers to it, because Matplotlib generates ids
at random. Matplotlib's metadata contains a date and is ignored. Coordinates may differ by rounding
errors. Once a network has been trained, coordinates may differ by as many pixels as a curve may
move in a PNG figure. Lines are not compared point by point, because Matplotlib omits points on
straight parts of a line. Two lines match if every point of each line is close enough to the other
line.

An SVG is compared character by character if it cannot be parsed, is very long or declares entities.
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

LONGEST = 5_000_000  # in characters; a scatter plot of 10,000 points has a million
DEEPEST = 200  # nested elements
POINTS = 4_000_000  # The maximum number of point-line pairs to measure for one path.

# How far a point may move, in pixels. Float32 rounding moves a point by 2e-5 of a figure's size.
# After training, a curve may move as far as in a PNG figure.
ROUNDING, MOVED = 0.05, REACH
SHADE = {False: 1, True: 16}  # Levels of 255. One step of a colour map can span 16 levels.
UNKNOWN = 500  # The assumed width in pixels of a drawing that does not state its width.

PLACES = {"d", "points", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry", "dx", "dy"}
PLACES |= {"width", "height", "viewBox", "transform"}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
TOKEN = re.compile(rf"(?P<colour>#(?:[0-9a-fA-F]{{6}}|[0-9a-fA-F]{{3}})\b)|(?P<number>{NUMBER})")
FUNCTION = re.compile(r"(\w+)\s*\(([^)]*)\)")
STRAIGHT = re.compile(r"\s*M[^A-Za-z]*(?:L[^A-Za-z]*)*\s*")  # one polyline in absolute coordinates
EMBEDDED = re.compile(r"data:image/[\w.+-]+;base64,(.*)", re.DOTALL)


class UnreadableError(ValueError):
    """The text is not an SVG drawing, or is too complex to parse."""


@dataclass(frozen=True)
class Shape:
    """One element of a drawing.

    Attributes
    ----------
    tag, values
        The element's tag, and its attributes: attribute -> value.
    where
        The name of the nearest enclosing element that has a name.
    scale
        The size of one coordinate unit in pixels.
    defined
        Whether the element is only a definition, which other elements refer to.
    glyph
        Whether the element draws letters whose text is known.
    """

    tag: str = ""
    values: dict[str, str] = field(default_factory=dict)
    where: str = ""
    scale: float = 1.0
    defined: bool = False
    glyph: bool = False


@dataclass(frozen=True)
class SvgComparison:
    """The result of comparing two SVGs: the share of the tolerance used, and the differences."""

    used: float
    differences: list[Difference]


def compare_svg(
    stored: str, computed: str, rules: Rules, *, trained: bool, wider: float = 1.0
) -> SvgComparison:
    """Compare two SVG documents.

    Parameters
    ----------
    stored, computed
        The SVG stored in the notebook, and the SVG that its cell draws now.
    rules
        How strictly to compare the words in the SVG; their phase is always `UNTRAINED`.
    trained
        Whether the drawing's data come from a trained network and thus vary between machines.
    wider
        The factor that multiplies the distance by which coordinates may move after training.

    Returns
    -------
    SvgComparison
        This function never raises an exception. Unreadable SVGs match only if their texts are
        identical.
    """
    if stored == computed:
        return SvgComparison(0.0, [])
    try:
        (old, old_words, old_by), (new, new_words, new_by) = map(read, (stored, computed))
    except UnreadableError as error:
        what = f"the text of the SVG differs ({error})"
        return SvgComparison(inf, [Difference(what, *excerpts(stored, computed), "figure")])
    words = compare_text(
        "\n".join(old_words), "\n".join(new_words), replace(rules, phase=Phase.UNTRAINED)
    )
    if words.differences:
        what = "a text in the SVG differs"
        found = [replace(one, what=what, about="figure") for one in words.differences]
        return SvgComparison(inf, found)
    if old_by != new_by:  # another Matplotlib version may draw letters differently
        old, new = ([one for one in shapes if not one.glyph] for shapes in (old, new))
    moves = trained or old_by != new_by
    allowed = MOVED * (wider if trained else 1) if moves else ROUNDING
    return compare_shapes(old, new, allowed, moves)


def compare_shapes(
    old: list[Shape], new: list[Shape], allowed: float, moves: bool
) -> SvgComparison:
    """Compare the shapes of two drawings, in order. Their words already match."""
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
    """Describe a shape and its location for a message."""
    if shape is None:
        return "nothing"
    return f"<{shape.tag}>" + (f" in {shape.where!r}" if shape.where else "")


def excerpts(old: str | None, new: str | None) -> list[str]:
    """Return excerpts of two values, starting shortly before their first difference."""
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
    """Return a drawing's shapes and words, in order, and the version of Matplotlib that drew it.

    Raises
    ------
    UnreadableError
        If the text is not XML, declares entities, or is so large or deeply nested that parsing it
        could take very long.
    """
    if len(svg) > LONGEST:
        raise UnreadableError(f"it has {len(svg):,} characters")
    if "<!ENTITY" in svg:
        raise UnreadableError("it declares entities")
    if "xlink:" in svg and "xmlns:xlink" not in svg:  # SVGs in HTML may omit it
        svg = svg.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
    # The standard parser is safe, because the SVG declares no entities that could expand.
    builder = ElementTree.TreeBuilder(insert_comments=True)
    try:
        parser = ElementTree.XMLParser(target=builder, encoding="utf-8")  # noqa: S314
        root = ElementTree.fromstring(svg.strip().encode("utf-8", "replace"), parser)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as error:
        raise UnreadableError(f"it is not valid XML: {error}") from error
    drawing = Drawing({one.get("id"): str(n) for n, one in enumerate(root.iter())})
    drawing.add(root, Shape(), 0)
    drawn = re.search(r"Matplotlib v(\d+\.\d+)", svg)
    return drawing.shapes, drawing.words, drawn[1] if drawn else ""


class Drawing:
    """Collects shapes and words. `names` maps each `id` to its replacement."""

    def __init__(self, names: dict[str | None, str]):
        self.names = names
        self.shapes: list[Shape] = []
        self.words: list[str] = []

    def add(self, element: ElementTree.Element, around: Shape, depth: int) -> None:
        """Add the shapes and words of an element and its descendants."""
        if depth > DEEPEST:
            raise UnreadableError(f"more than {DEEPEST} elements are nested")
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
        text = None  # Matplotlib's comment before a group of glyphs
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
        """Add a text as one line, unless it is blank."""
        if text and text.strip():
            self.words.append(" ".join(text.split()))

    def renamed(self, value: str) -> str:
        """Return a value with the ids in its references replaced by numbers."""
        return re.sub(
            r"#([^\s\"'(){},;.]+)", lambda match: "#" + self.names.get(match[1], match[1]), value
        )


def local(name: str) -> str:
    """Return the name of an element or attribute without its namespace, or "" for a comment."""
    return name.rpartition("}")[2] if isinstance(name, str) else ""


def scale_of(values: dict[str, str]) -> float:
    """Return the factor by which an element's `viewBox` and `transform` scale its contents."""
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
    """Return an attribute's change as a share of the allowed change.

    Parameters
    ----------
    name
        The name of the attribute.
    old, new
        The values of the attribute; None if the attribute is missing.
    shape
        The stored shape that has the attribute.
    allowed
        How far coordinates may move, in pixels.
    moves
        Whether the shapes may move, because of training or another version of Matplotlib.
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
    """Yield each colour and number in an attribute's value, and how much each may differ."""
    if name != "transform":
        yield from ((match[0], far) for match in TOKEN.finditer(value))
        return
    for function, text in FUNCTION.findall(value):
        first = {"translate": 0, "rotate": 1, "matrix": 4}.get(function, inf)
        for number, match in enumerate(TOKEN.finditer(text)):
            yield match[0], far if number >= first else 0.0


def moved(old: str, new: str, far: float, moves: bool) -> float:
    """Return how much a colour or number changed, as a share of the allowed change."""
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
    """Return the points of a path of straight lines as an (n, 2) array."""
    found = numbers(path)
    return np.array(found[: len(found) // 2 * 2]).reshape(-1, 2)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return the greatest distance between a point of either (n, 2) line and the other line."""
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
    """Return the bytes that a base64 text encodes, or no bytes if the text is malformed."""
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""

"""Does a new picture show the same as the stored one? Pure functions of two PNG files.

Pictures are compared in blocks of 8 by 8 pixels. A pixel agrees if its colour lies within those of
its neighbours, one pixel around, in the other picture: so an edge may be smoothed otherwise or
snap to the next pixel, but nothing may come, go or change its colour. All blocks must agree.

Where that is too strict, because a network was trained or another Matplotlib has drawn the text, a
block also agrees if it is found again nearby. A small patch may then still differ: between the
spines of a trained figure as much as a point that has moved (titles, labels and ticks may not
differ); by another Matplotlib as much as a box that has grown with its text.

What this cannot tell: a small square marker from a round one of the same size. In a trained figure
also what moved by up to 8 pixels, a line style, a small marker, a point far from its old place, and
a short word inside the axes, as in a legend. Between two Matplotlibs also a word, a thin line or a
small part. The numbers behind a figure are printed and compared as text.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot, inf

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

BLOCK = 8  # pixels; a letter of a 10-point label is about as large

# How far a block's pixels may lie outside their neighbours' colours, on average, of 255 levels.
# Lessons 01 to 06 on four instruction-set and thread variants: 1.4, but for figure 06-17, whose
# points move. The least of 57 changed figures that could be told: 12.7, one digit of a title.
LEVELS = 6

# Within how many pixels a block is looked for. Matplotlib 3.10 draws the x label of figure 03-23
# 7 pixels lower than 3.11; across the variants, the band of figure 06-17 moved by 6.
REACH = 8

# If more of the blocks differ it is another picture, and nothing is looked for, which takes time.
# Between Matplotlib 3.10 and 3.11 up to .39 did, in a wall of photographs half a pixel farther on.
SEARCHED = 1 / 2

# How much a block that was found nearby may differ there, surroundings included, on average, in
# levels: by one Matplotlib (a moved curve like lesson 05's: up to 5.9, a changed word: 9 and more)
# and by two (all figures of the lessons but one: up to 16.6; FreeType draws other strokes).
FOUND = {"same": 6, "other": 20}
CONTEXT = 16  # side of a block with its surroundings: two letters tell more than one
BLUR = 1.2  # standard deviation in pixels; unblurred, other strokes differ by up to 47 levels

# How many touching blocks may differ inside the axes of a trained figure: a point of figure 06-17
# that moved past the mean's line made 12; a changed curve, bar or image 24 and more. And anywhere
# in a figure by another Matplotlib: the boxes of figure 02-34 made 5, an added line 19.
PATCH = {"trained": 16, "other": 8}

# How long a straight dark line must be to pass for a spine, in pixels: no stroke of a letter is.
SPINE = 40
TICK = 8  # how far a tick at its end may stick out

# How large a picture may be: a hundred times the largest in lessons 01 to 06.
PIXELS = 30_000_000


class UnreadableError(ValueError):
    """The bytes are no PNG or JPEG file, or not a whole one."""


@dataclass(frozen=True)
class FigureComparison:
    """Whether two pictures agree.

    Attributes
    ----------
    used
        The share of the tolerance that was used: 1 is its limit, infinity means not comparable.
    what
        Why they differ, with the place in the picture; None if they agree.
    """

    used: float
    what: str | None


def compare_figures(
    stored: bytes, computed: bytes, *, trained: bool, wider: float = 1.0
) -> FigureComparison:
    """Compare two PNG files.

    Parameters
    ----------
    stored, computed
        The picture in the notebook, and what its cell draws now.
    trained
        Whether the figure's data come from a trained network: they move from machine to machine.
    wider
        How many times as far as usual blocks inside the axes may differ from what is nearby.

    Returns
    -------
    FigureComparison
        Never raises: what cannot be read is a difference.
    """
    pictures = []
    for name, data in {"stored": stored, "computed": computed}.items():
        try:
            pictures.append(read(data))
        except UnreadableError as error:
            return FigureComparison(inf, f"the {name} picture cannot be read: {error}")
    old, new = pictures
    other = drawn_by(old) != drawn_by(new)
    moved = max(abs(old.width - new.width), abs(old.height - new.height))
    if moved > (REACH if trained or other else 1):
        what = f"the size was {old.width} by {old.height} pixels and is {new.width} by {new.height}"
        return FigureComparison(inf, what)
    excess = differences(old, new, trained=trained, wider=wider)
    allowed = np.full(excess.shape, PATCH["other"] if other else 0)
    if trained:
        allowed[inside_axes(same_canvas(old, new)[0])] = PATCH["trained"]
    return max(
        (judge(excess, allowed, n) for n in set(allowed.ravel().tolist())), key=lambda one: one.used
    )


def judge(excess: np.ndarray, allowed: np.ndarray, patch: int) -> FigureComparison:
    """Judge that part of a figure where patches of so many blocks may differ."""
    excess = np.where(allowed == patch, excess, 0)
    if patch:
        largest = max(patches(excess > 1), key=len, default=[])
        used = len(largest) / patch
        row, column = np.mean(largest, axis=0) if largest else (0, 0)
        how = f"in a patch of {len(largest)} blocks, of which {patch} are allowed"
    else:
        used = float(excess.max())
        row, column = np.unravel_index(excess.argmax(), excess.shape)
        how = f"by {used:.1f} times what is allowed"
    if used <= 1:
        return FigureComparison(used, None)
    count = f"{(excess > 1).sum()} of {excess.size} blocks differ"
    return FigureComparison(used, f"{count}, most {place(row, column, excess.shape)}, {how}")


def place(row: float, column: float, shape: tuple[int, ...]) -> str:
    """Name a block's place: a ninth of the picture, and pixels from the upper left corner."""
    vertical = ("upper", "middle", "lower")[int(3 * row / shape[0])]
    horizontal = ("left", "centre", "right")[int(3 * column / shape[1])]
    x, y = (int(BLOCK * (at + 0.5)) for at in (column, row))
    return f"in the {vertical} {horizontal} (x {x}, y {y})"


def read(data: bytes) -> Image.Image:
    """Decode a PNG or JPEG file to RGB, on white; raise UnreadableError if it is none."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as picture:
            if picture.width * picture.height > PIXELS:
                raise UnreadableError(f"{picture.width} by {picture.height} pixels are too many")
            coloured = picture.convert("RGBA")
    except UnreadableError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error …
        raise UnreadableError("it is no whole PNG or JPEG file") from error
    white = Image.new("RGBA", coloured.size, "white")
    white.alpha_composite(coloured)
    result = white.convert("RGB")
    result.info = picture.info
    return result


def drawn_by(picture: Image.Image) -> str:
    """Return the minor version of the Matplotlib that drew a picture, as 3.11, or nothing."""
    software = str(picture.info.get("Software", ""))
    return ".".join(software.partition(",")[0].split(".")[:2])


def same_canvas(old: Image.Image, new: Image.Image) -> list[Image.Image]:
    """Return both pictures, filled up with white to the same whole number of blocks."""
    size = [-(-max(pair) // BLOCK) * BLOCK for pair in zip(old.size, new.size, strict=True)]
    canvases = [Image.new("RGB", size, "white") for _ in range(2)]
    for canvas, picture in zip(canvases, (old, new), strict=True):
        canvas.paste(picture)
    return canvases


def differences(
    old: Image.Image, new: Image.Image, *, trained: bool, wider: float = 1.0
) -> np.ndarray:
    """Return by how much each block differs, as a share of what is allowed.

    Returns
    -------
    numpy.ndarray
        Float, (rows, columns) of blocks. Pictures of different sizes start in the same corner.
    """
    one, other = same_canvas(old, new)
    if ImageChops.difference(one, other).getbbox() is None:
        return np.zeros((one.height // BLOCK, one.width // BLOCK))
    pixels, others = np.asarray(one), np.asarray(other)
    outside = np.maximum(outside_neighbours(pixels, others), outside_neighbours(others, pixels))
    height, width = outside.shape
    cut = outside.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    excess = cut.mean(axis=(1, 3)) / LEVELS
    same = drawn_by(old) == drawn_by(new)
    if trained or not same:
        limit = FOUND["same" if same else "other"]
        blocks = np.argwhere(excess > 0.5)
        if len(blocks) > SEARCHED * excess.size:
            return excess
        away = [best_match(*pair, blocks, limit) for pair in ((one, other), (other, one))]
        limits = np.full(excess.shape, float(limit))
        limits[inside_axes(one)] *= wider
        at = tuple(blocks.T)
        excess[at] = np.minimum(excess[at], np.maximum(*away) / limits[at])
    return excess


def outside_neighbours(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how far each pixel of `one` is from the colours around it in `other`, 0 to 255."""
    low, high = around(other, np.minimum), around(other, np.maximum)
    below, above = (np.maximum(a, b) - b for a, b in ((low, one), (one, high)))
    return np.maximum(below, above).max(axis=2)


def around(pixels: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """Return for each pixel and colour the least or greatest of its 3 by 3 neighbourhood."""
    for axis in (0, 1):
        before, after = (np.roll(pixels, step, axis) for step in (1, -1))
        pixels = choose(choose(before, after), pixels)
    return pixels


def best_match(one: Image.Image, other: Image.Image, blocks: np.ndarray, good: float) -> np.ndarray:
    """Return how much blocks of `one` differ from the most similar place nearby in `other`.

    Parameters
    ----------
    blocks
        (n, 2) rows and columns.
    good
        A block is looked for until it differs by less than half of this.

    Returns
    -------
    numpy.ndarray
        (n,) mean absolute differences of the blurred surroundings, in levels.
    """
    border = REACH + (CONTEXT - BLOCK) // 2
    windows = []
    for picture in (one, other):
        blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(BLUR)), dtype=np.int16)
        framed = np.pad(blurred, [(border, border)] * 2 + [(0, 0)], constant_values=255)
        # Blurred, every other pixel says it all.
        windows.append(sliding_window_view(framed, (CONTEXT, CONTEXT), (0, 1))[..., ::2, ::2])
    rows, columns = (BLOCK * blocks + REACH).T
    wanted = windows[0][rows, columns]
    best = np.full(len(blocks), inf)
    steps = [(y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1)]
    for y, x in sorted(steps, key=lambda step: hypot(*step)):
        left = np.flatnonzero(best > good / 2)
        if not len(left):
            break
        found = windows[1][rows[left] + y, columns[left] + x]
        best[left] = np.minimum(best[left], abs(found - wanted[left]).mean(axis=(1, 2, 3)))
    return best


def inside_axes(picture: Image.Image) -> np.ndarray:
    """Return which blocks lie inside axes: those between a left and a bottom spine that meet.

    Dark pictures and bars inside the axes may look like spines, too, which adds nothing. Axes
    without dark spines have no inside.

    Returns
    -------
    numpy.ndarray
        Boolean, (rows, columns) of blocks.
    """
    dark = np.asarray(picture.convert("L")) < 100
    inside = np.zeros((picture.height // BLOCK, picture.width // BLOCK), dtype=bool)
    bottoms = runs(dark)
    for x, top, bottom in runs(dark.T):
        beyond = np.array([bottom, x]) - bottoms[:, :2]  # a tick may stick out of the corner
        for y, _, right in bottoms[((beyond >= -2) & (beyond <= TICK)).all(axis=1)]:
            inside[top // BLOCK : y // BLOCK + 1, x // BLOCK : right // BLOCK + 1] = True
    return inside


def runs(dark: np.ndarray) -> np.ndarray:
    """Return the straight dark lines in the rows of a picture: row, first and last column each."""
    steps = np.diff(np.pad(dark, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, first), (_, after) = (np.nonzero(steps == step) for step in (1, -1))
    lines = np.column_stack([rows, first, after - 1])
    return lines[after - first >= SPINE]


def patches(marked: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """Yield the groups of marked blocks that touch, corners included."""
    left = set(map(tuple, np.argwhere(marked).tolist()))
    while left:
        patch = [left.pop()]
        for row, column in patch:  # grows while it is read
            around = {(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left
            left -= around
            patch += around
        yield patch


def side_by_side(
    stored: bytes, computed: bytes, *, trained: bool = False, wider: float = 1.0
) -> bytes:
    """Draw stored and computed picture and where they differ, next to one another, as a PNG.

    The third panel shows the computed picture pale, what is new or gone dark, and a frame around
    each group of blocks that do not agree. A picture that cannot be read is a panel that says so.
    """
    pictures = []
    for data in (stored, computed):
        try:
            pictures.append(read(data))
        except UnreadableError:
            pictures.append(Image.new("RGB", (240, 120), "white"))
            ImageDraw.Draw(pictures[-1]).text((40, 50), "cannot be read", "black", font(18))
    panels = [*pictures, difference_panel(*pictures, trained=trained, wider=wider)]
    margin, heading = 16, 32
    width = sum(panel.width + margin for panel in panels) + margin
    height = max(panel.height for panel in panels) + heading + 2 * margin
    sheet = Image.new("RGB", (width, height), "gainsboro")
    draw, left = ImageDraw.Draw(sheet), margin
    for name, panel in zip(("Stored", "Computed", "Difference"), panels, strict=True):
        draw.text((left, margin), name, "black", font(20))
        sheet.paste(panel, (left, margin + heading))
        left += panel.width + margin
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def font(size: int) -> ImageFont.ImageFont:
    """Return the font that Pillow brings along."""
    return ImageFont.load_default(size=size)


def difference_panel(
    old: Image.Image, new: Image.Image, *, trained: bool, wider: float
) -> Image.Image:
    """Return the computed picture, pale, with what differs dark and framed."""
    one, other = (np.asarray(picture, dtype=np.int16) for picture in same_canvas(old, new))
    changed = abs(one - other).max(axis=2)
    pale = 255 - (255 - other.mean(axis=2)) / 4
    panel = Image.fromarray(np.minimum(pale, 255 - changed).astype(np.uint8)).convert("RGB")
    draw = ImageDraw.Draw(panel)
    for patch in patches(differences(old, new, trained=trained, wider=wider) > 1):
        rows, columns = zip(*patch, strict=True)
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        draw.rectangle([BLOCK * side for side in box], outline="firebrick", width=2)
    return panel

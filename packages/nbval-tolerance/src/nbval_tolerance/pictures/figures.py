"""Does a new picture show the same as the stored one? Pure functions of two picture files.

Pictures are compared in blocks of 8 by 8 pixels. A pixel agrees if its colour lies within those of
its neighbours, one pixel around, in the other picture: so an edge may be smoothed otherwise or
snap to the next pixel, but nothing may come, go or change its colour. All blocks must agree.

Where that is too strict, because a network was trained or another Matplotlib has drawn the text, a
block also agrees if it is found again nearby. A small patch may then still differ: inside the axes
of a trained figure as much as a point that has moved (titles, labels and ticks may not differ); by
another Matplotlib as much as a box that has grown with its text.

What is transparent is compared on white and on black: a notebook may be read on either.

What this cannot tell: a small square marker from a round one of the same size. In a trained figure
also what moved by up to 8 pixels, a line style, a small marker, a point far from its old place, and
a short word inside the axes, as in a legend. Between two Matplotlibs also a word, a thin line or a
small part. The numbers behind a figure are printed and compared as text.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import hypot, inf

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageSequence

from nbval_tolerance.pictures.axes import BLOCK, GRAIN, axes, background, patches

FORMATS = ["PNG", "JPEG", "GIF", "WEBP"]

# How far beyond `GRAIN` a block's pixels may lie outside their neighbours' colours, on average,
# where black stands on white; where the contrast is less, less. Lessons 02 to 07 on four variants
# of instruction set and threads: 1.4, but for figure 06-17, whose points move. Beside the axes of
# what was not trained, where there is only text, less: a 6 that becomes an 8 makes 3 at 100 dpi.
LEVELS, LEVELS_BESIDE = 3, 1
FAINT = 32  # the least contrast, in levels, that is told from none

# Within how many pixels a block is looked for. Matplotlib 3.10 draws the x label of figure 03-23
# 7 pixels lower than 3.11; across the variants, the band of figure 06-17 moved by 6.
REACH = 8

# If more of the blocks differ it is another picture, and nothing is looked for, which takes time.
# Between Matplotlib 3.10 and 3.11 up to .39 did, in a wall of photographs half a pixel farther on.
SEARCHED = 1 / 2

# How much a block that was found nearby may differ there, surroundings included, on average, in
# levels: by one Matplotlib (a moved curve like lesson 06's: up to 5.9, a changed word: 9 and more;
# beside the axes, where there is only text, less for what is faint) and by two (all figures of the
# lessons but one: up to 16.6; FreeType draws other strokes).
FOUND = {"same": 6, "other": 20}
CONTEXT = 16  # side of a block with its surroundings: two letters tell more than one
BLUR = 1.2  # standard deviation in pixels; unblurred, other strokes differ by up to 47 levels

# How many touching blocks may differ inside the axes of a trained figure: a point of figure 06-17
# that moved past the mean's line made 12; a changed curve, bar or image 24 and more. And anywhere
# in a figure by another Matplotlib: the boxes of figure 02-34 made 5, an added line 19.
PATCH = {"trained": 16, "other": 8}

# What Matplotlib draws for a screen whose pixels are not doubled.
SHOWN_DPI = 100

# How large a picture may be: a hundred times the largest in lessons 02 to 07.
PIXELS = 30_000_000


class UnreadableError(ValueError):
    """The bytes are no picture file of a known format, or not a whole one."""


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
    """Compare two PNG, JPEG, GIF or WebP files.

    Parameters
    ----------
    stored, computed
        The picture in the notebook, and what its cell draws now.
    trained
        Whether the figure's data come from a trained network: they move from machine to machine.
    wider
        How many times as far as usual blocks inside the axes may differ from what is nearby. Where
        no axes are found, this holds everywhere.

    Returns
    -------
    FigureComparison
        Never raises: what cannot be read is a difference.
    """
    if stored == computed:
        return FigureComparison(0.0, None)
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
    verdicts = []
    for excess, inside, *_ in differences(old, new, trained=trained, wider=wider):
        allowed = np.full(excess.shape, PATCH["other"] if other else 0)
        if trained:
            allowed[inside] = PATCH["trained"]
        verdicts += [judge(excess, allowed, n) for n in set(allowed.ravel().tolist())]
    return max(verdicts, key=lambda one: one.used)


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
    """Decode a picture file to RGBA, the frames of an animation below one another.

    A figure of 200 dpi, which Jupyter calls retina, is shrunk to the size at which it is shown: the
    limits above are in pixels of 100 dpi.

    Raises
    ------
    UnreadableError
        If it is no whole picture of the known formats, or a very large one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            count = getattr(picture, "n_frames", 1)
            if count * picture.width * picture.height > PIXELS:
                what = f"{count} times " if count > 1 else ""
                what += f"{picture.width} by {picture.height} pixels are too many"
                raise UnreadableError(what)
            frames = [frame.convert("RGBA") for frame in ImageSequence.Iterator(picture)]
    except UnreadableError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error …
        raise UnreadableError(f"it is no whole {', '.join(FORMATS)} file") from error
    result = frames[0]
    if len(frames) > 1:
        result = Image.new("RGBA", (picture.width, picture.height * len(frames)))
        for number, frame in enumerate(frames):
            result.paste(frame, (0, number * picture.height))
    dpi, _ = picture.info.get("dpi", (SHOWN_DPI, SHOWN_DPI))
    if (times := round(dpi) // SHOWN_DPI) > 1:  # PNG stores 200 as 199.9996
        result = result.reduce(times)
    result.info = picture.info
    return result


def drawn_by(picture: Image.Image) -> str:
    """Return the minor version of the Matplotlib that drew a picture, as 3.11, or nothing."""
    software = str(picture.info.get("Software", ""))
    return ".".join(software.partition(",")[0].split(".")[:2])


def on_grounds(old: Image.Image, new: Image.Image) -> list[tuple[Image.Image, Image.Image]]:
    """Return both pictures on white and, if one is transparent somewhere, on black."""
    clear = not (is_opaque(old) and is_opaque(new))
    return [same_canvas(old, new, ground) for ground in ("white", "black")[: 1 + clear]]


def is_opaque(picture: Image.Image) -> bool:
    """Tell whether an RGBA picture has no transparent pixel."""
    return picture.getchannel("A").getextrema()[0] == 255


def same_canvas(
    old: Image.Image, new: Image.Image, ground: str = "white"
) -> tuple[Image.Image, Image.Image]:
    """Return both pictures without transparency, filled up to the same whole number of blocks."""
    size = [-(-max(pair) // BLOCK) * BLOCK for pair in zip(old.size, new.size, strict=True)]
    canvases, beyond = [], None
    for picture in (old, new):
        if not is_opaque(picture):
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture)
        opaque = picture.convert("RGB")
        beyond = beyond or background(opaque)
        canvases.append(Image.new("RGB", size, beyond))
        canvases[-1].paste(opaque)
    return canvases[0], canvases[1]


Pair = tuple[Image.Image, Image.Image]


def differences(
    old: Image.Image, new: Image.Image, *, trained: bool, wider: float
) -> list[tuple[np.ndarray, np.ndarray, Pair]]:
    """Return by how much each block differs, on each ground that matters.

    Returns
    -------
    list
        Of the differences, as a share of what is allowed, (rows, columns) of blocks; whether each
        block is inside axes; and both pictures on this ground.
    """
    other = drawn_by(old) != drawn_by(new)
    pairs = on_grounds(old, new)
    if all(ImageChops.difference(*pair).getbbox() is None for pair in pairs):
        nothing = np.zeros((pairs[0][0].height // BLOCK, pairs[0][0].width // BLOCK))
        return [(nothing, nothing > 0, pairs[0])]
    areas = max((axes(pair[0], trained) for pair in pairs), key=lambda one: one[0].sum())
    how = {"moves": trained or other, "other": other, "wider": wider}
    return [(excess_of(*pair, *areas, **how), areas[0], pair) for pair in pairs]


def excess_of(
    old: Image.Image,
    new: Image.Image,
    inside: np.ndarray,
    beside: np.ndarray,
    *,
    moves: bool,
    other: bool,
    wider: float,
) -> np.ndarray:
    """Return by how much each block differs, as a share of what is allowed.

    Parameters
    ----------
    old, new
        RGB, of one size, a whole number of blocks.
    inside, beside
        Which blocks are inside axes, and which beside them: (rows, columns).
    moves, other
        Whether blocks are looked for nearby; whether because another Matplotlib has drawn them.
    """
    shape = old.height // BLOCK, old.width // BLOCK
    excess = np.zeros(shape)
    changed = np.asarray(ImageChops.difference(old, new)).any(axis=2)
    blocks = np.argwhere(changed.reshape(shape[0], BLOCK, shape[1], BLOCK).any(axis=(1, 3)))
    if not len(blocks):
        return excess
    allowed = np.where(beside & (not moves), LEVELS_BESIDE, LEVELS)
    excess[tuple(blocks.T)] = in_place(old, new, blocks) / allowed[tuple(blocks.T)]
    blocks = np.argwhere(excess > 0.5)
    if not moves or not 0 < len(blocks) <= SEARCHED * excess.size:
        return excess
    at = tuple(blocks.T)
    limits = np.full(len(blocks), float(FOUND["other" if other else "same"]))
    if beside[at].any() and not other:
        near = [windows(picture, blocks, (CONTEXT - BLOCK) // 2) for picture in (old, new)]
        faint = np.maximum(contrast(*near).mean(axis=1), FAINT) / 255
        limits *= np.where(beside[at], faint, 1)
    limits *= np.where(inside[at] | ~inside.any(), wider, 1)
    away = [best_match(*pair, blocks, limits) for pair in ((old, new), (new, old))]
    excess[at] = np.minimum(excess[at], np.maximum(*away) / limits)
    return excess


def in_place(old: Image.Image, new: Image.Image, blocks: np.ndarray) -> np.ndarray:
    """Return by how much blocks, (n, 2) rows and columns, differ, in levels of black on white."""
    one, other = (windows(picture, blocks, 1) for picture in (old, new))
    outside = np.maximum(outside_neighbours(one, other), outside_neighbours(other, one))
    coarse = np.maximum(outside, GRAIN) - GRAIN
    faint = np.maximum(contrast(one, other).max(axis=1), FAINT) / 255
    return coarse.mean(axis=(1, 2)) / faint


def windows(picture: Image.Image, blocks: np.ndarray, border: int) -> np.ndarray:
    """Return blocks with their surroundings: (n, side, side, 3), side 8 and twice the border."""
    framed = np.pad(np.asarray(picture), [(border, border)] * 2 + [(0, 0)], mode="edge")
    side = BLOCK + 2 * border
    rows, columns = BLOCK * blocks.T
    return sliding_window_view(framed, (side, side), (0, 1))[rows, columns].transpose(0, 2, 3, 1)


def contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how far the darkest and lightest pixel of two windows are apart: (n, 3) levels."""
    low = np.minimum(one, other).min(axis=(1, 2))
    return np.maximum(one, other).max(axis=(1, 2)).astype(float) - low


def outside_neighbours(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how far each pixel of `one` is from the colours around it in `other`, 0 to 255.

    Takes windows of blocks with a border of one pixel, (n, 10, 10, 3); returns (n, 8, 8).
    """
    one = one[:, 1:-1, 1:-1]
    low, high = around(other, np.minimum), around(other, np.maximum)
    below, above = (np.maximum(a, b) - b for a, b in ((low, one), (one, high)))
    return np.maximum(below, above).max(axis=3)


def around(pixels: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """Return for each pixel and colour the least or greatest of its 3 by 3 neighbourhood."""
    rows = choose(choose(pixels[:, :-2], pixels[:, 1:-1]), pixels[:, 2:])
    return choose(choose(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])


def best_match(
    one: Image.Image, other: Image.Image, blocks: np.ndarray, good: np.ndarray
) -> np.ndarray:
    """Return how much blocks of `one` differ from the most similar place nearby in `other`.

    Parameters
    ----------
    blocks
        (n, 2) rows and columns.
    good
        (n,) levels: a block is looked for until it differs by less than half of this.

    Returns
    -------
    numpy.ndarray
        (n,) mean absolute differences of the blurred surroundings, in levels.
    """
    border = REACH + (CONTEXT - BLOCK) // 2
    views = []
    for picture in (one, other):
        blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(BLUR)), dtype=np.int16)
        framed = np.pad(blurred, [(border, border)] * 2 + [(0, 0)], mode="edge")
        # Blurred, every other pixel says it all.
        views.append(sliding_window_view(framed, (CONTEXT, CONTEXT), (0, 1))[..., ::2, ::2])
    rows, columns = (BLOCK * blocks + REACH).T
    wanted = views[0][rows, columns]
    best = np.full(len(blocks), inf)
    steps = [(y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1)]
    for y, x in sorted(steps, key=lambda step: hypot(*step)):
        left = np.flatnonzero(best > good / 2)
        if not len(left):
            break
        found = views[1][rows[left] + y, columns[left] + x]
        best[left] = np.minimum(best[left], abs(found - wanted[left]).mean(axis=(1, 2, 3)))
    return best


def side_by_side(
    stored: bytes, computed: bytes, *, trained: bool = False, wider: float = 1.0
) -> bytes:
    """Draw stored and computed picture and where they differ, next to one another, as a PNG.

    The third panel shows the computed picture pale, what is new or gone dark, and a frame around
    each group of blocks that do not agree. A picture that cannot be read is a panel that says so.
    Transparent pictures are shown on the ground, white or black, on which they differ most.
    """
    pictures = []
    for data in (stored, computed):
        try:
            pictures.append(read(data))
        except UnreadableError:
            pictures.append(Image.new("RGBA", (240, 120), "white"))
            ImageDraw.Draw(pictures[-1]).text((40, 50), "cannot be read", "black", font(18))
    judged = differences(*pictures, trained=trained, wider=wider)
    excess, _, pair = max(judged, key=lambda one: one[0].sum())
    shown = [canvas.crop((0, 0, *one.size)) for canvas, one in zip(pair, pictures, strict=True)]
    panels = [*shown, difference_panel(*pair, excess)]
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


def difference_panel(old: Image.Image, new: Image.Image, excess: np.ndarray) -> Image.Image:
    """Return the computed picture, pale, with what differs dark and framed."""
    one, other = (np.asarray(picture, dtype=np.int16) for picture in (old, new))
    changed = abs(one - other).max(axis=2)
    light = other.mean(axis=2)
    if np.median(light) < 128:  # a dark canvas, shown as a negative
        light = 255 - light
    pale = 255 - (255 - light) / 4
    panel = Image.fromarray(np.minimum(pale, 255 - changed).astype(np.uint8)).convert("RGB")
    draw = ImageDraw.Draw(panel)
    for patch in patches(excess > 1):
        rows, columns = zip(*patch, strict=True)
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        draw.rectangle([BLOCK * side for side in box], outline="firebrick", width=2)
    return panel

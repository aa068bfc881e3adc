"""Decide whether a new picture matches the stored one. Pure functions.

Pictures are compared in blocks of 8 by 8 pixels. A pixel matches if its colour lies in the range of
colours that the other picture has within one pixel of the same place. An edge may therefore be
smoothed differently or snap to the next pixel, but nothing may appear, disappear or change colour.
All blocks must match.

This comparison is too strict once a network has been trained, or if another version of Matplotlib
drew the text. In these cases, a block also matches if the other picture has a similar block nearby,
and a small patch may still differ. If a figure is drawn after training, a patch inside its axes may
be as large as the change caused by a data point that moves. Titles, labels and ticks must match.
With another version of Matplotlib, a patch may be as large as the change caused by a text box that
grows.

Transparent pictures are compared on white and on black, because notebooks are read in light and
dark themes.

Some differences cannot be detected. In any figure, a small square marker looks like a round one of
the same size. In a figure drawn after training, the comparison also misses movements of up to 8
pixels, a changed line style or small marker, a point that moved far away, and a changed short word
inside the axes, such as in a legend. Between two versions of Matplotlib, the comparison also misses
a changed word, thin line or small detail. Print the numbers that a figure shows, so that they are
compared as text.
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

# The maximum average distance, in levels beyond `GRAIN`, between the pixels of a block and the
# range of nearby colours in the other picture. The limit applies to black on white, and is lower
# for less contrast. With four combinations of instruction set and thread count, the figures in
# lessons 02 to 07 differed by at most 1.4 levels, except for figure 06-17, in which points move.
# Before training, the limit is also lower outside the axes, where figures contain only text:
# replacing a 6 with an 8 makes a difference of only 3 levels at 100 dpi.
LEVELS, LEVELS_BESIDE = 3, 1
FAINT = 32  # the minimum contrast to assume, in levels

# The maximum distance, in pixels, at which to search for a block's match. Matplotlib 3.10 draws the
# x label of figure 03-23 seven pixels lower than Matplotlib 3.11 does. Across the combinations of
# instruction set and thread count, the band in figure 06-17 moved by 6 pixels.
REACH = 8

# If a larger share of the blocks differs, the pictures are treated as unrelated, and the slow
# search is skipped. Between Matplotlib 3.10 and 3.11, the largest share was 0.39, in a grid of
# photographs that was shifted by half a pixel.
SEARCHED = 1 / 2

# The average number of levels by which a block and its surroundings may differ from the most
# similar nearby area. With the same version of Matplotlib, a moved curve like the one in lesson 06
# differed by 5.9 levels, and a changed word by 9 or more. Outside the axes, in areas that contain
# only text, the limit is lower for faint text. Between two versions of Matplotlib, whose FreeType
# versions draw strokes differently, all but one of the lessons' figures differed by at most 16.6
# levels.
FOUND = {"same": 6, "other": 20}
CONTEXT = 16  # A block and its surroundings contain two letters, which are easier to find.
BLUR = 1.2  # Standard deviation in pixels. Without blur, strokes differ by up to 47 levels.

# How many adjacent blocks may differ. After training, inside the axes, a point in figure 06-17 that
# moved past the mean line changed 12 blocks, whereas changes of a curve, bar or image affected at
# least 24. With another version of Matplotlib, patches may be anywhere in the figure: the text
# boxes in figure 02-34 changed 5 blocks, and an added line changed 19.
PATCH = {"trained": 16, "other": 8}

# Matplotlib's resolution, in dpi, for a standard (non-retina) screen.
SHOWN_DPI = 100

# The maximum number of pixels in a picture. The largest picture in lessons 02 to 07 is a hundred
# times smaller.
PIXELS = 30_000_000


class UnreadableError(ValueError):
    """The bytes are not a complete picture file in a known format."""


@dataclass(frozen=True)
class FigureComparison:
    """The result of comparing two pictures.

    Attributes
    ----------
    used
        The share of the tolerance that was used. The limit is 1. Infinity means that the pictures
        cannot be compared.
    what
        How and where the pictures differ, or None if they match.
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
        The picture stored in the notebook, and the picture that its cell draws now.
    trained
        Whether the figure's data come from a trained network and thus vary between machines.
    wider
        The factor that multiplies the allowed difference between a block inside the axes and its
        nearby match. If no axes are found, the factor applies everywhere.

    Returns
    -------
    FigureComparison
        This function never raises an exception. A picture that cannot be read is reported as a
        difference.
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
    """Compare the part of a figure in which patches of up to `patch` blocks may differ."""
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
    """Describe the location of a block, such as `in the upper left (x 4, y 4)`."""
    vertical = ("upper", "middle", "lower")[int(3 * row / shape[0])]
    horizontal = ("left", "centre", "right")[int(3 * column / shape[1])]
    x, y = (int(BLOCK * (at + 0.5)) for at in (column, row))
    return f"in the {vertical} {horizontal} (x {x}, y {y})"


def read(data: bytes) -> Image.Image:
    """Decode a picture file to RGBA, with the frames of an animation stacked vertically.

    A figure at 200 dpi, which Jupyter calls retina, is scaled down to its display size, because
    this module's limits are in pixels at 100 dpi.

    Raises
    ------
    UnreadableError
        If the file is not a complete picture in a known format, or is very large.
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
        raise UnreadableError(f"it is not a complete {', '.join(FORMATS)} file") from error
    result = frames[0]
    if len(frames) > 1:
        result = Image.new("RGBA", (picture.width, picture.height * len(frames)))
        for number, frame in enumerate(frames):
            result.paste(frame, (0, number * picture.height))
    dpi, _ = picture.info.get("dpi", (SHOWN_DPI, SHOWN_DPI))
    if (times := round(dpi) // SHOWN_DPI) > 1:  # PNG stores 200 dpi as 199.9996
        result = result.reduce(times)
    result.info = picture.info
    return result


def drawn_by(picture: Image.Image) -> str:
    """Return the version of Matplotlib that drew a picture, such as 3.11, or an empty string."""
    software = str(picture.info.get("Software", ""))
    return ".".join(software.partition(",")[0].split(".")[:2])


def on_grounds(old: Image.Image, new: Image.Image) -> list[tuple[Image.Image, Image.Image]]:
    """Return both pictures on white, and also on black if either has transparent pixels."""
    clear = not (is_opaque(old) and is_opaque(new))
    return [same_canvas(old, new, ground) for ground in ("white", "black")[: 1 + clear]]


def is_opaque(picture: Image.Image) -> bool:
    """Return whether an RGBA picture has no transparent pixels."""
    return picture.getchannel("A").getextrema()[0] == 255


def same_canvas(
    old: Image.Image, new: Image.Image, ground: str = "white"
) -> tuple[Image.Image, Image.Image]:
    """Return both pictures without transparency, padded to the same size in whole blocks."""
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
    """Return how much each block differs on a white and, if necessary, on a black background.

    Returns
    -------
    list
        For each background: an array (rows, columns) with each block's difference as a share of the
        limit, a Boolean array that marks the blocks inside axes, and both pictures on this
        background.
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
    """Return how much each block differs, as a share of the limit.

    Parameters
    ----------
    old, new
        RGB pictures of the same size, which is a whole number of blocks.
    inside, beside
        Boolean arrays (rows, columns) of the blocks inside axes and outside them.
    moves, other
        Whether to search for matches nearby, and whether the two pictures come from different
        versions of Matplotlib.
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
    """Return how much blocks at the same place differ, in levels scaled to full contrast.

    `blocks` is an (n, 2) array of rows and columns.
    """
    one, other = (windows(picture, blocks, 1) for picture in (old, new))
    outside = np.maximum(outside_neighbours(one, other), outside_neighbours(other, one))
    coarse = np.maximum(outside, GRAIN) - GRAIN
    faint = np.maximum(contrast(one, other).max(axis=1), FAINT) / 255
    return coarse.mean(axis=(1, 2)) / faint


def windows(picture: Image.Image, blocks: np.ndarray, border: int) -> np.ndarray:
    """Return blocks with a border: an (n, side, side, 3) array, with side = 8 + two borders."""
    framed = np.pad(np.asarray(picture), [(border, border)] * 2 + [(0, 0)], mode="edge")
    side = BLOCK + 2 * border
    rows, columns = BLOCK * blocks.T
    return sliding_window_view(framed, (side, side), (0, 1))[rows, columns].transpose(0, 2, 3, 1)


def contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the range of each colour channel over each pair of windows, as an (n, 3) array."""
    low = np.minimum(one, other).min(axis=(1, 2))
    return np.maximum(one, other).max(axis=(1, 2)).astype(float) - low


def outside_neighbours(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how far each pixel of `one` is outside the range of nearby colours in `other`.

    The arguments are (n, 10, 10, 3) arrays of blocks with a border of one pixel. The result is an
    (n, 8, 8) array of values from 0 to 255.
    """
    one = one[:, 1:-1, 1:-1]
    low, high = around(other, np.minimum), around(other, np.maximum)
    below, above = (np.maximum(a, b) - b for a, b in ((low, one), (one, high)))
    return np.maximum(below, above).max(axis=3)


def around(pixels: np.ndarray, choose: np.ufunc) -> np.ndarray:
    """Return the minimum or maximum of each colour in each pixel's 3 by 3 neighbourhood."""
    rows = choose(choose(pixels[:, :-2], pixels[:, 1:-1]), pixels[:, 2:])
    return choose(choose(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])


def best_match(
    one: Image.Image, other: Image.Image, blocks: np.ndarray, good: np.ndarray
) -> np.ndarray:
    """Return how much blocks of `one` differ from the most similar nearby area of `other`.

    Parameters
    ----------
    blocks
        An (n, 2) array of rows and columns.
    good
        An array of one limit per block, in levels. The search for a block ends when the difference
        is less than half of the block's limit.

    Returns
    -------
    numpy.ndarray
        An array of one difference per block: the mean absolute difference between the blurred
        surroundings, in levels.
    """
    border = REACH + (CONTEXT - BLOCK) // 2
    views = []
    for picture in (one, other):
        blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(BLUR)), dtype=np.int16)
        framed = np.pad(blurred, [(border, border)] * 2 + [(0, 0)], mode="edge")
        # After blurring, every second pixel carries enough information.
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
    """Return a PNG of the stored picture, the new picture and their difference, side by side.

    The third panel shows the new picture in pale colours, with a frame around each group of blocks
    that differ. Anything added or missing is dark. If a picture cannot be read, its panel shows a
    message. Transparent pictures are shown on white or black, whichever shows the larger
    difference.
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
    """Return Pillow's built-in font."""
    return ImageFont.load_default(size=size)


def difference_panel(old: Image.Image, new: Image.Image, excess: np.ndarray) -> Image.Image:
    """Return the new picture in pale colours, with dark and framed differences."""
    one, other = (np.asarray(picture, dtype=np.int16) for picture in (old, new))
    changed = abs(one - other).max(axis=2)
    light = other.mean(axis=2)
    if np.median(light) < 128:  # invert a dark canvas
        light = 255 - light
    pale = 255 - (255 - light) / 4
    panel = Image.fromarray(np.minimum(pale, 255 - changed).astype(np.uint8)).convert("RGB")
    draw = ImageDraw.Draw(panel)
    for patch in patches(excess > 1):
        rows, columns = zip(*patch, strict=True)
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        draw.rectangle([BLOCK * side for side in box], outline="firebrick", width=2)
    return panel

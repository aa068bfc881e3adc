"""Find the axes in a figure's pixels, on a background of any colour. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

BLOCK = 8  # The side of a block in pixels, about the size of a letter in a 10-point label.

# A single pixel may always differ by this many of the 255 colour levels, because rounding can
# change its colour by one step of a colour map. One step is 6 levels in hsv and about half that in
# viridis.
GRAIN = 6

# Axes are detected by straight lines that differ in colour from the figure's background: spines,
# grid lines, or all rows and columns of axes with a coloured background. The limits below are in
# pixels.
SPINE = 40  # The minimum length of a straight line; the strokes of letters are shorter.
GRID = 4  # The maximum width of a background-coloured grid line that crosses a spine or an area.
TICK = 8  # How far a line may end before or after its corner: the length of a tick.
LABELS = 16  # The maximum distance between the axes and the nearest labels.
FULL = 0.8  # The minimum share of coloured pixels in a row or column of a coloured area.
ROUND = 0.9  # A round shape covers less than this share of its bounding box. A circle covers 0.8.
CELLS = 50_000  # With more marked cells of 2 by 2 pixels, finding round axes would take too long.
LINES, RECTANGLES = 500, 100  # Only the longest lines and largest rectangles are used.


def background(picture: Image.Image) -> tuple[int, ...]:
    """Return the most frequent colour in the outermost blocks of a picture."""
    width, height = picture.size
    wide, high = min(BLOCK, width), min(BLOCK, height)
    edges = [(0, 0, width, high), (0, height - high, width, height)]
    edges += [(0, 0, wide, height), (width - wide, 0, width, height)]
    found = Counter()
    for edge in edges:
        part = picture.crop(edge)
        found.update({colour: n for n, colour in part.getcolors(part.width * part.height)})
    return found.most_common(1)[0][0]


def axes(picture: Image.Image, trained: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Find axes: rectangles with ticks or labels on the left and either above or below.

    Legends, colour bars, tables and frames around a figure are not found, because they lack ticks
    or labels on these sides. Two kinds of panels are treated as axes even without ticks and labels:
    panels aligned with labelled axes, and panels that form a row or column with others of the same
    size. If a figure drawn after training has no such axes, polar and three-dimensional axes are
    searched for. Axes that have no spines, grid or coloured background are not found.

    Returns
    -------
    inside, beside : numpy.ndarray
        Boolean arrays of blocks, (rows, columns). `inside` marks blocks inside axes. `beside` marks
        blocks outside all rectangles, or no blocks if no rectangular axes are found.
    """
    pixels = np.asarray(picture)
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    for channel, level in enumerate(background(picture)):
        mask |= abs(pixels[..., channel].astype(np.int16) - level) > GRAIN
    found = np.unique([grown(mask, *one) for one in rectangles(mask)] or [[0, 0, 0, 0]], axis=0)
    whole = np.array([is_whole(mask, *one) for one in found])
    labelled = whole & [has_labels(mask, *one) for one in found]
    inside = np.zeros((picture.height // BLOCK, picture.width // BLOCK), dtype=bool)
    beside = ~inside
    for one, is_labelled in zip(found, labelled, strict=True):
        area = tuple(slice(round(a / BLOCK), round((b + 1) / BLOCK)) for a, b in (one[:2], one[2:]))
        beside[area] = False
        if is_labelled or is_panel(one, found[labelled], found[whole]):
            inside[area] = True
    if inside.any():
        return inside, beside
    return (round_axes(mask) if trained else inside), inside


def round_axes(mask: np.ndarray) -> np.ndarray:
    """Return a mask of the blocks inside large connected areas that are not rectangles.

    Examples are the circle of polar axes, the cube of three-dimensional axes, and a pie chart.
    """
    rows, columns = (size // BLOCK for size in mask.shape)
    inside = np.zeros((rows, columns), dtype=bool)
    half = mask.reshape(mask.shape[0] // 2, 2, -1, 2).any(axis=(1, 3))
    if half.sum() > CELLS:
        return inside
    for patch in patches(half):
        if len(patch) < SPINE:
            continue
        drawn = np.zeros_like(half)
        drawn[tuple(np.transpose(patch))] = True
        filled = between(drawn) & between(drawn.T).T
        high, wide = (np.ptp(side) + 1 for side in np.nonzero(filled))
        if min(high, wide) >= SPINE and filled.sum() < ROUND * high * wide:
            inside |= filled.reshape(rows, BLOCK // 2, columns, -1).mean(axis=(1, 3)) > 1 / 2
    return inside


def between(drawn: np.ndarray) -> np.ndarray:
    """Return a mask of all pixels between the first and last marked pixel in each row."""
    since = np.logical_or.accumulate(drawn, axis=1)
    return since & np.logical_or.accumulate(drawn[:, ::-1], axis=1)[:, ::-1]


def is_panel(one: np.ndarray, labelled: np.ndarray, found: np.ndarray) -> bool:
    """Return whether a rectangle is aligned with labelled axes or with panels of the same size."""
    near = abs(labelled - one) <= GRID
    if (near[:, :2].all(axis=1) | near[:, 2:].all(axis=1)).any():
        return True
    around = ((found - one) * (1, -1, 1, -1) <= 0).all(axis=1)
    if (found[around] != one).any():  # inside another rectangle, such as a table or a frame
        return False
    apart = abs(found - one)
    size = one[[1, 3]] - one[[0, 2]]
    same_size = (abs(found[:, [1, 3]] - found[:, [0, 2]] - size) <= GRID).all(axis=1)
    in_row = (apart[:, 0] <= GRID) & (apart[:, 2] > size[1] + GRID)
    in_column = (apart[:, 2] <= GRID) & (apart[:, 0] > size[0] + GRID)
    return bool((same_size & (in_row | in_column)).any())


def rectangles(mask: np.ndarray) -> np.ndarray:
    """Return the rectangles that are formed by long straight lines, either spines or grid lines.

    Spines, or the sides of a coloured area, meet at a rectangle's lower left corner. Grid lines
    cross, and each one has a parallel line with the same end points.

    Returns
    -------
    numpy.ndarray
        An (n, 4) array with each rectangle's first row, last row, first column and last column,
        sorted by size with the largest rectangle first.
    """
    flat, upright = runs(mask), runs(mask.T)
    y, left, right = flat.T[:, None]
    x, top, bottom = upright.T[..., None]
    spines = (left - 2 <= x) & (x <= left + TICK) & (y - 2 <= bottom) & (bottom <= y + TICK)
    cross = (left - 2 <= x) & (x <= right + 2) & (top - 2 <= y) & (y <= bottom + 2)
    meet = spines | (cross & has_twin(flat) & has_twin(upright)[:, None])
    sides = [np.minimum(top, y), np.maximum(bottom, y), np.minimum(left, x), np.maximum(right, x)]
    found = np.unique(np.stack([side[meet] for side in sides], axis=1), axis=0)
    size = (found[:, 1] - found[:, 0]) * (found[:, 3] - found[:, 2])
    return found[np.argsort(-size)[:RECTANGLES]]


def has_twin(lines: np.ndarray) -> np.ndarray:
    """Return, for each line, whether a parallel line far enough away has the same end points."""
    apart = abs(lines[:, None] - lines)
    return ((apart[..., 0] >= SPINE) & (apart[..., 1:] <= GRID).all(axis=2)).any(axis=1)


def grown(mask: np.ndarray, *sides: int) -> tuple[int, int, int, int]:
    """Extend a rectangle across the grid lines of a coloured area to the edges of the area."""
    top, bottom, left, right = sides
    for turned in (False, True):
        lines = mask.T if turned else mask
        while (step := reach(lines[max(top - GRID - 1, 0) : top, left : right + 1][::-1])) > 0:
            top -= step
        while (step := reach(lines[bottom + 1 : bottom + GRID + 2, left : right + 1])) > 0:
            bottom += step
        top, bottom, left, right = left, right, top, bottom
    return top, bottom, left, right


def reach(strip: np.ndarray) -> int:
    """Return the number of rows in a strip up to and including its last nearly full row."""
    return int(max(np.flatnonzero(strip.mean(axis=1) > FULL) + 1, default=0))


def is_whole(mask: np.ndarray, top: int, bottom: int, left: int, right: int) -> bool:
    """Return false for a coloured area without four corners, and true for other rectangles."""
    part = mask[top : bottom + 1, left : right + 1]
    corners = [
        part[y, x]
        for y in (slice(GRID), slice(-GRID, None))
        for x in (slice(GRID), slice(-GRID, None))
    ]
    return part.mean() < 1 / 2 or all(corner.any() for corner in corners)


def has_labels(mask: np.ndarray, top: int, bottom: int, left: int, right: int) -> bool:
    """Return whether a rectangle has ticks or labels on the left and either above or below."""

    def several(band: np.ndarray) -> bool:
        return np.count_nonzero(np.diff(np.r_[False, band].astype(np.int8)) == 1) > 1

    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    return several(mask[rows, max(left - LABELS, 0) : max(left - 1, 0)].any(axis=1)) and (
        several(mask[bottom + 2 : bottom + LABELS + 1, columns].any(axis=0))
        or several(mask[max(top - LABELS, 0) : max(top - 1, 0), columns].any(axis=0))
    )


def runs(mask: np.ndarray) -> np.ndarray:
    """Return the long horizontal lines in a mask, each as (row, first column, last column).

    Return only the first and last line of each run of adjacent lines with the same end points. If
    there are too many lines, return only the longest ones.
    """
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, first), (_, after) = (np.nonzero(steps == step) for step in (1, -1))
    lines = np.column_stack([rows, first, after - 1])[after - first >= SPINE]
    if not len(lines):
        return lines
    rows, first, last = lines.T
    begins = np.r_[True, (rows[1:] > rows[:-1]) | (first[1:] - last[:-1] > GRID)]
    ends = np.r_[begins[1:], True]
    lines = np.column_stack([rows[begins], first[begins], last[ends]])
    lines = lines[np.lexsort(lines.T)]  # sort by last column, first column, row
    follows = (np.diff(lines, axis=0) == (1, 0, 0)).all(axis=1)
    lines = lines[~(np.r_[False, follows] & np.r_[follows, False])]
    return lines[np.argsort(lines[:, 1] - lines[:, 2])[:LINES]]


def patches(marked: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """Yield the groups of adjacent marked blocks, including blocks that touch only at corners."""
    left = set(map(tuple, np.argwhere(marked).tolist()))
    while left:
        patch = [left.pop()]
        for row, column in patch:  # the loop extends this list
            around = {(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left
            left -= around
            patch += around
        yield patch

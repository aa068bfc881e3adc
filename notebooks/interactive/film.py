"""A film: pictures one after the other, with buttons to play them and to step."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps, pyplot
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from interactive import live
from interactive.picture import BAR, BEST, PAPER, frame

STILLS = 5  # frames in the still picture
GAP = 2  # pixels between images side by side
MOST = 720  # pixels: a film is shown no wider
SIGNED = LinearSegmentedColormap.from_list("signed", [BAR, PAPER, BEST])


class Film:
    """Pictures one after the other, with play and step buttons.

    Parameters
    ----------
    frames
        Matplotlib figures, which are closed; or an array: (n, height, width), or
        (n, k, height, width) for k images side by side. Values below 0 are blue, those above
        orange; where none is below 0, they go from white to black.
    captions
        A text for each frame.
    title
        What the film is about.
    """

    def __init__(self, frames, captions=None, title=""):
        figures = [one for one in frames if isinstance(one, Figure)]
        if figures:
            pictures, self._scale = [drawn(figure) for figure in figures], 0.5
        else:
            pictures, self._scale = coloured(np.asarray(frames, float))
        self.captions = [str(text) for text in captions or range(1, len(pictures) + 1)]
        if not pictures or len(self.captions) != len(pictures):
            raise ValueError(f"{len(pictures)} frames and {len(self.captions)} captions")
        self.title = str(title)
        self._pictures = pictures
        state = {
            "title": self.title,
            "captions": self.captions,
            "frames": [webp(picture) for picture in pictures],
            "width": round(pictures[0].shape[1] * self._scale),
            "pixelated": not figures,
        }
        self._content = {"version": 1, **state}
        self._shared = live.Shared("film.js", {**state, "at": 0})

    def __len__(self):
        return len(self._pictures)

    def __repr__(self):
        named = f" “{self.title}”" if self.title else ""
        first, last = self.captions[0], self.captions[-1]
        return f"Film{named}: {len(self)} frames, from {first} to {last}."

    def _repr_mimebundle_(self, **_):
        return live.bundle(self._shared, repr(self), self._still(), "film", self._content)

    def _still(self):
        """Return a figure of a few frames: below each other, if they are wide."""
        shown = np.unique(np.linspace(0, len(self) - 1, STILLS).round().astype(int))
        height, width = self._pictures[0].shape[:2]
        wide = width > 1.6 * height
        rows, columns = (len(shown), 1) if wide else (1, len(shown))
        each = 6.4 if wide else 7.6 / columns
        size = (7.6, rows * (each * height / width + 0.32) + (0.4 if self.title else 0))
        figure = Figure(figsize=size, layout="constrained", facecolor=PAPER)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, number in zip(grid, shown, strict=True):
            frame(axes)
            axes.imshow(self._pictures[number], interpolation="nearest")
            axes.set_title(self.captions[number], fontsize=10, loc="left", pad=3)
        if self.title:
            figure.suptitle(self.title, fontweight="bold")
        return figure


def drawn(figure):
    """Return a figure as an image at twice its size, and close it, or its cell would show it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200)
    pyplot.close(figure)
    return np.asarray(Image.open(file).convert("RGB"))


def coloured(values):
    """Return arrays as images, and how much larger they are shown."""
    if values.ndim == 3:
        values = values[:, None]
    if values.ndim != 4:
        raise ValueError(f"frames of shape {values.shape}; (n, h, w) or (n, k, h, w) is needed")
    low, high = values.min(), values.max()
    size = max(abs(low), abs(high)) or 1
    shown = SIGNED(0.5 + values / size / 2) if low < 0 else colormaps["gray_r"](values / size)
    shown = (shown[..., :3] * 255).round().astype(np.uint8)
    count, side_by_side, height, width, _ = shown.shape
    strip = np.full(
        (count, height, side_by_side * (width + GAP) - GAP, 3), (255, 253, 248), np.uint8
    )
    for place in range(side_by_side):
        start = place * (width + GAP)
        strip[:, :, start : start + width] = shown[:, place]
    return list(strip), max(1, MOST // strip.shape[2] if side_by_side > 1 else 280 // width)


def webp(picture):
    """Return an image as a data address, without loss."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()

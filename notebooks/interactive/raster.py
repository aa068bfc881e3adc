"""Turn a drawing into the 28 x 28 image that a model sees, the way MNIST's digits were made."""

from __future__ import annotations

import numpy as np

SIZE = 28  # pixels: the image
BOX = 20  # pixels: MNIST's digits fit into a box of this size (yann.lecun.com/exdb/mnist)
PEN = 1.4  # pixels: with this radius a drawing has as much ink as MNIST's digits have, 13 %
MIDDLE = 14  # the pixel, from 0, in which the centre of mass of MNIST's digits is
DOT = 0.1  # a drawing smaller than this, such as a dot, is not enlarged any further


def rasterise(strokes, centred=True):
    """Return a drawing as an image.

    Parameters
    ----------
    strokes
        A list of lines, each a list of points (x, y) from 0 to 1; y points down.
    centred
        Whether the drawing is scaled to 20 x 20 pixels, and its centre of mass moved to the middle,
        as MNIST's digits were. Otherwise it is only shrunk, and stays where it lies.

    Returns
    -------
    numpy.ndarray
        float32, (28, 28), 0 for paper and 1 for ink, in steps of 1/255.
    """
    lines = [np.asarray(stroke, float).reshape(-1, 2) for stroke in strokes if len(stroke)]
    if not lines:
        return np.zeros((SIZE, SIZE), np.float32)
    if not centred:
        return ink([line * SIZE - 0.5 for line in lines])
    points = np.concatenate(lines)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (BOX - 2 * PEN - 1) / max(*(high - low), DOT)
    lines = [(line - (low + high) / 2) * scale + MIDDLE for line in lines]
    shift = MIDDLE - centre_of_mass(ink(lines))
    return ink([line + shift for line in lines])


def ink(lines):
    """Return an image of lines. A pixel is darker the nearer it is to a line."""
    starts = np.concatenate([line[:-1] if len(line) > 1 else line for line in lines])
    ends = np.concatenate([line[1:] if len(line) > 1 else line for line in lines])
    along = ends - starts
    squared = np.maximum((along**2).sum(axis=1), 1e-12)
    y, x = np.mgrid[:SIZE, :SIZE]
    pixels = np.stack([x, y], axis=-1)[:, :, None]  # (28, 28, 1, 2), against (segments, 2)
    part = np.clip(((pixels - starts) * along).sum(axis=-1) / squared, 0, 1)
    distance = np.sqrt(((starts + part[..., None] * along - pixels) ** 2).sum(axis=-1)).min(axis=-1)
    shade = np.clip(PEN + 0.5 - distance, 0, 1)
    return (np.floor(shade * 255 + 0.5) / 255).astype(np.float32)


def centre_of_mass(image):
    """Return the centre of an image's ink, (x, y) in pixels from 0."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.asarray(image, float)
    return np.array([(image * x).sum(), (image * y).sum()]) / max(image.sum(), 1e-12)

"""Twenty digits that we drew ourselves: two of each, as lists of strokes."""

from __future__ import annotations

import numpy as np

# Strokes as a few points each, in per cent of the pad; a smooth line is laid through them. "|"
# begins a new stroke.
CORNERS = {
    0: [
        "52 15, 35 22, 26 45, 29 70, 45 85, 62 78, 72 55, 68 30, 52 15",
        "60 18, 40 18, 27 38, 27 62, 40 83, 60 82, 73 62, 72 36, 58 17",
    ],
    1: ["55 14, 53 38, 50 62, 48 87", "36 30, 48 22, 58 12 / 58 12, 56 40, 54 64, 52 88"],
    2: [
        "30 30, 40 17, 58 16, 68 28, 62 46, 45 64, 28 83 / 28 83, 50 81, 73 82",
        "31 34, 36 19, 54 14, 67 25, 64 42, 48 62, 30 80, 36 86, 46 80, 58 82, 72 86",
    ],
    3: [
        "30 22, 45 14, 62 20, 64 34, 54 45, 44 48 / 44 48, 60 52, 69 65, 62 80, 45 86, 28 79",
        "31 18, 48 15, 65 17 / 65 17, 56 31, 46 44 / 46 44, 61 49, 69 64, 61 81, 44 86, 29 80",
    ],
    4: [
        "36 16, 32 34, 28 54 / 28 54, 48 53, 74 52 | 64 17, 62 48, 59 87",
        "58 14, 44 36, 26 60 / 26 60, 50 60, 76 59 | 62 34, 60 60, 58 87",
    ],
    5: [
        "68 17, 52 17, 37 18 / 37 18, 35 32, 33 45 / 33 45, 50 41, 65 49, 69 64, 59 80, 44 86, 29 81",
        "39 18, 37 32, 35 46 / 35 46, 50 40, 65 48, 68 65, 57 81, 42 85, 29 79 | 39 18, 54 17, 69 15",
    ],
    6: [
        "62 14, 44 28, 32 50, 31 70, 42 85, 58 84, 67 71, 62 58, 49 54, 35 64",
        "56 13, 42 32, 33 56, 34 76, 46 87, 62 82, 67 68, 58 56, 44 59, 35 70",
    ],
    7: [
        "28 20, 48 19, 72 18 / 72 18, 62 40, 52 62, 44 88",
        "29 22, 50 20, 71 17 / 71 17, 60 42, 51 66, 45 87 | 40 52, 52 51, 66 49",
    ],
    8: [
        "63 24, 50 14, 37 22, 39 36, 52 47, 65 61, 64 77, 50 87, 36 79, 35 63, 47 50, 60 38, 64 25",
        "52 48, 38 38, 37 22, 51 14, 64 22, 62 38, 50 48, 36 62, 36 79, 51 87, 66 78, 65 62, 51 48",
    ],
    9: [
        "66 28, 54 16, 39 22, 34 37, 43 49, 58 46, 66 31 / 66 31, 65 54, 60 72, 55 88",
        "64 24, 50 15, 37 25, 37 42, 50 49, 62 40, 65 26 / 65 26, 64 50, 60 70, 46 86, 34 82",
    ],
}


def smooth(corners, steps=8):
    """Return the points of a line through all corners, by Catmull and Rom's formula (1974)."""
    corners = np.asarray(corners, float)
    padded = np.concatenate([corners[:1], corners, corners[-1:]])
    t = (np.arange(steps) / steps)[:, None]
    pieces = []
    for before, start, end, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(
            start
            + t * (end - before) / 2
            + t**2 * (before - 2.5 * start + 2 * end - after / 2)
            + t**3 * ((after - before) / 2 + 1.5 * (start - end))
        )
    return np.concatenate([*pieces, corners[-1:]])


def strokes_of(text):
    """Return the strokes that a text in `CORNERS` describes; "/" is a sharp corner."""
    strokes = []
    for stroke in text.split("|"):
        points = []
        for part in stroke.split("/"):
            corners = [[float(number) for number in pair.split()] for pair in part.split(",")]
            points += (smooth(corners) / 100).round(3).tolist()
        strokes.append(points)
    return strokes


# Digit -> its two drawings.
DRAWINGS = {digit: [strokes_of(text) for text in texts] for digit, texts in CORNERS.items()}

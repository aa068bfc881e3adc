"""The same as text and as still pictures, for where nothing moves."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

PAPER = "#fffdf8"
INK = "#33373d"
BAR, BEST = "#1f5fa8", "#d4660f"


def told(logits, scores, temperature=1.0):
    """Return a model's answer as text: the digit, then the logits and the scores in two rows."""
    best = int(np.argmax(scores))
    rows = [
        "digit " + "".join(f"{digit:8d}" for digit in range(len(scores))),
        "logit " + "".join(f"{logit:8.2f}" for logit in logits),
        "score " + "".join(f"{score:8.3f}" for score in scores),
    ]
    heat = "" if temperature == 1 else f" at temperature {temperature:g}"
    return "\n".join([f"The model says {best}, with a score of {scores[best]:.3f}{heat}.", *rows])


def pad(strokes, image, logits, scores):
    """Return a figure: the drawing, the image, the logits and the scores side by side."""
    figure = Figure(figsize=(8.4, 2.7), layout="constrained", facecolor=PAPER)
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 0.95, 0.95])
    draw(axes[0], strokes)
    axes[0].set_title("the drawing")
    show(axes[1], image)
    axes[1].set_title("what the model sees")
    bars(axes[2], logits, "logits", "{:.1f}")
    bars(axes[3], scores, "softmax scores", "{:.2f}")
    return figure


def draw(axes, strokes):
    """Draw strokes as a pen does."""
    frame(axes)
    axes.set(xlim=(0, 1), ylim=(1, 0), aspect="equal")
    for stroke in strokes:
        x, y = zip(*stroke, strict=True)
        axes.plot(x, y, color=INK, linewidth=6, solid_capstyle="round", solid_joinstyle="round")


def show(axes, image):
    """Show an image of a digit, dark on light."""
    frame(axes)
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")


def frame(axes):
    """Leave of axes a thin frame."""
    axes.set(xticks=[], yticks=[], facecolor="white")
    axes.grid(False)
    for side in axes.spines.values():
        side.set(visible=True, color="#8a8f98", linewidth=0.8)


def bars(axes, values, title, form):
    """Draw one bar for each digit; the longest has another colour, a hatching, and bold words."""
    best = int(np.argmax(values))
    digits = np.arange(len(values))
    drawn = axes.barh(digits, values, color=BAR, height=0.72, edgecolor=PAPER)
    drawn[best].set(facecolor=BEST, hatch="////")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(yticks=digits, ylim=(len(values) - 0.5, -0.5), xticks=[], title=title)
    axes.set_facecolor(PAPER)
    axes.grid(False)
    axes.tick_params(axis="y", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    low, high = min(0, *values), max(0, *values)
    room = 0.32 * ((high - low) or 1)
    axes.set_xlim(low - (room if low < 0 else 0), high + room)
    for digit, value in enumerate(values):
        axes.annotate(
            form.format(value),
            (value, digit),
            xytext=(3 if value >= 0 else -3, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center",
            fontsize=8.5,
            fontweight="bold" if digit == best else "normal",
        )
    axes.get_yticklabels()[best].set(fontweight="bold", color=BEST)


def wall(images, labels, columns=10):
    """Return a figure of images in rows, each with its label."""
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(8, 0.95 * rows + 0.1), layout="constrained", facecolor=PAPER)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, image, label in zip(grid, images, labels, strict=False):
        show(axes, image)
        axes.set_title(str(label), fontsize=10, pad=3, loc="center")
    for axes in grid[len(images) :]:
        axes.set_axis_off()
    return figure

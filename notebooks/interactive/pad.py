"""A pad to draw a digit on, beside what a model sees of it and says."""

from __future__ import annotations

import numpy as np

from interactive import live, network, picture
from interactive.drawings import DRAWINGS
from interactive.raster import rasterise

EXAMPLE = DRAWINGS[3][0]


class DigitPad:
    """A pad to draw a digit on; it shows the image, the logits and the scores of a model.

    Parameters
    ----------
    model
        A Keras model for images of 28 x 28 pixels from 0 to 1. It returns logits or softmax scores.
    strokes
        A drawing to begin with: lists of points (x, y) from 0 to 1. By default a 3. The first
        stroke in the browser replaces it.
    temperature
        What the logits are divided by before softmax.
    """

    def __init__(self, model, strokes=None, temperature=1.0):
        self.model = model
        network.logits_of(model, rasterise([]))  # a model that does not fit is told of here
        state = {
            "strokes": plain(EXAMPLE if strokes is None else strokes),
            "example": True,
            "temperature": float(temperature),
            "centred": True,
            "seen": {},
            "problem": "",
        }
        self._shared = live.Shared("pad.js", state, self._changed)
        self._look()

    @property
    def strokes(self):
        """The drawing."""
        return self._shared.get("strokes")

    @strokes.setter
    def strokes(self, strokes):
        self._shared.set("strokes", plain(strokes))

    @property
    def temperature(self):
        """What the logits are divided by before softmax."""
        return self._shared.get("temperature")

    @temperature.setter
    def temperature(self, temperature):
        self._shared.set("temperature", float(temperature))

    @property
    def centred(self):
        """Whether the drawing is centred as MNIST's digits were."""
        return self._shared.get("centred")

    @centred.setter
    def centred(self, centred):
        self._shared.set("centred", bool(centred))

    @property
    def image(self):
        """What the model sees: (28, 28), float32 from 0 to 1."""
        return rasterise(self.strokes, self.centred)

    @property
    def logits(self):
        """The model's logits, one for each digit."""
        return network.logits_of(self.model, self.image)

    @property
    def scores(self):
        """The softmax of the logits, divided by the temperature."""
        return network.softmax(self.logits, self.temperature)

    @property
    def answer(self):
        """The digit with the highest score."""
        return int(np.argmax(self.logits))

    def clear(self):
        """Take the drawing away."""
        self.strokes = []

    def _changed(self, name):
        """Compute anew when the browser, or a cell, has changed the drawing."""
        if name in ("strokes", "centred"):
            self._look()

    def _look(self):
        """Tell the browser what the model sees and says."""
        try:
            seen, problem = network.seen(self.model, self.image), ""
        except Exception as error:  # shown on the pad; in a callback nobody would see it
            seen, problem = network.seen(None, self.image), f"The model cannot answer: {error}"
        self._shared.set("problem", problem)
        self._shared.set("seen", seen)

    def __repr__(self):
        if not self.strokes:
            return "DigitPad: nothing is drawn yet."
        return picture.told(self.logits, self.scores, self.temperature)

    def _repr_mimebundle_(self, **_):
        figure = picture.pad(self.strokes, self.image, self.logits, self.scores)
        steps = network.packed(self.model)
        content = {
            "version": 1,
            "strokes": self.strokes,
            "temperature": self.temperature,
            "centred": self.centred,
            "network": steps,
        }
        return live.bundle(self._shared, repr(self), figure, "pad", content if steps else None)


def plain(strokes):
    """Return strokes as lists of numbers; refuse what is none."""
    found = [[[float(x), float(y)] for x, y in stroke] for stroke in strokes]
    if any(not 0 <= number <= 1 for stroke in found for point in stroke for number in point):
        raise ValueError("the points of strokes go from 0 to 1")
    return found

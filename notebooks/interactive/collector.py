"""A pad that asks for one digit after the other, and saves each in a file beside the notebook."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from interactive import live, network, picture
from interactive.drawings import DRAWINGS
from interactive.pad import plain
from interactive.raster import rasterise


class DigitCollector:
    """A pad that asks for digits and saves them.

    Parameters
    ----------
    labels
        The digits to draw, in order.
    model
        A Keras model whose answer is shown while you draw; by default none.
    file
        Where the drawings are kept. Those that are there already are loaded.
    """

    def __init__(self, labels, model=None, file="my_digits.json"):
        self.asked = [int(label) for label in labels]
        if not set(self.asked) <= set(DRAWINGS):
            raise ValueError(f"labels are digits from 0 to 9, not {self.asked}")
        self.model = model
        self.file = Path(file).resolve()  # a later `os.chdir` changes nothing
        self.saved, self._problem = load(self.file)
        state = {
            "strokes": [],
            "example": False,
            "temperature": 1.0,
            "centred": True,
            "seen": {},
            "problem": self._problem,
            "collecting": {},
        }
        self._shared = live.Shared("pad.js", state, self._changed, self._said)
        self._tell()

    @property
    def wanted(self):
        """The labels that are still to be drawn."""
        left = Counter(label for label, _ in self.saved)
        wanted = []
        for label in self.asked:
            if left[label]:
                left[label] -= 1
            else:
                wanted.append(label)
        return wanted

    @property
    def drawn(self):
        """How many digits you have saved."""
        return len(self.saved)

    @property
    def labels(self):
        """The labels of `digits`: (n,), int64."""
        return np.array([label for label, _ in self._drawings()], np.int64)

    @property
    def digits(self):
        """The images: (n, 28, 28), float32 from 0 to 1; ours, until you have drawn one."""
        images = [rasterise(strokes) for _, strokes in self._drawings()]
        return np.array(images, np.float32).reshape(-1, 28, 28)

    def save(self, label, strokes):
        """Add a drawing, and write the file."""
        self.saved.append((int(label), plain(strokes)))
        self._write()

    def undo(self):
        """Forget the drawing that was saved last."""
        if self.saved:
            self.saved.pop()
            self._write()

    def start_again(self):
        """Forget all drawings."""
        self.saved.clear()
        self._write()

    def _drawings(self):
        """Return the drawings that were saved; without any, ours."""
        if self.saved:
            return self.saved
        seen = Counter()
        drawings = []
        for label in self.asked:
            ours = DRAWINGS[label]
            drawings.append((label, ours[seen[label] % len(ours)]))
            seen[label] += 1
        return drawings

    def _write(self):
        """Write the file aside and rename it: a full disk costs the last digit, not all of them."""
        digits = [{"label": label, "strokes": strokes} for label, strokes in self.saved]
        aside = self.file.with_suffix(".new")
        try:
            aside.write_text(json.dumps({"version": 1, "digits": digits}), encoding="utf-8")
            os.replace(aside, self.file)
            self._problem = ""
        except OSError as error:
            self._problem = f"{self.file.name} cannot be written: {error.strerror}."
        self._tell()

    def _tell(self):
        """Tell the browser what to ask for, and what has been collected already."""
        wanted = self.wanted
        collecting = {
            "ask": str(wanted[0]) if wanted else "",
            "done": len(self.asked) - len(wanted),
            "total": len(self.asked),
            "last": str(self.saved[-1][0]) if self.saved else "",
        }
        self._shared.set("collecting", collecting)
        self._shared.set("problem", self._problem)
        self._look()

    def _said(self, message):
        """Do what a button asks for."""
        wanted = self.wanted
        if message.get("do") == "save" and wanted and message.get("strokes"):
            self._shared.set("strokes", [])
            self.save(wanted[0], message["strokes"])
        elif message.get("do") == "undo":
            self.undo()

    def _changed(self, name):
        if name in ("strokes", "centred"):
            self._look()

    def _look(self):
        """Tell the browser what a model would see, and says."""
        image = rasterise(self._shared.get("strokes"), self._shared.get("centred"))
        self._shared.set("seen", network.seen(self.model, image))

    def __repr__(self):
        done = len(self.asked) - len(self.wanted)
        said = f"DigitCollector: {done} of {len(self.asked)} digits are drawn."
        if not self.saved:
            said += " Until you draw some, drawings of ours stand in."
        return said

    def _repr_mimebundle_(self, **_):
        return live.bundle(self._shared, repr(self), picture.wall(self.digits, self.labels))


def load(file):
    """Return the drawings in a file, and a sentence if it cannot be read; it is then put away.

    With COURSE_EXAMPLES set, a file counts as empty: what lessons store does not depend on it.
    """
    if os.environ.get("COURSE_EXAMPLES"):
        return [], ""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return [(int(one["label"]), plain(one["strokes"])) for one in content["digits"]], ""
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"{file.name} cannot be read: {error.strerror}."
    except (ValueError, TypeError, KeyError):
        kept = file.with_name(f"{file.stem}-damaged{file.suffix}")
        os.replace(file, kept)
        return [], f"{file.name} was damaged; it is now {kept.name}, and you begin with no digits."

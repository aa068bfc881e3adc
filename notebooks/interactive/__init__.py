"""Two things to touch, for the lessons beside this folder: a pad to draw digits on, and a film.

    from interactive import DigitPad, DigitCollector, DRAWINGS, Film

`DigitPad(model)`, as the last line of a cell, shows a pad beside what the model sees and says::

    pad = DigitPad(model)   # strokes=DRAWINGS[7][0] to begin with; temperature=1.0
    pad                     # draw!
    pad.image               # (28, 28), float32 from 0 to 1: what the model sees
    pad.logits, pad.scores  # (10,) each; the scores are softmax(logits / pad.temperature)
    pad.answer              # the digit with the highest score
    pad.strokes             # the drawing: lists of points (x, y) from 0 to 1
    pad.clear()

`DigitCollector(labels)` asks for one digit after the other, and saves each at once in
`my_digits.json` beside the notebook, so that none is lost when the kernel restarts::

    mine = DigitCollector(labels=list(range(10)) * 2)   # two of each digit
    mine                    # draw, press "Save this digit", draw the next
    mine.digits             # (n, 28, 28), float32 from 0 to 1, as they were drawn
    mine.labels             # (n,), int64
    mine.drawn              # how many of them you drew; 0 until you have saved one: till then
                            # `digits` holds drawings of ours, two of each digit, as stand-ins
    mine.wanted             # the labels that are still to be drawn
    mine.undo()             # forget the last one; `mine.start_again()` forgets all of them

Pass `file="other.json"` for another file, and `model=model` to see the model's answer while you
draw.

`Film(frames, captions=None, title="")` shows one picture after the other, with play and step
buttons. Frames are Matplotlib figures, or an array: (n, height, width), or (n, k, height, width)
for k images side by side.

`DRAWINGS[digit]` is a list of two drawings of a digit, and `rasterise(strokes)` makes the image.

All of this needs NumPy and Matplotlib. With anywidget installed, it comes to life in JupyterLab;
without, or where no browser is, such as on GitHub, the same cells show a still picture.
"""

from interactive.collector import DigitCollector
from interactive.drawings import DRAWINGS
from interactive.film import Film
from interactive.pad import DigitPad
from interactive.raster import rasterise

__all__ = ["DRAWINGS", "DigitCollector", "DigitPad", "Film", "rasterise"]

"""What a cell shows: a live widget where there is a browser, a still picture everywhere else."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, PngImagePlugin

try:
    import anywidget
    import traitlets
except ImportError:  # the still picture does without
    anywidget = None

FOLDER = Path(__file__).parent
HOW = 'To bring this to life, run "%pip install anywidget" in a cell and restart the kernel.'
DPI = 200  # twice Matplotlib's, for sharp screens


class Shared:
    """What Python and the browser share, by name; without anywidget, Python has it alone.

    Parameters
    ----------
    script
        The name of the JavaScript file beside this one that draws it.
    state
        The names, and the values to begin with.
    changed
        Called with a name when a cell, or the browser, has given it another value.
    said
        Called with each message that the browser sends.
    """

    def __init__(self, script, state, changed=None, said=None):
        self.changed = changed
        self.widget = None
        self.values = state if anywidget is None else None
        if anywidget is not None:
            self.widget = widget(script, state, changed, said)

    def get(self, name):
        """Return a value."""
        return getattr(self.widget, name) if self.widget else self.values[name]

    def set(self, name, value):
        """Give a name another value."""
        if self.widget:
            setattr(self.widget, name, value)
        elif self.values[name] != value:
            self.values[name] = value
            if self.changed:
                self.changed(name)


def widget(script, state, changed, said):
    """Return a live widget; the parameters are those of `Shared`."""
    kinds = {bool: traitlets.Bool, float: traitlets.Float, int: traitlets.Int}
    kinds |= {str: traitlets.Unicode, list: traitlets.List, dict: traitlets.Dict}
    shared = {name: kinds[type(value)](value).tag(sync=True) for name, value in state.items()}
    files = {"_esm": FOLDER / script, "_css": FOLDER / "interactive.css"}
    kind = type("Interactive", (anywidget.AnyWidget,), {**files, **shared})
    made = kind()
    if changed:
        made.observe(lambda change: changed(change["name"]), list(state))
    if said:
        made.on_msg(lambda _, message, buffers: said(message))
    return made


def bundle(shared, text, figure, kind="", content=None):
    """Return the forms of an output and their metadata: IPython's `_repr_mimebundle_`.

    Parameters
    ----------
    shared
        What is live, where it can be.
    text, figure
        What is shown without a front end: plain text, and a Matplotlib figure.
    kind, content
        The name and the content of a form for pages that bring it to life without Python.
    """
    if shared.widget is None:
        text = f"{text}\n{HOW}"
        figure.supxlabel(HOW, fontsize=9)
    picture, size = png(figure)
    data = {"text/plain": text, "image/png": picture}
    metadata = {"image/png": size}
    if content is not None:
        data[f"application/vnd.tensorflow-course.{kind}+json"] = content
    if shared.widget is not None:
        shown = shared.widget._repr_mimebundle_()
        shown, about = shown if isinstance(shown, tuple) else (shown, {})
        data = {**shown, **data}
        metadata = {**about, **metadata}
    return data, metadata


def png(figure):
    """Return a figure as PNG in base64, and how large it is meant to be shown.

    It has 256 colours, which makes it a third as large. It keeps what Matplotlib notes in it: its
    resolution and who drew it.
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB")
    few = picture.quantize(256, dither=Image.Dither.NONE)
    software = PngImagePlugin.PngInfo()
    software.add_text("Software", picture.info["Software"])
    few.save(small, "PNG", optimize=True, dpi=picture.info["dpi"], pnginfo=software)
    size = {"width": picture.width // 2, "height": picture.height // 2}
    return base64.b64encode(small.getvalue()).decode(), size

"""What a cell shows: a live widget where there is a browser, a still picture everywhere else."""

from __future__ import annotations

import base64
import io
from pathlib import Path

try:
    import anywidget
    import traitlets
except ImportError:  # the still picture does without
    anywidget = None

FOLDER = Path(__file__).parent
HOW = 'To bring this to life, run "%pip install anywidget" in a cell and restart the kernel.'
DPI = 200  # twice Matplotlib's, for sharp screens


def widget(script, state, changed=None, said=None):
    """Return a live widget; None where anywidget is not installed.

    Parameters
    ----------
    script
        The name of the JavaScript file beside this one that draws it.
    state
        What Python and the browser share, by name.
    changed
        Called when the browser has changed something, with its name and its new value.
    said
        Called with each message that the browser sends.
    """
    if anywidget is None:
        return None
    kinds = {bool: traitlets.Bool, float: traitlets.Float, int: traitlets.Int}
    kinds |= {str: traitlets.Unicode, list: traitlets.List, dict: traitlets.Dict}
    shared = {name: kinds[type(value)](value).tag(sync=True) for name, value in state.items()}
    files = {"_esm": FOLDER / script, "_css": FOLDER / "interactive.css"}
    kind = type("Interactive", (anywidget.AnyWidget,), {**files, **shared})
    made = kind()
    if changed:
        made.observe(lambda change: changed(change["name"], change["new"]), list(state))
    if said:
        made.on_msg(lambda _, message, buffers: said(message))
    return made


def bundle(live, text, figure, kind="", content=None):
    """Return the forms of an output and their metadata: IPython's `_repr_mimebundle_`.

    Parameters
    ----------
    live
        What `widget` returns.
    text, figure
        What is shown without a front end: plain text, and a Matplotlib figure.
    kind, content
        The name and the content of a form for pages that bring it to life without Python.
    """
    if live is None:
        text = f"{text}\n{HOW}"
    picture, size = png(figure)
    data = {"text/plain": text, "image/png": picture}
    metadata = {"image/png": size}
    if content is not None:
        data[f"application/vnd.tensorflow-course.{kind}+json"] = content
    if live is not None:
        shown = live._repr_mimebundle_()
        shown, about = shown if isinstance(shown, tuple) else (shown, {})
        data = {**shown, **data}
        metadata = {**about, **metadata}
    return data, metadata


def png(figure):
    """Return a figure as PNG in base64, and how large it is meant to be shown."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    width, height = (figure.get_size_inches() * DPI / 2).round().astype(int).tolist()
    return base64.b64encode(file.getvalue()).decode(), {"width": width, "height": height}

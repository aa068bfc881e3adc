"""Which notebooks are meant, and what is in their files."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nbval_tolerance.config import Config

# What has to be there of each node, and as what: what this package, nbval and nbclient read.
TEXT = (str, list)  # of lines
NOTEBOOK = {"metadata": dict, "cells": list}
CELL = {"cell_type": str, "metadata": dict, "source": TEXT}
CODE = {"outputs": list, "execution_count": (int, type(None))}
SHOWN = {"data": dict, "metadata": dict}
OUTPUTS = {
    "stream": {"name": str, "text": TEXT},
    "error": {"ename": str, "evalue": str, "traceback": list},
    "display_data": SHOWN,
    "execute_result": SHOWN,
}


class NotebookError(Exception):
    """There is no such notebook, or its file does not hold one; the message is a sentence."""


def find_notebooks(names: list[str], config: Config) -> list[Path]:
    """Return the notebooks that `names` mean, in the order given; all of them if there are none.

    Hidden files and folders, those whose name begins with a dot, are left out unless they are named
    with it: a Jupyter server writes `.~lesson.ipynb` for a moment while it saves.

    Parameters
    ----------
    names
        Paths of notebooks or folders; or, of the notebooks in `config.notebooks`, a name or what it
        begins with, with or without the folder: `04`, `05_loss`, `solutions/04`. Whole words come
        first: `04` means `04b` only if no name is `04` or goes on as `05_loss` does.

    Raises
    ------
    NotebookError
        If a name means no notebook.
    """
    folder = config.folder or Path.cwd()
    known = list(dict.fromkeys(path for each in config.notebooks for path in inside(folder, each)))
    if not names:
        if not known:
            patterns = ", ".join(map(repr, config.notebooks))
            raise NotebookError(f"no notebook in {folder} is called {patterns}; name one")
        return known
    found: list[Path] = []
    for name in names:
        found += [path for path in named(name, known) if path not in found]
    return found


def inside(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder that match a pattern; a wildcard matches no leading dot."""
    paths = (folder / name for name in glob.glob(pattern, root_dir=folder, recursive=True))
    return sorted(path for path in paths if path.is_file())


def named(name: str, known: list[Path]) -> list[Path]:
    """Return the notebooks that one name means; raise `NotebookError` if there is none."""
    given = Path(name)
    if given.is_dir():
        if found := inside(given, "*.ipynb"):
            return found
        raise NotebookError(f"the folder {name!r} holds no notebook")
    if given.exists():
        if given.suffix == ".ipynb":
            return [given]
        raise NotebookError(f"{name!r} is not a notebook: its name does not end in .ipynb")
    begins = [path for path in known if is_named(path, given)]
    if found := [path for path in begins if ends_word(path, given)] or begins:
        return found
    listed = ", ".join(map(label, known))
    there = f"; there are: {listed}" if listed else ""
    raise NotebookError(f"no notebook is called {name!r}{there}")


def is_named(path: Path, given: Path) -> bool:
    """Tell whether a notebook's name begins as given; with `.ipynb`, whether it is the whole."""
    same = path.name == given.name if given.suffix == ".ipynb" else path.stem.startswith(given.name)
    return same and given.parent in (Path(), path.parent, Path(path.parent.name))


def ends_word(path: Path, given: Path) -> bool:
    """Tell whether what is given of a notebook's name ends with a word in it."""
    return not path.stem[len(given.name) :][:1].isalnum()


def label(path: Path) -> str:
    """Return a notebook's path as a reader would write it."""
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def read(path: Path) -> NotebookNode:
    """Return the notebook in a file, in nbformat 4; raise `NotebookError` as `parse` does."""
    return parse(content(path))


def content(path: Path) -> bytes:
    """Return what is in a file; raise `NotebookError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotebookError(f"it cannot be read ({error.strerror})") from None


def parse(text: bytes) -> NotebookNode:
    """Return the notebook that a file's content is, in nbformat 4.

    Raises
    ------
    NotebookError
        If it is not one, or lacks something that is read of it. The message speaks of the file as
        `it`, and says what to do.
    """
    again = "Restore the file, or save it again in Jupyter"
    if not text.strip():
        raise NotebookError(f"it is not a notebook: the file is empty. {again}")
    try:
        found = json.loads(text.decode())
    except UnicodeDecodeError:
        raise NotebookError(f"it is not a notebook: the file is not UTF-8. {again}") from None
    except (ValueError, RecursionError) as error:
        why = f"the file is not JSON ({error})"
        if b"\n<<<<<<< " in text:
            why, again = "the file holds a conflict that Git could not merge", "Resolve it"
        raise NotebookError(f"it is not a notebook: {why}. {again}") from None
    if not isinstance(found, dict) or not {"cells", "worksheets"} & set(found):
        raise NotebookError(f"it is not a notebook: the file's JSON has no cells. {again}")
    try:
        if found.get("nbformat") == 4:  # of older ones, nbformat makes one
            check(found)
    except NotebookError as error:
        raise NotebookError(f"it is not a valid notebook: {error}. {again}") from None
    try:
        return nbformat.reads(text.decode(), as_version=4)
    except Exception as error:  # nbformat names none: it may stumble over any wrong shape
        known = isinstance(error, nbformat.ValidationError | ValueError)
        why = f" ({str(error).partition(chr(10))[0]})" if known else ""
        raise NotebookError(f"it is not a notebook that nbformat can read{why}. {again}") from None


def check(notebook: Mapping) -> None:
    """Raise `NotebookError` if a notebook's JSON lacks something that is read of it.

    nbformat's own schema refuses more: keys that it does not know, a kernel without a display name.
    Such notebooks run.
    """
    check_node(notebook, NOTEBOOK, "the notebook")
    check_node(notebook["metadata"].get("kernelspec", {}), {}, "the notebook's 'kernelspec'")
    number = 0
    for cell in notebook["cells"]:
        is_code = isinstance(cell, Mapping) and cell.get("cell_type") == "code"
        where = f"Cell {number}" if is_code else f"the cell before Cell {number}"
        check_node(cell, CELL | CODE if is_code else CELL, where)
        tags = cell["metadata"].get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise NotebookError(f"the tags of {where} are not a list of texts: {tags!r}")
        for output in cell["outputs"] if is_code else []:
            check_output(output, f"an output of {where}")
        number += is_code


def check_output(output: Mapping, where: str) -> None:
    """Raise `NotebookError` if an output of a cell is not one."""
    check_node(output, {"output_type": str}, where)
    kind = output["output_type"]
    if kind not in OUTPUTS:
        raise NotebookError(f"{where} is of an unknown type, {kind!r}")
    check_node(output, OUTPUTS[kind], where)
    data = output.get("data", {})
    texts = [name for name in data if name.startswith(("text/", "image/"))]
    check_node(data, dict.fromkeys(texts, TEXT), where)


def check_node(node: object, wanted: Mapping[str, type | tuple], where: str) -> None:
    """Raise `NotebookError` if a part of a notebook lacks a key, or holds another kind there."""
    if not isinstance(node, Mapping):
        raise NotebookError(f"{where} is of a wrong kind")
    for key, kind in wanted.items():
        if key not in node:
            raise NotebookError(f"{where} has no {key!r}")
        if not isinstance(node[key], kind):
            raise NotebookError(f"the {key!r} of {where} is of a wrong kind")

"""Find and read the notebooks that a user names."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nbval_tolerance.config import Config

# The keys that this package, nbval and nbclient read from each node, with the required types.
TEXT = (str, list)  # A string or a list of lines.
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
    """A notebook does not exist, or its file is not a valid notebook."""


def find_notebooks(names: list[str], config: Config) -> list[Path]:
    """Return the notebooks that `names` select, in order, or all notebooks if `names` is empty.

    Hidden files and folders, whose names start with a dot, are skipped unless the given name
    includes the dot. Jupyter, for example, creates a temporary file `.~lesson.ipynb` while saving.

    Parameters
    ----------
    names
        Paths of notebooks or folders. Notebooks that match `config.notebooks` can also be selected
        by the full name or the start of the name, with or without the folder, such as `05`,
        `05_loss` or `solutions/05`. Matches of whole words take precedence, so `05` selects `05b`
        only if no name starts with the word `05`.

    Raises
    ------
    NotebookError
        If a name selects no notebook.
    """
    folder = config.folder or Path.cwd()
    known = list(dict.fromkeys(path for each in config.notebooks for path in inside(folder, each)))
    if not names:
        if not known:
            patterns = ", ".join(map(repr, config.notebooks))
            raise NotebookError(f"no notebook in {folder} matches {patterns}; name one")
        return known
    found: list[Path] = []
    for name in names:
        found += [path for path in named(name, known) if path not in found]
    return found


def inside(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder that match a pattern; wildcards do not match a leading dot."""
    paths = (folder / name for name in glob.glob(pattern, root_dir=folder, recursive=True))
    return sorted(path for path in paths if path.is_file())


def named(name: str, known: list[Path]) -> list[Path]:
    """Return the notebooks that a name selects; raise `NotebookError` if there are none."""
    given = Path(name)
    if given.is_dir():
        if found := inside(given, "*.ipynb"):
            return found
        raise NotebookError(f"the folder {name!r} contains no notebook")
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
    """Return whether `given` is a notebook's full name with `.ipynb`, or the start of its name."""
    same = path.name == given.name if given.suffix == ".ipynb" else path.stem.startswith(given.name)
    return same and given.parent in (Path(), path.parent, Path(path.parent.name))


def ends_word(path: Path, given: Path) -> bool:
    """Return whether the given start of a notebook's name ends at a word boundary."""
    return not path.stem[len(given.name) :][:1].isalnum()


def label(path: Path) -> str:
    """Return a notebook's path for display, relative to the working directory if possible."""
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()


def read(path: Path) -> NotebookNode:
    """Read a notebook file and convert it to nbformat 4; raise `NotebookError` if this fails."""
    return parse(content(path))


def content(path: Path) -> bytes:
    """Return the content of a file; raise `NotebookError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotebookError(f"it cannot be read ({error.strerror})") from None


def parse(text: bytes) -> NotebookNode:
    """Parse a notebook file's content and convert it to nbformat 4.

    Raises
    ------
    NotebookError
        If the content is not a notebook, or lacks a required part. The message refers to the file
        as `it` and says what to do.
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
            why, again = "the file contains a conflict that Git could not merge", "Resolve it"
        raise NotebookError(f"it is not a notebook: {why}. {again}") from None
    if not isinstance(found, dict) or not {"cells", "worksheets"} & set(found):
        raise NotebookError(f"it is not a notebook: the file's JSON has no cells. {again}")
    try:
        if found.get("nbformat") == 4:  # nbformat converts older notebooks
            check(found)
    except NotebookError as error:
        raise NotebookError(f"it is not a valid notebook: {error}. {again}") from None
    try:
        return nbformat.reads(text.decode(), as_version=4)
    except Exception as error:  # nbformat may raise any exception for malformed content
        known = isinstance(error, nbformat.ValidationError | ValueError)
        why = f" ({str(error).partition(chr(10))[0]})" if known else ""
        raise NotebookError(f"it is not a notebook that nbformat can read{why}. {again}") from None


def check(notebook: Mapping) -> None:
    """Raise `NotebookError` if a notebook's JSON lacks a part that this package needs.

    nbformat's own schema is too strict. For example, it rejects notebooks that have unknown keys or
    whose kernel has no display name, although such notebooks can be run.
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
            raise NotebookError(f"the tags of {where} are not a list of strings: {tags!r}")
        for output in cell["outputs"] if is_code else []:
            check_output(output, f"an output of {where}")
        number += is_code


def check_output(output: Mapping, where: str) -> None:
    """Raise `NotebookError` if an output of a cell is malformed."""
    check_node(output, {"output_type": str}, where)
    kind = output["output_type"]
    if kind not in OUTPUTS:
        raise NotebookError(f"{where} has an unknown type, {kind!r}")
    check_node(output, OUTPUTS[kind], where)
    data = output.get("data", {})
    texts = [name for name in data if name.startswith(("text/", "image/"))]
    check_node(data, dict.fromkeys(texts, TEXT), where)


def check_node(node: object, wanted: Mapping[str, type | tuple], where: str) -> None:
    """Raise `NotebookError` if part of a notebook lacks a key or has a value of the wrong type."""
    if not isinstance(node, Mapping):
        raise NotebookError(f"{where} has the wrong type")
    for key, kind in wanted.items():
        if key not in node:
            raise NotebookError(f"{where} has no {key!r}")
        if not isinstance(node[key], kind):
            raise NotebookError(f"the {key!r} of {where} has the wrong type")

"""Implement the `nbval-tolerance` command, which stores outputs and adds probes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat

from nbval_tolerance import __version__
from nbval_tolerance.config import ConfigError, find
from nbval_tolerance.controls import KEY, ControlError, expressions, notes, tags_of
from nbval_tolerance.execute import code, renew
from nbval_tolerance.notebooks import NotebookError, find_notebooks, label, read


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Return 0 on success, 1 if a notebook was not stored, 2 on an error, and 130 after Ctrl-C.
    """
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ConfigError, ControlError, NotebookError) as error:
        print(f"nbval-tolerance: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"nbval-tolerance: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser for the command line."""
    result = argparse.ArgumentParser(
        prog="nbval-tolerance",
        description="Store the notebook outputs that `pytest --nbval --nbval-tolerance` uses as "
        "its reference.",
    )
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = result.add_subparsers(required=True, metavar="COMMAND")

    execute = commands.add_parser(
        "execute",
        help="run notebooks, show how their outputs would change, and store the outputs",
        description="Run notebooks in fresh kernels, from top to bottom. Show how the outputs "
        "would change, and store the new outputs once you accept them.",
        epilog="If a notebook's new outputs match the stored outputs, the stored outputs are "
        "kept. If a notebook fails, or if you do not accept its outputs, its file is left "
        "unchanged, and the exit code is 1.",
    )
    execute.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="a path, a folder, or the start of a name, such as 05 or solutions/05; whole words "
        "take precedence, so if there are both 05_loss and 05b, 05 selects 05_loss (default: all "
        "notebooks that match `notebooks` in pyproject.toml)",
    )
    execute.add_argument("--accept", action="store_true", help="store changes without asking")
    execute.add_argument(
        "--kernel", default="", metavar="NAME", help="use this kernel instead of the notebook's own"
    )
    execute.set_defaults(run=run_execute)

    probe = commands.add_parser(
        "probe",
        help="add an expression whose value is compared but never displayed",
        description="Add a probe to a cell: an expression whose value is stored and compared, but "
        "never shown to a reader.",
    )
    probe.add_argument("notebook", type=Path)
    probe.add_argument("cell", type=int, help="the number shown beside the cell, such as 7 for [7]")
    probe.add_argument("name", help='what the value is, such as "untrained scores"')
    probe.add_argument("expression", help='a Python expression, such as "model(x[:1])"')
    probe.set_defaults(run=run_probe)
    return result


def run_execute(options: argparse.Namespace) -> int:
    """Execute the given notebooks, or all notebooks if none are given."""
    paths = find_notebooks(options.notebooks, find(Path.cwd()))
    return 0 if all([renew(path, options.accept, options.kernel) for path in paths]) else 1


def run_probe(options: argparse.Namespace) -> int:
    """Add a probe to a cell's metadata."""
    if not options.notebook.exists():
        raise NotebookError(f"there is no file {str(options.notebook)!r}")
    try:
        notebook = read(options.notebook)
    except NotebookError as error:
        raise NotebookError(f"{label(options.notebook)}: {error}") from None
    cells = [cell for cell in code(notebook) if cell.execution_count == options.cell]
    if len(cells) != 1:
        shown = (
            f"{len(cells)} cells of {label(options.notebook)} are"
            if cells
            else (f"no cell of {label(options.notebook)} is")
        )
        raise NotebookError(f"{shown} shown as [{options.cell}]")
    tags_of(cells[0])  # raise an error for malformed metadata instead of overwriting it
    about = {**notes(cells[0])}
    about["probes"] = {**expressions(about), options.name: options.expression}
    expressions(about)
    cells[0].metadata[KEY] = about
    nbformat.write(notebook, options.notebook)
    print(f"[{options.cell}] has {options.name!r}. To store its value:")
    print(f"nbval-tolerance execute {label(options.notebook)}")
    return 0

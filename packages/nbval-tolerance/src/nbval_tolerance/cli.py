"""The command `nbval-tolerance`: store outputs, and add probes."""

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
    """Run a command; return 0 if it did what it was asked, 1 if not, 130 after Ctrl-C."""
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
    """Return what the command line takes."""
    result = argparse.ArgumentParser(
        prog="nbval-tolerance",
        description="Store the outputs of notebooks that `pytest --nbval --nbval-tolerance` "
        "compares with.",
    )
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = result.add_subparsers(required=True, metavar="COMMAND")

    execute = commands.add_parser(
        "execute",
        help="run notebooks, show what would change in their outputs, and store it",
        description="Run notebooks in fresh kernels, top to bottom; show what would change in "
        "their outputs, and store them once you accept.",
        epilog="A notebook whose new outputs say the same as the stored ones keeps the stored "
        "ones. One that fails, or that you do not accept, stays as it was; the exit code is then "
        "1.",
    )
    execute.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="a path, a folder, or the start of a name, as 04 or solutions/04; whole words come "
        "first, so 04 means 05_loss and not 04b, if both are there (default: all that `notebooks` "
        "in pyproject.toml names)",
    )
    execute.add_argument("--accept", action="store_true", help="store changes without asking")
    execute.add_argument(
        "--kernel", default="", metavar="NAME", help="use this kernel, not the notebook's own"
    )
    execute.set_defaults(run=run_execute)

    probe = commands.add_parser(
        "probe",
        help="add an expression whose value is compared but never displayed",
        description="Add a probe to a cell: an expression whose value is stored and compared, but "
        "never shown to a reader.",
    )
    probe.add_argument("notebook", type=Path)
    probe.add_argument("cell", type=int, help="the number that is shown beside it, as 7 for [7]")
    probe.add_argument("name", help='what the value is, as "untrained scores"')
    probe.add_argument("expression", help='Python, as "model(x[:1])"')
    probe.set_defaults(run=run_probe)
    return result


def run_execute(options: argparse.Namespace) -> int:
    """Execute the notebooks that are named, or all of them."""
    paths = find_notebooks(options.notebooks, find(Path.cwd()))
    return 0 if all([renew(path, options.accept, options.kernel) for path in paths]) else 1


def run_probe(options: argparse.Namespace) -> int:
    """Write a probe into a cell's metadata."""
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
    tags_of(cells[0])  # metadata of another form would be lost
    about = {**notes(cells[0])}
    about["probes"] = {**expressions(about), options.name: options.expression}
    expressions(about)
    cells[0].metadata[KEY] = about
    nbformat.write(notebook, options.notebook)
    print(f"[{options.cell}] has {options.name!r}. To store its value:")
    print(f"nbval-tolerance execute {label(options.notebook)}")
    return 0

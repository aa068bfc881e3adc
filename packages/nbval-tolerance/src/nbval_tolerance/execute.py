"""Run lessons in fresh kernels and store their outputs; nothing else writes them."""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from nbval_tolerance.compare import rendered
from nbval_tolerance.controls import notes, rules_of
from nbval_tolerance.kernel import environment
from nbval_tolerance.outputs import compare_outputs, merge_streams
from nbval_tolerance.stored import source_hash, stamp

NOTEBOOKS = Path("notebooks")
CELL_TIMEOUT = 300  # seconds


def main(arguments: list[str] | None = None) -> int:
    """Execute the named lessons, or all; return 1 if one failed or was not accepted."""
    parser = argparse.ArgumentParser(
        prog="python -m nbval_tolerance.execute",
        description="Run lessons in fresh kernels, top to bottom; show what their outputs would "
        "change, and store them once that is accepted.",
        epilog="A lesson whose new outputs say the same as the stored ones keeps those. One that "
        "fails, writes to stderr or is not accepted is left as it was; the exit code is then 1.",
    )
    parser.add_argument(
        "lessons",
        nargs="*",
        help="numbers, names or paths: 01, 01_load_data, solutions/01 (default: all)",
    )
    parser.add_argument("--accept", action="store_true", help="store the changes without asking")
    options = parser.parse_args(arguments)
    try:
        paths = find_lessons(options.lessons)
    except FileNotFoundError as error:
        parser.error(str(error))
    try:
        return 0 if all([renew(path, options.accept) for path in paths]) else 1
    except KeyboardInterrupt:
        return 130


class OutputError(Exception):
    """A cell's output is none to store: it is red, or a later cell has changed it."""


def find_lessons(names: list[str]) -> list[Path]:
    """Return the notebooks that `names` mean, in the order given; all of them if there are none.

    A name without a folder means a lesson and the solutions of its exercises.

    Raises
    ------
    FileNotFoundError
        If a name means no lesson; the message lists those that there are.
    """
    lessons = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    lessons += sorted(NOTEBOOKS.glob("solutions/[0-9][0-9]_*.ipynb"))
    if not names:
        return lessons
    found = []
    for name in names:
        given = Path(name)
        matches = [
            path
            for path in lessons
            if given.stem in (path.stem, path.stem[:2])
            and given.parent in (Path(), path.parent, Path(path.parent.name))
        ]
        if not matches and given.suffix == ".ipynb" and given.exists():
            matches = [given]  # another course's
        if not matches:
            known = ", ".join(map(label, lessons))
            raise FileNotFoundError(f"no lesson is called {name!r}; there are: {known}")
        found += [path for path in matches if path not in found]
    return found


def label(path: Path) -> str:
    """Return a notebook's name, as it may be given."""
    inside = path.is_relative_to(NOTEBOOKS)
    return (path.relative_to(NOTEBOOKS) if inside else path).with_suffix("").as_posix()


def renew(path: Path, accept: bool) -> bool:
    """Run one lesson and, if what changes is accepted, store its outputs; tell whether it holds."""
    print(f"{label(path)} ...", end=" ", flush=True)
    began = time.monotonic()
    before = path.read_bytes()
    try:
        stored = nbformat.reads(before.decode(), as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        print(f"FAILED: it is no notebook. {error}")
        return False
    computed = copy.deepcopy(stored)
    try:
        execute(computed, path.parent)
    except (CellExecutionError, DeadKernelError, TimeoutError, OutputError) as error:
        print(f"FAILED, not written:\n{error}")
        return False
    except KeyboardInterrupt:
        print("interrupted, not written")
        raise
    print(f"{time.monotonic() - began:.0f} s,", end=" ", flush=True)
    if not any(cell.get("execution_count") for cell in stored.cells):
        return store(computed, path, before, "stored for the first time")
    changes = show_changes(stored, computed)
    if not changes:
        # One run's outputs stay together: these are the stored ones, all of them.
        for old, new in zip(code(stored), code(computed), strict=True):
            new.outputs = old.outputs
            for output in new.outputs:
                if "execution_count" in output:
                    output.execution_count = new.execution_count
        return store(computed, path, before, "says what is stored")
    print(f"changes {len(changes)} cells:", *changes, sep="\n\n")
    if accept or (sys.stdin.isatty() and input("\nStore these outputs? [y/N] ").lower() == "y"):
        return store(computed, path, before, "stored")
    print("\nNot written. To store them, run this again with --accept.")
    return False


def show_changes(stored: nbformat.NotebookNode, computed: nbformat.NotebookNode) -> list[str]:
    """Say, cell by cell, what a reader would see change; figures are put side by side in a file.

    Of a cell that was edited since its output was stored, any change is told: it is what was meant.
    """
    changes = []
    cells = zip(code(stored), code(computed), rules_of(stored), strict=True)
    for number, (old, new, rules) in enumerate(cells):
        edited = notes(old).get("source") != source_hash(old.source)
        if edited:
            rules = replace(rules, exact=True, seeded=True, figures=True)
        result = compare_outputs(old.outputs, new.outputs, rules)
        found = [str(difference) for difference in result.differences]
        if edited and not found and content(old.outputs) != content(new.outputs):
            found = ["what is not compared, such as a colour, or a figure's fine lines"]
        if not found:
            continue
        lines = [f"Cell {number}, shown as [{number + 1}]:", *found]
        for picture in result.pictures:
            with tempfile.NamedTemporaryFile(
                prefix=f"cell-{number}-", suffix=".png", delete=False
            ) as file:
                file.write(picture)
            lines.append(f"    stored, computed, difference: {file.name}")
        changes.append("\n".join(lines))
    return changes


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def content(outputs: list[nbformat.NotebookNode]) -> list[dict]:
    """Return outputs without the number under which they are shown."""
    return [
        {key: value for key, value in output.items() if key != "execution_count"}
        for output in merge_streams(outputs)
    ]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run every cell in a fresh kernel, in order, and put the outputs into `notebook`.

    Parameters
    ----------
    notebook
        Changed in place: outputs, execution counts 1…n, the hash of each cell's source, no trace
        of who ran it and when.
    folder
        The kernel's working directory.

    Raises
    ------
    CellExecutionError, DeadKernelError, TimeoutError
        As nbclient does, with the cell's source.
    OutputError
        If a cell wrote to stderr, or changed what an earlier one had put out.
    """
    cells = code(notebook)
    limits = dict(zip(map(id, cells), [rules.seconds for rules in rules_of(notebook)], strict=True))
    left: dict[int, list] = {}  # what each cell had put out when it ended

    def note(cell: nbformat.NotebookNode, **_) -> None:
        left[id(cell)] = copy.deepcopy(cell.outputs)

    client = NotebookClient(
        notebook,
        timeout_func=lambda cell: limits[id(cell)] or CELL_TIMEOUT,
        on_cell_executed=note,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    # TensorFlow's log lines would run into ours; what a learner would see is in the outputs.
    try:
        client.execute(stderr=subprocess.DEVNULL, env=environment())
    except AssertionError:
        if client.km is not None:
            raise
        raise KeyboardInterrupt from None  # nbclient ends the kernel at Ctrl-C, and then misses it
    for cell in cells:
        if cell.outputs != left.get(id(cell), cell.outputs):
            raise OutputError(
                f"A later cell changed what this one, [{cell.execution_count}], had put out (by an "
                f"update of a display). Show it anew instead, there:\n{cell.source}"
            )
        tidy(cell)
    stamp(notebook)
    # The exact Python is not the lesson's; without it, any supported one stores the same file.
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.update(kernelspec=kernel, language_info={"name": "python"})


def tidy(cell: nbformat.NotebookNode) -> None:
    """Join a cell's chunks of output, keep of a progress bar what is left to see; refuse stderr."""
    cell.outputs = merge_streams(cell.outputs)
    for output in cell.outputs:
        if output.get("name") == "stderr":
            where = f"Cell [{cell.execution_count}]"
            raise OutputError(f"{where} wrote to stderr:\n{output.text}\n{cell.source}")
        if output.output_type == "stream" and set(output.text) & {"\r", "\b"}:
            output.text = rendered(output.text)


def store(notebook: nbformat.NotebookNode, path: Path, before: bytes, done: str) -> bool:
    """Write a notebook, unless somebody else has written it since it was read; say what was done.

    It is written aside and renamed: a run that is stopped leaves the old file whole.
    """
    if not path.exists() or path.read_bytes() != before:
        print("the file was changed while it ran. NOT WRITTEN: run it again")
        return False
    aside = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, aside)
    aside.replace(path)
    print(done)
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Run notebooks in fresh kernels and store their outputs. No other module stores outputs."""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nbval_tolerance import alt
from nbval_tolerance.compare import ANSI, last_frame
from nbval_tolerance.config import DEFAULTS, Config, find
from nbval_tolerance.controls import (
    KEY,
    RAISES,
    SKIPPED,
    expressions,
    marks,
    notes,
    rules_of,
)
from nbval_tolerance.notebooks import NotebookError, content, label, parse
from nbval_tolerance.outputs import (
    VIEW,
    compare_outputs,
    compare_values,
    merge_streams,
    without_view,
)
from nbval_tolerance.run import KernelDiedError, NoKernelError, ProbeError, Runner
from nbval_tolerance.stored import control_errors, problems, source_hash, stamp
from nbval_tolerance.texts.numbers import counted


class OutputError(Exception):
    """A notebook's outputs cannot be stored; the message gives the reason and the cell."""


def renew(path: Path, accept: bool, kernel: str = "") -> bool:
    """Run one notebook and store its outputs if the changes are accepted.

    Returns
    -------
    bool
        Whether the stored outputs are now up to date. If the notebook raises an exception, or its
        outputs cannot be stored, the file is left unchanged.
    """
    config = find(path.resolve())
    print(f"{label(path)} ...", end=" ", flush=True)
    began = time.monotonic()
    try:
        before = content(path)
        stored = parse(before)
    except NotebookError as error:
        print(f"FAILED: {error}")
        return False
    computed = copy.deepcopy(stored)
    try:
        execute(computed, path.parent, config, kernel)
    except OutputError as error:
        print(f"FAILED, not written:\n{error}")
        return False
    except KeyboardInterrupt:
        print("interrupted, not written")
        raise
    print(f"{time.monotonic() - began:.0f} s,", end=" ", flush=True)
    if not any(cell.get("execution_count") for cell in stored.cells):
        return store(computed, path, before, "stored for the first time")
    changes = show_changes(stored, computed, config)
    if not changes:
        keep(stored, computed)
        return store(computed, path, before, "unchanged")
    print(f"changes {counted(len(changes), 'cell')}:", *changes, sep="\n\n")
    if accept or agreed():
        return store(computed, path, before, "stored")
    print("\nNot written. To store the outputs, run the command again with --accept.")
    return False


def agreed() -> bool:
    """Ask the user whether to store the outputs; without a terminal, the answer is no."""
    try:
        return sys.stdin.isatty() and input("\nStore these outputs? [y/N] ").lower() == "y"
    except EOFError:
        return False


def keep(stored: NotebookNode, computed: NotebookNode) -> None:
    """Copy the stored outputs and probe values, which come from one run, to the new notebook."""
    for old, new in zip(code(stored), code(computed), strict=True):
        new.outputs = old.outputs
        alt.put(new)  # store the author's new alt texts, even for pictures that are not compared
        for output in new.outputs:
            if "execution_count" in output:
                output.execution_count = new.execution_count
        if "values" in notes(new):
            new.metadata[KEY]["values"] = old.metadata[KEY]["values"]


def show_changes(stored: NotebookNode, computed: NotebookNode, config: Config) -> list[str]:
    """Return, for each changed cell, a description of the changes that a reader would see.

    The stored and new versions of a figure are drawn side by side in a file. If a cell's source was
    edited after its output was stored, even changes within the tolerance are reported, because the
    edit was intentional.
    """
    changes = []
    # Edits can be detected only if the notebook contains hashes of its sources.
    stamped = any("source" in notes(cell) for cell in code(stored))
    cells = zip(code(stored), code(computed), rules_of(stored, config), strict=True)
    for number, (old, new, found_rules) in enumerate(cells):
        edited = stamped and notes(old).get("source") != source_hash(old)
        if edited:
            found_rules = replace(found_rules, exact=True, seeded=True, figures=True, skip=())
        result = compare_outputs(old.outputs, new.outputs, found_rules)
        values = [notes(cell).get("values", {}) for cell in (old, new)]
        result += compare_values(*values, found_rules)
        found = [str(difference) for difference in result.differences]
        if edited and not found and without_counts(old.outputs) != without_counts(new.outputs):
            found = ["details that are not compared, such as a colour or a figure's fine lines"]
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


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def without_counts(outputs: list[NotebookNode]) -> list[dict]:
    """Return outputs without their execution counts."""
    return [
        {key: value for key, value in output.items() if key != "execution_count"}
        for output in merge_streams(outputs)
    ]


def execute(
    notebook: NotebookNode, folder: Path, config: Config = DEFAULTS, kernel: str = ""
) -> None:
    """Run every cell in a fresh kernel, in order, and put the outputs into `notebook`.

    Parameters
    ----------
    notebook
        The notebook, which is changed in place. After the run, the code cells contain outputs,
        execution counts from 1 to n, hashes of their sources, and the values of their probes.
        Nothing records who ran the notebook or when. The kernel metadata is not changed.
    folder
        The kernel's working directory.
    config
        The project's settings for its notebooks.
    kernel
        The name of the kernel to use instead of the kernel in the notebook's metadata.

    Raises
    ------
    OutputError
        If a tag or the metadata is invalid; if a cell raises an exception, hangs, or kills the
        kernel; if a later cell changes the output of an earlier one; or if the stored state would
        be invalid.
    """
    refuse_wrong_controls(notebook)
    runner = Runner(notebook, folder, kernel_name=kernel, environment=config.environment)
    left: dict[int, list] = {}  # each cell's outputs right after it ran
    seconds = iter([found.seconds for found in rules_of(notebook, config)])
    try:
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                limit = next(seconds)
                cell.outputs, cell.execution_count = [], None
                if cell.source.strip() and not marks(cell, SKIPPED):
                    run(runner, index, limit)
                    left[index] = copy.deepcopy(cell.outputs)
    except NoKernelError as error:
        raise OutputError(f"{error}. Choose an installed one: --kernel {error.other}") from None
    except KernelDiedError as died:
        raise OutputError(str(died)) from None
    finally:
        runner.stop()
    for index, outputs in left.items():
        cell = notebook.cells[index]
        if cell.outputs != outputs:
            raise OutputError(
                f"A later cell changed the output of cell [{cell.execution_count}] by updating a "
                f"display. Create a new display in the later cell instead.\n{cell.source}"
            )
        tidy(cell)
    stamp(notebook)
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.setdefault("kernelspec", python)
    notebook.metadata.setdefault("language_info", {"name": "python"})
    if found := problems(notebook, config):
        raise OutputError("\n".join(found))


def refuse_wrong_controls(notebook: NotebookNode) -> None:
    """Raise `OutputError` if tags or metadata are invalid. Call this before running any cell."""
    if wrong := control_errors(notebook):
        raise OutputError("\n".join(f"{where}: {error}" for where, error in wrong.items()))


def run(runner: Runner, index: int, seconds: float | None) -> None:
    """Run one cell and store the values of its probes; raise `OutputError` if it fails."""
    cell = runner.notebook.cells[index]
    try:
        runner.run(index, seconds)
        probes = expressions(notes(cell))
        values = runner.evaluate_twice(probes) if probes else {}
    except (TimeoutError, KernelDiedError, ProbeError) as error:
        raise OutputError(f"{error}\n{cell.source}") from None
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors and not marks(cell, RAISES):
        raise OutputError(ANSI.sub("", "\n".join(errors[0].traceback)) + f"\n\n{cell.source}")
    if values:
        cell.metadata[KEY]["values"] = values
    elif "values" in notes(cell):
        del cell.metadata[KEY]["values"]


def tidy(cell: NotebookNode) -> None:
    """Join chunks of output, and drop anything that a stored notebook cannot display.

    Only the last frame of a progress bar is kept. The view of a live widget is dropped if the
    output has another representation.
    """
    cell.outputs = merge_streams(cell.outputs)
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = last_frame(output.text)
        elif "data" in output:
            output.data = NotebookNode(without_view(output.data))
            if VIEW not in output.data:
                output.metadata.pop(VIEW, None)


def store(notebook: NotebookNode, path: Path, before: bytes, done: str) -> bool:
    """Write a notebook unless its file has changed since it was read, and print the outcome.

    The notebook is written to a temporary file, which is then renamed, so an interrupted run leaves
    the old file intact.
    """
    if not path.exists() or path.read_bytes() != before:
        print("the file was changed while the notebook ran. NOT WRITTEN: run the command again")
        return False
    aside = path.with_suffix(".ipynb.new")
    try:
        nbformat.write(notebook, aside)
        aside.replace(path)
    except OSError as error:
        print(f"the file cannot be written ({error.strerror}). NOT WRITTEN")
        return False
    print(done)
    return True

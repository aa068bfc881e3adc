"""Run lessons in fresh kernels and store their outputs; nothing else writes them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

NOTEBOOKS = Path("notebooks")
CELL_TIMEOUT = 300  # seconds


def main(arguments: list[str] | None = None) -> int:
    """Execute the named lessons, or all; return 1 if one failed (its file is left as it was)."""
    parser = argparse.ArgumentParser(
        prog="python -m tfcourse.regression.execute",
        description="Run lessons in fresh kernels, top to bottom, and store their outputs.",
        epilog="A lesson that fails or writes to stderr is left as it was; the exit code is 1.",
    )
    parser.add_argument(
        "lessons", nargs="*", help="numbers, names or paths: 01, 01_load_data (default: all)"
    )
    try:
        paths = find_lessons(parser.parse_args(arguments).lessons)
    except FileNotFoundError as error:
        parser.error(str(error))
    failed = 0
    for path in paths:
        print(f"{path.stem} ...", end=" ", flush=True)
        began = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        try:
            execute(notebook, path.parent)
        except (CellExecutionError, DeadKernelError, TimeoutError, StderrError) as error:
            failed += 1
            print(f"FAILED, not written:\n{error}")
        else:
            write(notebook, path)
            print(f"done in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


class StderrError(Exception):
    """A cell wrote to stderr: a learner would see it in red."""


def find_lessons(names: list[str]) -> list[Path]:
    """Return the notebooks that `names` mean, in the order given; all lessons if there are none.

    Raises
    ------
    FileNotFoundError
        If a name means no lesson; the message lists those that there are.
    """
    lessons = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        return lessons
    found = []
    for name in names:
        stem = Path(name).stem
        matches = [path for path in lessons if stem in (path.stem, path.stem[:2])]
        if not matches:
            known = ", ".join(path.stem for path in lessons)
            raise FileNotFoundError(f"no lesson is called {name!r}; there are: {known}")
        found += [path for path in matches if path not in found]
    return found


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run every cell in a fresh kernel, in order, and put the outputs into `notebook`.

    Parameters
    ----------
    notebook
        Changed in place: outputs, execution counts 1…n, no trace of who ran it and when.
    folder
        The kernel's working directory.

    Raises
    ------
    CellExecutionError, DeadKernelError, TimeoutError
        As nbclient does, with the cell's source.
    StderrError
        If a cell wrote to stderr.
    """
    # Pytest may be what runs this; ipykernel changes how it captures output where it sees that.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    # TensorFlow's log lines would run into ours; what a learner would see is in the outputs.
    client.execute(stderr=subprocess.DEVNULL)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                where = f"Cell [{cell.execution_count}]"
                raise StderrError(f"{where} wrote to stderr:\n{output.text}\n{cell.source}")
    # The exact Python is not the lesson's; without it, any supported one stores the same file.
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write `notebook` aside and rename: a run that is stopped leaves the old file whole."""
    aside = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, aside)
    aside.replace(path)


if __name__ == "__main__":
    sys.exit(main())

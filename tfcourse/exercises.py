"""Generate `notebooks/exercises` from `notebooks/solutions`.

Authors write `notebooks/solutions/NN_name.ipynb` and mark the parts to remove for learners.
Otter-Grader also supports the first two of these markers:

    # BEGIN SOLUTION          a block: the lines between the marks become `...`
    # END SOLUTION            ... or the text after `# END SOLUTION: `
    x = 3  # SOLUTION         becomes `x = ...`
    x = 3  # SOLUTION: 5      becomes `x = 5`, a line for the learner to change
    Flatten(),  # SOLUTION:   is removed

Cells tagged `solution` are also removed. Cells keep their ids, which the grader and the tests use
to find them. In exercise NAME, the learner edits the cell `NAME-answer`, and the cell `NAME-check`
checks the answer.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = ROOT / "notebooks" / "solutions"
EXERCISES = ROOT / "notebooks" / "exercises"

BLOCK = re.compile(
    r"^(?P<indent> *)# BEGIN SOLUTION\n.*?^ *# END SOLUTION(: (?P<given>.*))?$", re.M | re.S
)
CHANGED = re.compile(r"^(?P<start> *(\w+ = )?).*  # SOLUTION: (?P<given>.+)$", re.M)
GONE = re.compile(r"^.*# SOLUTION:\n", re.M)
LINE = re.compile(r"^(?P<start>.* = ).*  # SOLUTION$", re.M)


def main() -> int:
    """Regenerate all exercises; print the file names of those that changed."""
    argparse.ArgumentParser(description=main.__doc__).parse_args()
    EXERCISES.mkdir(exist_ok=True)
    made = {path.name: exercise(path) for path in sorted(SOLUTIONS.glob("*.ipynb"))}
    for path in EXERCISES.glob("*.ipynb"):
        if path.name not in made:
            path.unlink()
            print(f"{path.name}: removed, because it has no solution")
    for name, notebook in made.items():
        path, text = EXERCISES / name, nbformat.writes(notebook) + "\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"{name}: written")
    return 0


def exercise(path: Path) -> NotebookNode:
    """Return the learners' version of a solutions notebook, without solutions and outputs."""
    notebook = nbformat.read(path, as_version=4)
    cells = [c for c in notebook.cells if "solution" not in c.metadata.get("tags", [])]
    for cell in cells:
        cell.metadata.pop("regression", None)
        if cell.cell_type == "code":
            cell.source = without_solution(cell.source)
            cell.outputs, cell.execution_count = [], None
    notebook.cells = cells
    return notebook


def without_solution(source: str) -> str:
    """Return a cell's source code without the marked solutions."""
    source = BLOCK.sub(lambda found: found["indent"] + (found["given"] or "..."), source)
    source = CHANGED.sub(lambda found: found["start"] + found["given"], source)
    return LINE.sub(lambda found: found["start"] + "...", GONE.sub("", source))


if __name__ == "__main__":
    sys.exit(main())

"""Measure how well this package, plain nbval and nbmake test notebooks from other projects.

    python foreign.py FOLDER --edits edits.toml

FOLDER contains executed notebooks and the files that they read. The script first re-runs each
notebook unchanged. Any cell that fails is a false alarm. The script then runs each notebook with
careless edits to its code. An edit is caught if it makes a passing cell fail. Plain nbval and
nbmake are evaluated on the same notebooks and edits.

The edits are listed in a TOML file with a table for each notebook. In a table,
`name = [["old text", "new text"], …]` defines an edit. Each old text must occur exactly once in the
notebook's code. `random = [1, 6]` lists the numbers, starting at 0, of the code cells that draw
random numbers without a seed. Failures of these cells are counted neither as false alarms nor as
catches.

The script caches runs in the folder that `--output` specifies. It always repeats our tool's
comparison of outputs, which takes only seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from nbformat import NotebookNode

import nbval_tolerance
from nbval_tolerance import compare_notebooks
from nbval_tolerance.stored import problems

TOOLS = ("ours", "nbval", "nbmake")
LIMIT = 900  # the time limit in seconds for one run of a notebook
# Matches our tool's messages about cells that could not be compared.
BROKEN = re.compile(r"shown as \[\d*\]: (?:still running|the kernel died|could not be run)")
HEAD = (
    "notebook | cells | random cells | complaints about the stored state | false alarms: ours "
    "| nbval | nbmake | edits | caught: ours | nbval | nbmake | seconds: ours | nbval | nbmake"
)


def main() -> int:
    """Run and compare all notebooks, and print the table. Return 1 if an edit is invalid."""
    options = parse()
    tables = tomllib.loads(options.edits.read_text(encoding="utf-8")) if options.edits else {}
    paths = [
        path
        for path in sorted(options.folder.resolve().glob("*.ipynb"))
        if not options.only or any(text in path.stem for text in options.only)
    ]
    if wrong := [line for path in paths for line in check(path, tables.get(path.stem, {}))]:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    rows, messages, old = [], [], 0
    for path in paths:
        edits = dict(tables.get(path.stem, {}))
        chance = {str(number) for number in edits.pop("random", [])}
        variants = {f"again {n}": [] for n in range(1, options.repeat + 1)} | edits
        results = {
            tool: {name: result(tool, path, name, variants[name], options) for name in names}
            for tool, names in zip(TOOLS, (variants, variants, ["again 1"]), strict=True)
        }
        row, said = judge(path, edits, chance, results)
        rows.append(row)
        messages += said
        old += sum(one["runner"] != runner() for one in results["ours"].values())
    print(f"| {HEAD} |", "|---|" + "---:|" * 13, sep="\n")
    for row in [*rows, ["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])]]:
        print("| " + " | ".join(f"{x:.1f}" if isinstance(x, float) else str(x) for x in row) + " |")
    if old:
        print(f"\n{old} of our tool's runs used a different runner; --again repeats them.")
    if options.messages:
        print("", *messages, sep="\n\n")
    return 0


def parse() -> argparse.Namespace:
    """Return the command-line options."""
    first = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python foreign.py", description=first)
    parser.add_argument("folder", type=Path, help="executed notebooks, with the files they read")
    parser.add_argument("--edits", type=Path, metavar="TOML", help="edits that must be caught")
    parser.add_argument("--output", type=Path, default=Path("foreign-results"), metavar="DIR")
    parser.add_argument("--repeat", type=int, default=2, metavar="N", help="runs without an edit")
    parser.add_argument("--only", nargs="*", metavar="TEXT", help="notebooks with TEXT in the name")
    parser.add_argument("--again", action="store_true", help="repeat our tool's runs")
    parser.add_argument("--messages", action="store_true", help="print messages of failed cells")
    parser.add_argument(
        "--ours",
        default="--nbval --nbval-tolerance --nbval-tolerance-dir=DIR",
        help="pytest options for our tool; DIR stands for a folder (default: %(default)s)",
    )
    options = parser.parse_args()
    options.output = options.output.resolve()
    return options


def check(path: Path, edits: dict) -> Iterator[str]:
    """Yield a message for each old text that does not occur exactly once in the notebook's code."""
    code = "\0".join(cell.source for cell in cells(nbformat.read(path, as_version=4)))
    for name, changes in edits.items():
        for text, _ in changes if name != "random" else []:
            if code.count(text) != 1:
                yield f"{path.stem}: {name}: {text!r} occurs {code.count(text)} times"


def result(tool: str, path: Path, name: str, changes: list, options: argparse.Namespace) -> dict:
    """Return a run's failed cells with messages, its duration, and whether new errors occurred."""
    notebook = nbformat.read(path, as_version=4)
    for cell in cells(notebook):
        for text, other in changes:
            cell.source = cell.source.replace(text, other)
    digest = hashlib.sha256((path.read_text(encoding="utf-8") + repr(changes)).encode()).hexdigest()
    label = re.sub(r"[^a-z0-9]+", "-", name.lower())
    folder = options.output / tool / f"{path.stem}-{label}-{digest[:12]}"
    if not (folder / "result.json").exists() or (tool == "ours" and options.again):
        run(tool, path, notebook, folder, options)
        print(f"{tool} ran {path.stem}: {name}", file=sys.stderr, flush=True)
    found = json.loads((folder / "result.json").read_text())
    if tool == "ours":
        computed = nbformat.read(folder / "computed.ipynb", as_version=4)
        for number, comparison in compare_notebooks(notebook, computed).items():
            if comparison.differences:
                found["red"][str(number)] = "\n".join(map(str, comparison.differences))
            for count, picture in enumerate(comparison.pictures):
                (folder / f"cell-{number}-{count}.png").write_bytes(picture)
        pairs = zip(cells(notebook), cells(computed), strict=True)
        found["raised"] = any(raises(new) and not raises(stored) for stored, new in pairs)
    return found


def run(tool: str, path: Path, notebook: NotebookNode, folder: Path, options) -> None:
    """Run a notebook with one tool. Write `result.json` and, for our tool, `computed.ipynb`."""
    shutil.rmtree(folder, ignore_errors=True)
    work, kept = folder / "work", folder / "kept"
    work.mkdir(parents=True)
    for entry in path.parent.iterdir():
        if entry.suffix != ".ipynb":
            (work / entry.name).symlink_to(entry)
    nbformat.write(notebook, work / path.name)
    arguments = options.ours.replace("DIR", str(kept)).split() if tool == "ours" else [f"--{tool}"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", work]
    command += ["-c", os.devnull, "--junitxml", folder / "junit.xml", *arguments, work / path.name]
    began = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, cwd=work, timeout=LIMIT, check=False)
    seconds = round(time.monotonic() - began, 1)
    red = {}
    junit = ElementTree.parse(folder / "junit.xml")
    for case in junit.iter("testcase"):
        failed = [child for child in case if child.tag in ("failure", "error")]
        if failed and case.get("name") != "stored state":
            text = re.sub(r"#x1B\[\d+m", "", failed[0].text or "")
            if tool != "ours" or BROKEN.search(text):
                red[case.get("name", "").removeprefix("Cell ")] = text
    if tool == "ours":
        computed = next(kept.rglob("*.computed.ipynb"), None)
        if computed is None:
            sys.exit(f"ours computed nothing; see {folder / 'log.txt'}")
        computed.rename(folder / "computed.ipynb")
    found = {"red": red, "seconds": seconds, "runner": runner()}
    (folder / "result.json").write_text(json.dumps(found))


def runner() -> str:
    """Return a hash of the modules that run cells, not of those that only compare outputs."""
    folder = Path(nbval_tolerance.__file__).parent
    files = [folder / "session" / "plugin.py", folder / "run.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def judge(path: Path, edits: dict, chance: set[str], results: dict) -> tuple[list, list[str]]:
    """Return a notebook's row of the table, and messages about failed cells and missed edits."""
    notebook = nbformat.read(path, as_version=4)
    complaints = problems(notebook)
    usual = {
        tool: {cell for name, one in runs.items() if name not in edits for cell in one["red"]}
        for tool, runs in results.items()
    }
    caught = {
        tool: {name for name in edits if runs[name]["red"].keys() - usual[tool] - chance}
        for tool, runs in results.items()
        if tool != "nbmake"
    }
    # nbmake compares no outputs, so it catches an edit only if a cell raises an exception.
    caught["nbmake"] = {name for name in edits if results["ours"][name]["raised"]}
    row = [path.stem, len(cells(notebook)), len(chance), len(complaints)]
    row += [len(usual[tool] - chance) for tool in TOOLS]
    row += [len(edits), *(len(caught[tool]) for tool in TOOLS)]
    row += [results[tool]["again 1"]["seconds"] for tool in TOOLS]
    messages = [f"## {path.stem}, stored state\n{line}" for line in complaints]
    for tool, runs in results.items():
        messages += [f"## {path.stem}, {tool} misses: {n}" for n in edits if n not in caught[tool]]
        messages += [
            f"## {path.stem}, {tool}, {name}, cell {cell}\n{text}"
            for name, one in runs.items()
            for cell, text in one["red"].items()
            if name not in edits or cell not in usual[tool] | chance
        ]
    return row, messages


def cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def raises(cell: NotebookNode) -> bool:
    """Return whether a cell's outputs include an exception."""
    return any(output.output_type == "error" for output in cell.outputs)


if __name__ == "__main__":
    sys.exit(main())

"""The command: grade a folder of submissions, print a table and write it as CSV."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tfcourse.exercises import SOLUTIONS
from tfcourse.grading import limits, submission

COLUMNS = ["submission", "lesson", "exercise", "right", "says"]
KEPT = ("PATH", "LANG", "LC_ALL", "TF_ENABLE_ONEDNN_OPTS")  # of our environment; no secrets


def main(arguments: list[str] | None = None) -> int:
    """Grade all submissions; the exit code is 0 even if nobody has got anything right."""
    parser = argparse.ArgumentParser(
        prog="make grade",
        description="Run each notebook in a folder by itself, with the checks of our solutions, "
        "and write a table. Submissions are run under your account: see README.md.",
    )
    parser.add_argument("folder", type=Path, help="the submissions, also in folders of their own")
    parser.add_argument("--table", type=Path, help="the CSV file (default: FOLDER/grades.csv)")
    parser.add_argument(
        "--solutions", type=Path, default=SOLUTIONS, help="where the checks are (default: ours)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for one cell (default: 60)")
    parser.add_argument("--memory", type=float, default=3, help="in GB (default: 3)")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    table = options.table or options.folder / "grades.csv"
    files = [
        path
        for path in sorted(options.folder.rglob("*"))
        if is_submission(path, options.folder) and path.resolve() != table.resolve()
    ]
    solutions = {
        path.stem: nbformat.read(path, as_version=4) for path in options.solutions.glob("*.ipynb")
    }
    rows = []
    for path in files:
        name = str(path.relative_to(options.folder))
        found = grade(path, solutions, options.seconds, int(options.memory * 2**30))
        print_result(name, found)
        rows += [{"submission": name, **row} for row in found]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{len(files)} submissions; the table is in {table}")
    return 0


def is_submission(path: Path, folder: Path) -> bool:
    """Tell whether a file is there to be graded: it is not hidden, as Jupyter's checkpoints are."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden


def grade(
    path: Path, solutions: dict[str, NotebookNode], seconds: float, memory: int
) -> list[dict[str, str | int]]:
    """Return a row for each exercise of a submission, or one row that says why there is none."""
    try:
        plan = submission.plan(submission.read(path), solutions)
    except (submission.NotGradableError, OSError) as error:
        return [{"lesson": "", "exercise": "", "right": 0, "says": str(error)}]
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as scratch:
        printed, reason = limits.run(
            [sys.executable, "-m", "tfcourse.grading.worker"],
            json.dumps({**plan.as_job(), "seconds": seconds, "memory": memory}),
            cwd=scratch,
            env=environment(Path(scratch)),
            seconds=300 + seconds * len(plan.steps),
            memory=memory,
        )
    return rows_of(plan, printed, reason)


def environment(scratch: Path) -> dict[str, str]:
    """Return the variables that a submission sees; its home and its data are copies."""
    keras = scratch / "keras"
    source = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    if source.is_dir():
        shutil.copytree(source, keras / "datasets")
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    places = {name: str(scratch) for name in ("HOME", "TMPDIR", "JUPYTER_RUNTIME_DIR")}
    return {**kept, **places, "KERAS_HOME": str(keras)}


def rows_of(plan: submission.Plan, printed: str, reason: str) -> list[dict[str, str | int]]:
    """Return a row for each exercise, from what the worker has printed until it ended."""
    told = {}
    for line in printed.splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # it was killed while it printed this
            continue
        if "exercise" in event:
            told[event["exercise"]] = event
        else:
            reason = reason or event["stopped"]
    rows = []
    for name in plan.exercises:
        event = told.get(name, {"stopped": reason or "its grading was ended from within"})
        remark = plan.remarks.get(name, "")
        if "tampered" in event:
            says = f"TAMPERED: {event['tampered']}"
        elif "stopped" in event:
            says = f"STOPPED: {event['stopped']}"
        else:
            says = event["mistake"] or ""
        right = int("mistake" in event and not event["mistake"])
        says = "; ".join(filter(None, [remark, says])).replace("\n", " ")
        rows.append({"lesson": plan.lesson, "exercise": name, "right": right, "says": says})
    return rows


def print_result(name: str, rows: list[dict[str, str | int]]) -> None:
    """Print what was found in a submission: how many are right, and what is wrong."""
    right = sum(row["right"] for row in rows)
    of = len([row for row in rows if row["exercise"]])
    print(f"{name:40} {right}/{of}" if of else f"{name:40} -    {rows[0]['says']}", flush=True)
    for row in rows:
        if row["exercise"] and row["says"]:
            print(f"    {row['exercise']:12} {row['says']}")


if __name__ == "__main__":
    sys.exit(main())

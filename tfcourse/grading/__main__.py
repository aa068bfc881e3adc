"""Grade a folder of submissions from the command line; print a table and write it as CSV."""

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
# The variables that a submission gets from our environment. None of them holds a secret.
KEPT = ("PATH", "LANG", "LC_ALL", "TF_ENABLE_ONEDNN_OPTS")


def main(arguments: list[str] | None = None) -> int:
    """Grade all submissions; return 0 even if no answer is right."""
    parser = argparse.ArgumentParser(
        prog="make grade",
        description="Run each notebook in a folder separately, with the checks of our solutions, "
        "and write a table of the results. Submissions run under your account: see "
        "docs/instructors.md.",
    )
    parser.add_argument("folder", type=Path, help="the submissions (includes subfolders)")
    parser.add_argument("--table", type=Path, help="the CSV file (default: FOLDER/grades.csv)")
    parser.add_argument(
        "--solutions", type=Path, default=SOLUTIONS, help="notebooks with checks (default: ours)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="limit for one cell (default: 60)"
    )
    parser.add_argument("--memory", type=float, default=3, help="limit in GB (default: 3)")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack some characters
    table = options.table or options.folder / "grades.csv"
    unfinished = table.with_name(f"{table.stem}.incomplete.csv")
    ours = [table.resolve(), unfinished.resolve()]
    files = [
        path
        for path in sorted(options.folder.rglob("*"))
        if is_submission(path, options.folder) and path.resolve() not in ours
    ]
    solutions = {
        path.stem: nbformat.read(path, as_version=4) for path in options.solutions.glob("*.ipynb")
    }
    # Write each row as soon as it is found. Only a complete table replaces an earlier one.
    done = 0
    try:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for path in files:
                name = printable(os.fsencode(path.relative_to(options.folder)))
                if name.startswith(("=", "+", "-", "@")):
                    name = f"./{name}"  # a spreadsheet would read it as a formula
                found = grade(path, solutions, options.seconds, int(options.memory * 2**30))
                writer.writerows({"submission": name, **row} for row in found)
                file.flush()
                print_result(name, found)
                done += 1
        unfinished.replace(table)
    except BaseException as error:
        print(f"\nINCOMPLETE: {done} of {len(files)} submissions; their rows are in {unfinished}")
        if isinstance(error, KeyboardInterrupt):
            return 130  # as in a shell
        raise
    print(f"\n{len(files)} submissions; the table is in {table}")
    return 0


def is_submission(path: Path, folder: Path) -> bool:
    """Return whether a path is a file to grade. Hidden files, such as checkpoints, are not."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden


def grade(
    path: Path, solutions: dict[str, NotebookNode], seconds: float, memory: int
) -> list[dict[str, str | int]]:
    """Return a row for each exercise of a submission, or one row that says why there are none."""
    try:
        plan = submission.plan(submission.read(path), solutions)
    except (submission.NotGradableError, OSError) as error:
        return [{"lesson": "", "exercise": "", "right": 0, "says": printable(str(error))}]
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
    """Return a submission's environment variables, with its own home and a copy of the data."""
    keras = scratch / "keras"
    source = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    if source.is_dir():
        shutil.copytree(source, keras / "datasets")
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    places = {name: str(scratch) for name in ("HOME", "TMPDIR", "JUPYTER_RUNTIME_DIR")}
    # With this seed, the hidden cases are the same for everyone.
    return {**kept, **places, "KERAS_HOME": str(keras), "CHECK_SEED": "1"}


def rows_of(plan: submission.Plan, printed: str, reason: str) -> list[dict[str, str | int]]:
    """Return a row for each exercise, from what the worker printed before it ended."""
    told = {}
    for line in printed.splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # the worker was killed while it was printing this line
            continue
        if "exercise" in event:
            told[event["exercise"]] = event
        else:
            reason = reason or event["stopped"]
    rows = []
    for name in plan.exercises:
        event = told.get(name, {"stopped": reason or "the submission ended its own grading"})
        remark = plan.remarks.get(name, "")
        if "tampered" in event:
            says = f"TAMPERED: {event['tampered']}"
        elif "stopped" in event:
            says = f"STOPPED: {event['stopped']}"
        else:
            says = event["mistake"] or ""
        right = int("mistake" in event and not event["mistake"])
        says = printable("; ".join(filter(None, [remark, says])).replace("\n", " "))
        rows.append({"lesson": plan.lesson, "exercise": name, "right": right, "says": says})
    return rows


def printable(text: str | bytes) -> str:
    """Return a learner's text with an escape for each unprintable character.

    A terminal would obey some of these characters, and half a surrogate pair cannot be written at
    all. A file's name is passed as bytes, which may not be UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def print_result(name: str, rows: list[dict[str, str | int]]) -> None:
    """Print the result of a submission: how many answers are right, and what is wrong."""
    right = sum(row["right"] for row in rows)
    of = len([row for row in rows if row["exercise"]])
    print(f"{name:40} {right}/{of}" if of else f"{name:40} -    {rows[0]['says']}", flush=True)
    for row in rows:
        if row["exercise"] and row["says"]:
            print(f"    {row['exercise']:12} {row['says']}")


if __name__ == "__main__":
    sys.exit(main())

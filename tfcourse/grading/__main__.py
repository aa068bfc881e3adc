"""Grade a folder of submissions from the command line; print the results and write a CSV file."""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import itertools
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from nbformat import NotebookNode

from tfcourse.exercises import SOLUTIONS
from tfcourse.grading import containers, submission
from tfcourse.grading.containers import EngineError
from tfcourse.grading.grader import (
    COLUMNS,
    Row,
    exercises_of,
    grade,
    printable,
    refused,
)
from tfcourse.grading.limits import Ended
from tfcourse.spreadsheet import is_formula

# The checks write this file beside the learner's notebooks.
PROGRESS = "progress.json"


def main(arguments: list[str] | None = None) -> int:
    """Grade all submissions; return 0 if grading succeeded, even if no answer is correct."""
    options = parsed(arguments)
    sys.stdout.reconfigure(errors="backslashreplace")  # not all characters can be encoded
    table, unfinished = options.table, incomplete(options.table)
    run = way_to_run(options.docker, options.image)
    exercises = exercises_of(options.solutions)
    # Read all submissions before running any, so that no submission can tamper with another
    # submission's file.
    found = [
        (name_of(path, options.folder), attempt(read, path, exercises))
        for path in files(options.folder)
        if path.is_symlink() or real(path) not in [real(table), real(unfinished)]
    ]
    try:
        write([], unfinished)
    except OSError as error:
        sys.exit(f"The table cannot be written: {error}")
    rows: list[Row] = []
    done = 0
    try:
        for name, plan in found:
            result = plan
            if isinstance(plan, submission.Plan):
                result = attempt(grade, plan, run, options.seconds, int(options.memory * 2**30))
            rows += [{"submission": name, **row} for row in result]
            # Rewrite the whole table from memory, because a submission might have changed the file.
            # Continue even if a submission has filled the disk, so that the other submissions are
            # graded.
            with contextlib.suppress(OSError):
                write(rows, unfinished)
            print_result(name, result)
            done += 1
        try:
            write(rows, table)
        except OSError as error:
            sys.exit(f"The table cannot be written: {error}")
        unfinished.unlink(missing_ok=True)
    except BaseException as error:
        print(f"\nINCOMPLETE: {done} of {len(found)} submissions; their rows are in {unfinished}")
        if isinstance(error, KeyboardInterrupt):
            return 130  # a shell's exit code for Ctrl-C
        if isinstance(error, EngineError):
            sys.exit(f"Docker failed: {error}")
        raise
    print(f"\n{len(found)} submissions; the table is in {table}")
    return 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with a message if it is invalid."""
    parser = argparse.ArgumentParser(
        prog="make grade",
        description="Grade each notebook in a folder with the checks from our solutions, and "
        "write a table of the results. See docs/instructors.md.",
    )
    parser.add_argument("folder", type=Path, help="the submissions (includes subfolders)")
    parser.add_argument("--table", type=Path, help="the CSV file (default: FOLDER/grades.csv)")
    parser.add_argument(
        "--docker",
        action=argparse.BooleanOptionalAction,
        help="run submissions in containers, or in processes of your account "
        "(default: in containers if Docker and the image are available)",
    )
    parser.add_argument("--image", default=containers.IMAGE, help="the containers' image")
    parser.add_argument(
        "--solutions", type=Path, default=SOLUTIONS, help="notebooks with checks (default: ours)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="limit for each cell; for a whole submission, ten times this (default: 60)",
    )
    parser.add_argument("--memory", type=float, default=3, help="limit in GB (default: 3)")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    if not any(options.solutions.glob("*.ipynb")):
        parser.error(f"{options.solutions} contains no solutions")
    options.table = options.table or new_table(options.folder)
    if options.table.is_dir():
        parser.error(f"{options.table} is a folder; name another file with --table")
    return options


def new_table(folder: Path) -> Path:
    """Return the table's path in the submissions' folder: `grades.csv`, unless that is a folder."""
    for number in itertools.count(1):
        table = folder / ("grades.csv" if number == 1 else f"grades-{number}.csv")
        if not any(each.is_dir() and not each.is_symlink() for each in (table, incomplete(table))):
            return table


def incomplete(table: Path) -> Path:
    """Return the path of the table for an unfinished run."""
    return table.with_stem(f"{table.stem}.incomplete")


def way_to_run(docker: bool | None, image: str) -> Callable[[dict], Ended]:
    """Return the function that runs submissions; print how strongly it isolates them.

    Exit with a message if `--docker` is given but Docker cannot be used.
    """
    reason = "" if docker is False else containers.missing(image)
    if docker and reason:
        sys.exit(f"--docker: {reason}.")
    if docker is False or reason:
        print(
            f"NO CONTAINERS: {reason or '--no-docker'}. Submissions run under your account: they "
            "can read and change your files, and use the network. Read Grading in "
            "docs/instructors.md."
        )
        from tfcourse.grading import processes  # needs packages that the hub's image lacks

        return processes.run
    containers.remove_leftovers()
    print(
        f"Each submission runs in a container of {image}, without a network. It can reach neither "
        "your files nor another submission."
    )
    return functools.partial(containers.run, image=image)


def files(folder: Path) -> list[Path]:
    """Return the paths to grade: all files but PROGRESS, hidden files, and those in hidden folders.

    Symbolic links are returned without being followed. Unreadable folders are also returned, so
    that they are reported in the table.
    """
    found, waiting = [], [folder]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            found.append(place)
            continue
        for entry in visible:
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name == PROGRESS and not is_folder:
                continue
            (waiting if is_folder else found).append(place / entry.name)
    return sorted(found)


def real(path: Path) -> Path:
    """Resolve symbolic links in a path, except in its last component."""
    return path.parent.resolve() / path.name


def name_of(path: Path, folder: Path) -> str:
    """Return a submission's unique name for the table.

    Unprintable bytes in the file name are escaped.
    """
    name = os.fsencode(path.relative_to(folder)).replace(b"\\", rb"\\")
    name = printable(name.decode(errors="backslashreplace"))
    return f"./{name}" if is_formula(name) else name


def read(path: Path, exercises: dict[str, NotebookNode]) -> submission.Plan:
    """Read a submission from a file; return the plan for running it."""
    return submission.plan(submission.read(path), exercises)


def attempt(function: Callable, *inputs: object) -> submission.Plan | list[Row]:
    """Call a function; if it fails, return a row that reports the submission as not gradable.

    An error in one submission therefore does not prevent the others from being graded.
    """
    try:
        return function(*inputs)
    except EngineError:
        raise
    except submission.NotGradableError as error:
        return refused(str(error))
    except Exception as error:
        return refused(f"could not be graded: {type(error).__name__}: {error}")


def write(rows: list[Row], path: Path) -> None:
    """Write a table atomically. If the path is a symbolic link, replace the link itself."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # The byte order mark makes Excel read the file as UTF-8.
        with fresh.open("x", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def print_result(name: str, rows: list[Row]) -> None:
    """Print how many of a submission's answers are correct, and the mistakes in the others."""
    right = sum(row["right"] for row in rows)
    of = len([row for row in rows if row["exercise"]])
    print(f"{name:40} {right}/{of}" if of else f"{name:40} -    {rows[0]['says']}", flush=True)
    for row in rows:
        if of and row["says"]:
            print(f"    {row['exercise'] or row['lesson']:12} {row['says']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

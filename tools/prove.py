"""Show that comparing the lessons' outputs raises no false alarms and misses no mistakes.

`python tools/prove.py` runs each lesson many times, each time with one change, and compares the
results with the stored outputs. The changes in `variations.toml` are harmless, such as a different
number of threads or a different instruction set; every run with such a change must pass. The
changes in `mutations.toml` are mistakes, such as a doubled learning rate or a wrong label; every
run with such a mistake must fail.

Each result is saved immediately, so an interrupted proof can resume where it stopped. A run is
repeated only if its code or its packages have changed. If only the comparison, the cells' tags or
the stored outputs have changed, the script compares the earlier run's outputs again.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from nbformat import NotebookNode

import nbval_tolerance
from nbval_tolerance.config import load
from nbval_tolerance.outputs import compare_notebooks

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
# Environment variables that set the number of TensorFlow's and OpenBLAS's threads. When several
# runs share a machine, one thread per run is fastest.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
LOCKS = ("build", "cpu", "test")  # the lock files in requirements/ to install for a run
PREPARING = threading.Lock()  # two runs can need the same package
RUN_TIMEOUT = 1800  # seconds; a lesson takes a minute at most, or longer on a busy host


@dataclass(frozen=True)
class Variant:
    """A way to run a lesson: in a different environment, or with a mistake in its code.

    Attributes
    ----------
    kind
        `variation` (must pass) or `mutation` (must fail).
    edits
        Changes to the lesson's code; see `edit`.
    environment
        Environment variables for the run.
    install
        Requirements for pip. They take precedence over the packages in the environment.
    python
        The Python version for which to create an environment. If empty, the run uses the Python
        that runs this script.
    argued
        The reason why the mutation cannot be distinguished from a harmless variation; otherwise
        empty.
    """

    kind: str
    name: str
    edits: list = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    install: list[str] = field(default_factory=list)
    python: str = ""
    argued: str = ""


@dataclass(eq=False)
class Job:
    """A lesson to run, and the variant in which to run it."""

    lesson: Path
    variant: Variant

    @cached_property
    def key(self) -> str:
        """Return a hash of the run's inputs: packages, code and variant."""
        variant = asdict(self.variant)
        del variant["argued"]  # `argued` does not affect the outputs
        code = [cell.source for cell in read(self.lesson).cells if cell.cell_type == "code"]
        parts = [*locks(), *code, json.dumps(variant, sort_keys=True)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def judge(self) -> str:
        """Return a hash of the code that compares outputs and of the lesson's file."""
        return hashlib.sha256((comparison() + digest(self.lesson)).encode()).hexdigest()

    @property
    def title(self) -> str:
        """Return the job's name for messages."""
        return f"{self.lesson.stem}: {self.variant.name}"

    @property
    def folder(self) -> str:
        """Return the name of the folder for the job's files."""
        return f"{self.lesson.stem}-{re.sub(r'[^a-z0-9]+', '-', self.variant.name.lower())}"


@dataclass(frozen=True)
class Result:
    """The result of running a job.

    Attributes
    ----------
    outcome
        `passed`, `failed`, `broken` (an error occurred in the run itself, which therefore proves
        nothing), or `skipped` (the required Python is not installed).
    cell
        After a failure, the first cell that differs, numbered as in the lesson; otherwise, the cell
        that used the largest share of its tolerance.
    message
        After a failure, the cell's first difference; otherwise, the line with the largest share.
    used
        The largest share of its tolerance that any number used: 1.0 for the whole tolerance, or
        None if unknown.
    seconds
        The duration of the run, in seconds.
    judged
        A hash of the comparison's code and the stored outputs on which this result is based.
    """

    key: str
    lesson: str
    kind: str
    name: str
    outcome: str
    cell: str = ""
    message: str = ""
    used: float | None = None
    seconds: float = 0.0
    judged: str = ""


class PlanError(Exception):
    """Raised if an edit cannot be applied to its lesson, or if a table is invalid."""


def main(arguments: list[str] | None = None) -> int:
    """Run all jobs without a stored result, and print the tables; return 1 if the proof fails."""
    options = parse(arguments)
    try:
        jobs = plan(options.notebooks, options.plan, options.lessons)
        complaints = check(jobs)
    except (PlanError, OSError, tomllib.TOMLDecodeError) as error:
        complaints = [str(error)]
    if complaints:
        print("\n".join(complaints), file=sys.stderr)
        return 1
    if options.only:
        jobs = [job for job in jobs if any(text in job.title for text in options.only)]
    if options.check:
        print(f"{len(jobs)} runs planned; every edit fits its lesson.")
        return 0

    options.output.mkdir(parents=True, exist_ok=True)
    known = read_results(options.output / "results.jsonl")
    if not options.table:
        done = [job for job in jobs if judge_again(job, known, options.output)]
        known |= run_all([job for job in jobs if job not in done], options)
    results = {job: known.get(job.key) for job in jobs}
    print("\n" + "\n".join(tables(results)))
    holes = [job.title for job, result in results.items() if hole(job, result)]
    if holes:
        print(f"\n{len(holes)} of {len(jobs)} runs do not support the proof:")
        print("\n".join(f"- {title}" for title in holes))
    return 1 if holes else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command-line options."""
    parser = argparse.ArgumentParser(
        prog="python tools/prove.py",
        description="Show that harmless variations of the lessons pass and that mistakes fail.",
        epilog="The exit code is 1 if a variation failed, a mutation passed, or a run is missing.",
    )
    parser.add_argument("lessons", nargs="*", help="numbers or names: 05 06 (default: all)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="TEXT",
        help="only runs whose `LESSON: NAME` contains this text; may be repeated",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="runs at a time (default: one per core, %(default)s); with more than one, each run "
        "gets one TensorFlow thread unless its variation says otherwise",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / ".course" / "proof",
        metavar="DIR",
        help="where results are collected (default: .course/proof)",
    )
    parser.add_argument(
        "--notebooks", type=Path, default=ROOT / "notebooks", metavar="DIR", help="the lessons"
    )
    parser.add_argument(
        "--plan",
        type=Path,
        default=HERE,
        metavar="DIR",
        help="the folder of variations.toml and mutations.toml",
    )
    parser.add_argument("--check", action="store_true", help="only check that every edit fits")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs must be 1 or more")
    options.output = options.output.resolve()
    return options


# What to run


def plan(notebooks: Path, folder: Path, names: list[str]) -> list[Job]:
    """Return all jobs: each lesson with every variation and with each of its mutations.

    Raises
    ------
    PlanError
        If a table refers to a lesson or a mutation that does not exist.
    """
    variations = []
    for name, entry in tomllib.loads((folder / "variations.toml").read_text()).items():
        try:
            variations.append(Variant("variation", name, **entry))
        except TypeError as error:
            raise PlanError(f"variations.toml: {name}: {error}") from None
    mutations = tomllib.loads((folder / "mutations.toml").read_text())
    jobs = []
    for stem, table in mutations.items():
        lesson = notebooks / f"{stem}.ipynb"
        if not lesson.exists():
            raise PlanError(f"mutations.toml: there is no lesson {stem}")
        argued = table.pop("argued", {})
        if unknown := sorted(argued.keys() - table.keys()):
            raise PlanError(f"mutations.toml: {stem}: no mutation is called {unknown[0]!r}")
        if names and not any(name in (stem, stem[:2]) for name in names):
            continue
        jobs += [Job(lesson, variation) for variation in variations]
        jobs += [
            Job(lesson, Variant("mutation", name, edits=edits, argued=argued.get(name, "")))
            for name, edits in table.items()
        ]
    if not jobs:
        raise PlanError(f"no lesson is called {' or '.join(names)}; there are: {list(mutations)}")
    return jobs


def check(jobs: list[Job]) -> list[str]:
    """Return a message for each job whose edits cannot be applied or change nothing."""
    complaints = []
    folders = Counter(job.folder for job in jobs)
    for job in jobs:
        if folders[job.folder] > 1:
            complaints.append(f"{job.title}: another run would use the same folder")
        notebook = read(job.lesson)
        try:
            edit(notebook, job.variant.edits)
        except PlanError as error:
            complaints.append(f"{job.title}: {error}")
        else:
            if job.variant.kind == "mutation" and notebook == read(job.lesson):
                complaints.append(f"{job.title}: changes nothing")
    return complaints


def copy_what_lessons_import(notebooks: Path, folder: Path) -> None:
    """Copy the files that lessons load from their folder: the style sheet and the widgets."""
    for path in notebooks.iterdir():
        if path.suffix == ".mplstyle":
            shutil.copy(path, folder)
        elif path.name == "interactive":
            shutil.copytree(path, folder / path.name, dirs_exist_ok=True)


def read(lesson: Path) -> NotebookNode:
    """Return a copy of a lesson, which the caller can change."""
    return copy.deepcopy(read_once(lesson))


@cache
def read_once(lesson: Path) -> NotebookNode:
    """Return a lesson, which the caller must not change; read its file only once."""
    return nbformat.read(lesson, as_version=4)


def edit(notebook: NotebookNode, edits: list) -> None:
    """Edit a lesson's code in place, but leave its stored outputs unchanged.

    Parameters
    ----------
    notebook
        The lesson.
    edits
        Each edit has one of three forms: `[old, new]`, where `old` must occur exactly once in the
        code; `{twice = text}`, which repeats the cell that contains the text; or `{swap = [text,
        text]}`, which swaps the two cells that contain these texts.

    Raises
    ------
    PlanError
        If one of these texts does not occur exactly once.
    """
    for change in edits:
        match change:
            case [old, new]:
                cell = notebook.cells[find(notebook, old)]
                cell.source = cell.source.replace(old, new)
            case {"twice": text}:
                position = find(notebook, text)
                again = copy.deepcopy(notebook.cells[position])
                again.id = f"{again.id}-again"
                notebook.cells.insert(position + 1, again)
            case {"swap": [one, other]}:
                here, there = find(notebook, one), find(notebook, other)
                cells = notebook.cells
                cells[here], cells[there] = cells[there], cells[here]
            case _:
                raise PlanError(f"no such edit: {change!r}")


def find(notebook: NotebookNode, text: str) -> int:
    """Return the position of the code cell that contains `text`, which must occur exactly once.

    Raises
    ------
    PlanError
        If `text` occurs nowhere or more than once.
    """
    found = [
        position
        for position, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
        for _ in range(cell.source.count(text))
    ]
    if len(found) != 1:
        raise PlanError(f"{text!r} occurs {len(found)} times, not once")
    return found[0]


@cache
def locks() -> list[str]:
    """Return the versions of Python and of the packages on which the outputs depend."""
    lock = (ROOT / "requirements" / "cpu.txt").read_text()
    names = "tensorflow[a-z-]*|keras|numpy|ml-dtypes|matplotlib|pillow|contourpy|fonttools"
    return [*sorted(re.findall(rf"^(?:{names})==[^ ]+", lock, re.M)), sys.version]


@cache
def comparison() -> str:
    """Return a hash of the code that compares outputs."""
    files = sorted(Path(nbval_tolerance.__file__).parent.rglob("*.py"))
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()


@cache
def digest(path: Path) -> str:
    """Return a hash of a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Running


def run_all(jobs: list[Job], options: argparse.Namespace) -> dict[str, Result]:
    """Run several jobs at a time; save each result immediately, and return all results."""
    results: dict[str, Result] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        pending = [pool.submit(run, job, options) for job in jobs]
        try:
            for future in as_completed(pending):
                result = future.result()
                results[result.key] = result
                with (options.output / "results.jsonl").open("a") as file:
                    file.write("\n" + json.dumps(asdict(result)))  # \n ends any truncated line
                print(f"[{len(results)}/{len(jobs)}] {sentence(result)}", flush=True)
        except BaseException:  # including Ctrl-C, which also stops the runs
            pool.shutdown(cancel_futures=True)
            raise
    return results


def run(job: Job, options: argparse.Namespace) -> Result:
    """Run a job in a separate process; return its result."""
    about = (job.key, job.lesson.stem, job.variant.kind, job.variant.name)
    try:
        with PREPARING:
            place = prepare(job.variant, options.output)
    except LookupError as error:
        return Result(*about, "skipped", message=str(error))
    except subprocess.CalledProcessError as error:
        return Result(*about, "broken", message=f"`{' '.join(map(str, error.cmd))}` failed")
    folder = options.output / "runs" / job.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    original, notebook = read(job.lesson), read(job.lesson)
    edit(notebook, job.variant.edits)
    nbformat.write(notebook, folder / job.lesson.name)
    copy_what_lessons_import(job.lesson.parent, folder)

    command = [place.python, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder]
    command += ["-o", "addopts=", "-p", "no:cacheprovider", "--nbval", "--nbval-tolerance"]
    command += ["--nbval-tolerance-config", ROOT / "pyproject.toml"]
    # Deselect the plugin's test that the stored outputs match the source code, which would fail
    # after every edit.
    command += ["--deselect", f"{job.lesson.name}::stored state"]
    command += ["--junitxml", folder / "junit.xml"]
    command += ["--nbval-tolerance-dir", folder]
    if job.variant.kind == "mutation":
        command += ["-x"]  # stop at the first failing cell

    began = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        try:
            code = subprocess.run(
                [*command, job.lesson.name],
                cwd=folder,
                env=environment(job.variant, place, options.jobs),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=RUN_TIMEOUT,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    seconds = round(time.monotonic() - began, 1)
    if code not in (0, 1):
        message = f"pytest ended with {code}, see the log: {folder / 'log.txt'}"
        return Result(*about, "broken", message=message, seconds=seconds)
    numbers = cell_names(original, notebook)
    if code == 1:
        name, message = first_failure(folder / "junit.xml")
        return Result(*about, "failed", numbers.get(name, name), message, None, seconds, job.judge)
    used, name, line = largest_share(folder / f"{job.lesson.stem}.tolerance.json")
    return Result(*about, "passed", numbers.get(name, name), line, used, seconds, job.judge)


def judge_again(job: Job, known: dict[str, Result], output: Path) -> bool:
    """Compare a job's saved outputs again; return whether the result in `known` is now up to date.

    The current comparison is applied to the outputs that the job's last run computed. A mutation's
    run stops at the first cell that catches the mutation. If that cell no longer catches it, the
    job must therefore run again, to compute the outputs of later cells.
    """
    result = known.get(job.key)
    if result is None or result.outcome not in ("passed", "failed"):
        return False
    if result.judged == job.judge:
        return True
    notebook = read(job.lesson)
    edit(notebook, job.variant.edits)
    try:
        file = output / "runs" / job.folder / f"{job.lesson.stem}.computed.ipynb"
        computed = nbformat.read(file, as_version=4)
    except FileNotFoundError:
        return False
    if probes(notebook) != probes(computed):
        return False  # the job's last run evaluated different probes
    numbers = cell_names(read(job.lesson), notebook)
    results = compare_notebooks(notebook, computed, load(ROOT / "pyproject.toml"))
    failed = [(number, found) for number, found in results.items() if found.differences]
    if failed:
        number, found = failed[0]
        outcome, used, message = "failed", None, found.differences[0].what
    elif result.outcome == "failed" and result.kind == "mutation":
        return False
    else:
        shares = [(found.worst.used, number) for number, found in results.items() if found.worst]
        used, number = max(shares, default=(0.0, 0))
        outcome, message = "passed", str(results[number].worst) if used else ""
    name = f"Cell {number}"
    known[job.key] = replace(
        result,
        outcome=outcome,
        cell=numbers.get(name, name),
        message=message,
        used=used,
        judged=job.judge,
    )
    return True


def probes(notebook: NotebookNode) -> list[dict[str, str] | None]:
    """Return each code cell's probes, the expressions whose values are compared."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.metadata.get("regression", {}).get("probes") for cell in cells]


def environment(variant: Variant, place: Place, jobs: int) -> dict[str, str]:
    """Return a run's environment variables: those of this process and of the variant."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    inherited.setdefault("KERAS_HOME", str(ROOT / ".course" / "keras"))
    inherited["PYTHONPATH"] = os.pathsep.join(map(str, place.packages))
    if jobs > 1 and not set(THREADS) & variant.environment.keys():
        inherited |= dict.fromkeys(THREADS, "1")
    return inherited | variant.environment


@dataclass(frozen=True)
class Place:
    """A Python executable, and folders with packages that take precedence over those installed."""

    python: str
    packages: tuple[Path, ...] = ()


def prepare(variant: Variant, output: Path) -> Place:
    """Return the Python and the package folders for a variant; install them if necessary.

    Raises
    ------
    LookupError
        If the variant's version of Python is not installed.
    """
    python = sys.executable
    uv = Path(python).with_name("uv")
    if variant.python:
        home = output / f"python{variant.python}"
        python = str(home / "bin" / "python")
        if not (home / "ready").exists():
            make = [uv, "venv", "--quiet", "--clear", "--no-python-downloads"]
            make += ["--python", variant.python, home]
            if subprocess.run(make, check=False, stderr=subprocess.DEVNULL).returncode != 0:
                raise LookupError(f"there is no Python {variant.python} here")
            print(f"Installing the locks for Python {variant.python} ...", flush=True)
            pip = [uv, "pip", "install", "--quiet", "--python", python]
            locks = [f"--requirements={ROOT / 'requirements' / n}.txt" for n in LOCKS]
            subprocess.run([*pip, "--compile-bytecode", "--require-hashes", *locks], check=True)
            # The course's own package contains the kernel settings.
            own = ["--editable", ROOT, "--editable", ROOT / "packages" / "nbval-tolerance"]
            subprocess.run([*pip, "--no-deps", "--no-build-isolation", *own], check=True)
            (home / "ready").touch()
    packages = []
    for package in variant.install:
        folder = output / "packages" / re.sub(r"[^a-z0-9.]+", "-", package)
        if not (folder / "ready").exists():
            print(f"Installing {package} ...", flush=True)
            install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", python]
            subprocess.run([*install, "--target", folder, package], check=True)
            (folder / "ready").touch()
        packages.append(folder)
    return Place(python, tuple(packages))


# Reading a run's result


def cell_names(original: NotebookNode, edited: NotebookNode) -> dict[str, str]:
    """Map each cell's name (`Cell N`) in the edited notebook to its name in the original."""
    old = {
        cell.id: f"Cell {number}"
        for number, cell in enumerate(c for c in original.cells if c.cell_type == "code")
    }
    names = {}
    for number, cell in enumerate(c for c in edited.cells if c.cell_type == "code"):
        first, again, _ = cell.id.partition("-again")
        names[f"Cell {number}"] = f"{old[first]} again" if again else old[first]
    return names


def first_failure(report: Path) -> tuple[str, str]:
    """Return the name of the first failed test in a JUnit report, and its message's first line."""
    for case in ElementTree.parse(report).iter("testcase"):
        failure = case.find("failure")
        failure = case.find("error") if failure is None else failure
        if failure is not None:
            return case.get("name", ""), headline(failure.text or "")
    return "", "pytest failed without a failed item"


def headline(text: str) -> str:
    """Return the first line of a message, without the prefix that names the lesson and the cell."""
    return re.sub(r"^\S+\.ipynb, Cell \d+, shown as \[\d*\]: ", "", text.partition("\n")[0])


def largest_share(report: Path) -> tuple[float | None, str, str]:
    """Return the largest share of a tolerance that was used, with the number's cell and line."""
    if not report.exists():
        return None, "", ""
    moved = [entry for entry in json.loads(report.read_text()) if entry.get("used")]
    if not moved:
        return 0.0, "", ""
    most = max(moved, key=lambda entry: entry["used"])
    what = f"{most['stored']} -> {most['computed']} ({most['kind']}, ±{most['allowed']:.2g})"
    return most["used"], f"Cell {most['cell']}", f"line {most['line']}: {what}"


def read_results(file: Path) -> dict[str, Result]:
    """Return all stored results, keyed by `Job.key`."""
    if not file.exists():
        return {}
    results = {}
    for line in file.read_text().splitlines():
        try:
            result = Result(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue  # the line was truncated by an interruption
        results[result.key] = result
    return results


# Reporting


def hole(job: Job, result: Result | None) -> bool:
    """Return whether a job does not support the proof: its result is missing, broken or wrong."""
    if result is None or result.outcome == "broken":
        return True
    if result.outcome == "skipped":
        return False
    if job.variant.kind == "variation":
        return result.outcome != "passed"
    return result.outcome != "failed" and not job.variant.argued


def sentence(result: Result) -> str:
    """Format a result as a progress line."""
    about = f"{result.lesson}: {result.name}"
    if result.outcome in ("broken", "skipped"):
        said = f"{result.outcome.upper()}, {result.message}"
    elif result.kind == "variation":
        said = (
            f"passed{share(result)}" if result.outcome == "passed" else f"FAILED, {where(result)}"
        )
    else:
        said = f"caught, {where(result)}" if result.outcome == "failed" else "NOT CAUGHT"
    return f"{about}: {said} ({result.seconds:.0f} s)"


def where(result: Result) -> str:
    """Format the cell and message of a result."""
    return ": ".join(part for part in (result.cell, result.message[:160]) if part)


def share(result: Result) -> str:
    """Format the largest share of a tolerance that a run used, and the cell that used it."""
    if result.used is None:
        return ""
    return f", {result.used:.0%}" + (f" in {result.cell}" if result.cell else "")


def tables(results: dict[Job, Result | None]) -> list[str]:
    """Return Markdown tables: one of variations by lesson, and one of mutations for each lesson."""
    lessons = list(dict.fromkeys(job.lesson.stem for job in results))
    by_name = {(job.lesson.stem, job.variant.name): result for job, result in results.items()}
    lines: list[str] = []
    names = dict.fromkeys(j.variant.name for j in results if j.variant.kind == "variation")
    if names:
        lines += ["| Variation | " + " | ".join(lessons) + " |", "|---" * (len(lessons) + 1) + "|"]
        for name in names:
            cells = [variation_cell(by_name.get((lesson, name))) for lesson in lessons]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    for lesson in lessons:
        jobs = [j for j in results if j.lesson.stem == lesson and j.variant.kind == "mutation"]
        if jobs:
            lines += [f"| Mutation of {lesson} | Caught by | What it says |", "|---|---|---|"]
            lines += [
                f"| {job.variant.name} | " + " | ".join(mutation_cells(job, results[job])) + " |"
                for job in jobs
            ]
            lines.append("")
    return lines


def variation_cell(result: Result | None) -> str:
    """Return a table cell: "passed" and the used share of the tolerance, or the failure."""
    if result is None:
        return "not run"
    if result.outcome == "passed":
        return f"passed{share(result)}"
    if result.outcome == "skipped":
        return f"skipped: {result.message}"
    return f"**{result.outcome}** {escape(where(result))}"


def mutation_cells(job: Job, result: Result | None) -> tuple[str, str]:
    """Return two table cells: the lesson's cell that caught the mutation, and the message."""
    if result is None:
        return "not run", ""
    if result.outcome == "failed":
        return result.cell, escape(result.message[:160])
    if result.outcome == "broken":
        return "**broken**", escape(result.message)
    return ("not, argued", job.variant.argued) if job.variant.argued else ("**not caught**", "")


def escape(text: str) -> str:
    """Escape a text for a Markdown table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run the same command again to resume.")

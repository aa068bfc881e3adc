"""Measure how long validating the course takes: `make bench`.

Take turns running the same lessons with this plugin and with other tools, and print median times
and ratios. The "floor" is the time for running the lessons' code as plain scripts, without Jupyter.
The floor is measured twice: first with one script at a time on all cores, then with several
single-threaded scripts at a time, one for each of the plugin's workers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from prove import copy_what_lessons_import

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ["nbmake", "pytest-notebook"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
BEFORE = "import matplotlib; matplotlib.use('agg')\nfrom IPython.display import display\n"


def main() -> None:
    """Measure each method of running the lessons, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("lessons", nargs="*", help="notebooks (default: all lessons)", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="rounds for each way (default: 3)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="only ways whose names contain this text, such as stock or floor; may be repeated",
    )
    parser.add_argument(
        "--seeds", action="store_true", help="instead, measure what op determinism costs"
    )
    parser.add_argument(
        "--inert",
        action="store_true",
        help="instead, measure what the plugin costs a pytest session that does not use it",
    )
    options = parser.parse_args()
    lessons = options.lessons or sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(shutil.copy(lesson, folder)) for lesson in lessons]
        copy_what_lessons_import(ROOT / "notebooks", Path(folder))
        if options.inert:
            ways = inert(Path(folder))
        else:
            ways = determinism(copies) if options.seeds else tools(copies)
        if options.only:
            ways = {name: way for name, way in ways.items() if any(t in name for t in options.only)}
            if not ways:
                parser.error("no way has a name that contains this text")
        times = measure(ways, options.rounds)
    baseline = statistics.median(next(iter(times.values())))
    what = "an empty folder" if options.inert else f"{len(lessons)} lessons"
    print(f"\n{what}, {os.cpu_count()} cores, {options.rounds} rounds, taking turns\n")
    print("| | median s | fastest to slowest | ratio |\n|---|---|---|---|")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.3g} to {max(seconds):.3g}"
        print(f"| {name} | {middle:.4g} | {spread} | {middle / baseline:.2f} |")


def measure(ways: dict, rounds: int) -> dict[str, list[float]]:
    """Run each method once per round; return the wall-clock times of each method in seconds."""
    times = {name: [] for name in ways}
    for number in range(1, rounds + 1):
        for name, way in ways.items():
            print(f"round {number} of {rounds}: {name} ...", end=" ", flush=True)
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
            print(f"{times[name][-1]:.1f} s", flush=True)
    return times


def tools(notebooks: list[Path]) -> dict:
    """Return a dictionary of functions, each of which runs or validates the notebooks."""
    other = others()
    # Use an empty configuration, as in a project without this plugin.
    pytest = ["-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider"]
    stock = [sys.executable, *pytest, "--nbval", *notebooks]
    ours = [*stock, "--nbval-tolerance", "--nbval-tolerance-dir", notebooks[0].parent]
    ours += ["--nbval-tolerance-config", ROOT / "pyproject.toml"]
    workers = min(os.cpu_count() + 1, 4)
    return {
        "stock `pytest --nbval`": lambda: run(stock),
        "this plugin, one process": lambda: run(ours),
        f"this plugin, `-n {workers}`": lambda: run([*ours, "-n", str(workers)]),
        "`pytest --nbmake`": lambda: run([other, *pytest, "--nbmake", *notebooks]),
        "pytest-notebook": lambda: run([other, *pytest, "--nb-test-files", *notebooks]),
        "`jupyter execute`": lambda: run(
            [Path(sys.executable).with_name("jupyter-execute"), *notebooks]
        ),
        "floor: scripts, one after another": lambda: scripts(notebooks, 1, {}),
        f"floor: scripts, {workers} at a time": lambda: scripts(notebooks, workers, ONE_THREAD),
    }


def determinism(notebooks: list[Path]) -> dict:
    """Return two functions that run the notebooks, one with op determinism and one without."""
    line = "tf.config.experimental.enable_op_determinism()"
    return {
        "op determinism": lambda: scripts(notebooks, 1, {}),
        "without": lambda: scripts(notebooks, 1, {}, leave_out=line),
    }


def inert(folder: Path) -> dict:
    """Return two functions that start pytest without tests, one with this plugin and one
    without."""
    (folder / "empty").mkdir()
    pytest = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", folder / "empty"]
    pytest += ["-p", "no:cacheprovider", "--help"]  # pytest exits after loading its plugins
    return {
        "pytest without this plugin": lambda: run([*pytest, "-p", "no:nbval_tolerance"]),
        "pytest with this plugin, not used": lambda: run(pytest),
    }


def run(command: list) -> None:
    """Run a command; if it fails, print the last line of its output."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        print(f"(exit code {done.returncode}: {done.stdout.strip().splitlines()[-1:]})", end=" ")


def scripts(notebooks: list[Path], at_once: int, environment: dict, leave_out: str = "") -> None:
    """Run the notebooks' code as scripts, starting with those that call `fit` most often."""

    def script(notebook: Path) -> None:
        cells = nbformat.read(notebook, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        path = notebook.with_suffix(".py")
        code = re.sub("^%.*", "", code, flags=re.M)  # drop magics, which only affect figures
        path.write_text(BEFORE + code.replace(leave_out, ""))
        command = [sys.executable, path]
        done = subprocess.run(
            command,
            cwd=path.parent,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{path.name}: {done.stderr.strip().splitlines()[-1:]}")

    with ThreadPoolExecutor(at_once) as pool:
        by_training = sorted(notebooks, key=lambda path: -path.read_text().count(".fit("))
        list(pool.map(script, by_training))


def others() -> Path:
    """Create an environment with the course's packages and the other tools; return its `python`."""
    folder = ROOT / ".course" / "bench"
    uv = ROOT / ".venv" / "bin" / "uv"
    locks = [ROOT / "requirements" / name for name in ("cpu.txt", "test.txt")]
    if not folder.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", folder, "--compile-bytecode"]
    subprocess.run([*install, *(f"--requirements={lock}" for lock in locks)], check=True)
    subprocess.run([*install, *OTHERS], check=True)
    return folder / "bin" / "python"


if __name__ == "__main__":
    main()

"""Test `tools/prove.py` on a small lesson, and check its tables against the real lessons."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

PROVE = Path(__file__).resolve().parents[2] / "tools" / "prove.py"
# Cells and their output. TF_SCALE simulates a different processor.
CELLS = {
    "import os\nscale = float(os.environ.get('TF_SCALE', 1))  # of this machine": "",
    "rate = 0.1\nprint('learning rate', rate)": "learning rate 0.1\n",
    "class Model:\n    def fit(self): print(f'loss: {0.3 * scale:.3f}')\nModel().fit()": (
        "loss: 0.300\n"
    ),
    "steps = globals().get('steps', 0) + 1\nprint('steps', steps)": "steps 1\n",
}
VARIATIONS = """
["run again"]
["a broken processor"]
environment = { TF_SCALE = "2" }
["a broken pytest"]
environment = { PYTEST_ADDOPTS = "--no-such-option" }
["Python 2.7"]
python = "2.7"
"""
MUTATIONS = """
[07_small]
"rate doubled" = [["rate = 0.1", "rate = 0.2"]]
"a cell run twice" = [{ twice = "steps = " }]
"cells exchanged" = [{ swap = ["scale = ", "Model().fit()"] }]
"no comment" = [["  # of this machine", ""]]
"""


def write(folder: Path, variations: str = VARIATIONS, mutations: str = MUTATIONS) -> None:
    """Write the small lesson and the tables of variations and mutations to a folder."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    for count, (source, printed) in enumerate(CELLS.items(), start=1):
        outputs = [nbformat.v4.new_output("stream", text=printed)] if printed else []
        notebook.cells.append(
            nbformat.v4.new_code_cell(
                source, id=f"cell-{count}", outputs=outputs, execution_count=count
            )
        )
    nbformat.write(notebook, folder / "07_small.ipynb")
    (folder / "variations.toml").write_text(variations)
    (folder / "mutations.toml").write_text(mutations)


def prove(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `prove.py` on the lesson and the tables in a folder."""
    places = ["--notebooks", folder, "--plan", folder, "--output", folder / "proof"]
    return subprocess.run(
        [sys.executable, PROVE, *places, "--jobs", "2", *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the small lesson and its tables."""
    path = tmp_path_factory.mktemp("proof")
    write(path)
    return path


@pytest.fixture(scope="module")
def proof(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `prove.py` on the small lesson; return the completed process."""
    return prove(folder)


def test_every_edit_fits_its_lesson():
    result = subprocess.run(
        [sys.executable, PROVE, "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_table_says_what_passed_and_what_was_caught(proof):
    rows = [line.strip("| ").split(" | ") for line in proof.stdout.splitlines() if "| " in line]
    assert {row[0]: row[1].partition(": ")[0] for row in rows} == {
        "Variation": "07_small",
        "run again": "passed, 0%",
        "a broken processor": "**failed** Cell 2",
        "a broken pytest": "**broken** pytest ended with 4, see the log",
        "Python 2.7": "skipped",
        "Mutation of 07_small": "Caught by",
        "rate doubled": "Cell 1",
        "a cell run twice": "Cell 3 again",
        "cells exchanged": "Cell 2",
        "no comment": "**not caught**",
    }
    assert "0.1 became 0.2" in proof.stdout
    assert "raised NameError: name 'scale' is not defined" in proof.stdout


def test_each_hole_is_named_and_ends_in_an_error(proof):
    assert proof.returncode == 1
    assert proof.stdout.endswith(
        "3 of 8 runs do not support the proof:\n"
        "- 07_small: a broken processor\n"
        "- 07_small: a broken pytest\n"
        "- 07_small: no comment\n"
    )


def test_an_argument_fills_a_hole(proof, folder):
    argument = '[07_small.argued]\n"no comment" = "A reader sees it, the result does not."'
    (folder / "mutations.toml").write_text(f"{MUTATIONS}{argument}")
    table = prove(folder, "--table")
    assert "| no comment | not, argued | A reader sees it" in table.stdout
    assert "- 07_small: no comment" not in table.stdout
    assert "- 07_small: a broken processor" in table.stdout, "an argument must not excuse a failure"


def test_it_goes_on_where_it_stopped(proof, folder):
    file = folder / "proof" / "results.jsonl"
    lines = file.read_text().split("\n")[1:]
    assert sorted(json.loads(line)["outcome"] for line in lines) == (
        ["broken", "failed", "failed", "failed", "failed", "passed", "passed", "skipped"]
    )
    file.write_text("\n".join([*lines, lines[0][:50]]))  # with a truncated last line
    (folder / "mutations.toml").write_text(MUTATIONS.replace("rate = 0.2", "rate = 0.3"))
    again = prove(folder)
    assert "[3/3]" in again.stdout, "it repeats the broken and skipped runs, and makes the new one"
    assert "0.1 became 0.3" in again.stdout
    assert "| run again | passed, 0% |" in again.stdout


def test_after_a_change_of_the_comparison_runs_are_judged_again(proof, folder):
    file = folder / "proof" / "results.jsonl"
    older = file.read_text().replace('"judged": "', '"judged": "by another comparison, ')
    run = folder / "proof" / "runs" / "07_small-run-again" / "07_small.computed.ipynb"
    run.write_text(run.read_text().replace("loss: 0.300", "loss: 0.900"))
    file.write_text(older)
    again = prove(folder)
    assert "| run again | **failed** Cell 2: line 1" in again.stdout
    assert "0.300 became 0.900" in again.stdout
    assert ": caught, " not in again.stdout, "no mutation was run again"


def test_after_a_new_probe_the_runs_that_lack_its_value_are_made_again(tmp_path):
    write(tmp_path, '["run again"]\n', "[07_small]\n")
    assert "[1/1]" in prove(tmp_path).stdout
    path = tmp_path / "07_small.ipynb"
    notebook = nbformat.read(path, as_version=4)
    about = {"probes": {"the rate": "rate"}, "values": {"the rate": "0.1"}}
    notebook.cells[1].metadata["regression"] = about
    nbformat.write(notebook, path)
    again = prove(tmp_path)
    assert "[1/1]" in again.stdout
    assert "| run again | passed, 0% |" in again.stdout


def test_the_table_alone_runs_nothing(tmp_path):
    write(tmp_path)
    result = prove(tmp_path, "--table")
    assert result.returncode == 1
    assert "| rate doubled | not run |" in result.stdout
    assert not (tmp_path / "proof" / "runs").exists()


def test_tables_that_do_not_fit_are_refused(tmp_path):
    edits = [
        '["rate = 0.9", ""]',
        '["rate", "ratio"]',
        '["rate = 0.1", "rate = 0.1"]',
        '{ thrice = "rate" }',
    ]
    table = "".join(f"edit{i} = [{edit}]\n" for i, edit in enumerate(edits))
    write(tmp_path, mutations=f"[07_small]\n{table}")
    result = prove(tmp_path, "--check")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "07_small: edit0: 'rate = 0.9' occurs 0 times, not once",
        "07_small: edit1: 'rate' occurs 3 times, not once",
        "07_small: edit2: changes nothing",
        "07_small: edit3: no such edit: {'thrice': 'rate'}",
    ]


@pytest.mark.parametrize(
    ("mutations", "complaint"),
    [
        ("[09_none]", "there is no lesson 09_none"),
        ('[07_small.argued]\n"b" = "Nobody sees it."', "no mutation is called 'b'"),
    ],
)
def test_names_that_do_not_exist_are_refused(tmp_path, mutations, complaint):
    write(tmp_path, mutations=mutations)
    result = prove(tmp_path, "--check")
    assert result.returncode == 1
    assert complaint in result.stderr

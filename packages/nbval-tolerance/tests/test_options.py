"""Options: inert unless asked for, each with a twin in the file, none ignored in silence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbval_tolerance import pytest_plugin
from nbval_tolerance.execute import execute

SOURCES = ["print('score', 0.1234567)", "print('done')"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the text of an executed notebook whose score has moved by a rounding since."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in SOURCES])
    execute(notebook, tmp_path_factory.mktemp("notebook"))
    notebook.cells[0].outputs[0].text = "score 0.1234568\n"
    return nbformat.writes(notebook)


@pytest.fixture
def notebook(executed: str, pytester: pytest.Pytester) -> Path:
    """Return that notebook, in a folder of its own."""
    path = pytester.path / "small.ipynb"
    path.write_text(executed)
    return path


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch):
    """Return a function that runs pytest in this process, as importing Jupyter takes seconds."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    return pytester.runpytest_inprocess


def write(pytester: pytest.Pytester, ini: str, table: str = "") -> None:
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{ini}\n[tool.nbval-tolerance]\n{table}")


def test_without_being_asked_it_changes_nothing(run, notebook):
    result = run("--nbval", notebook)
    result.assert_outcomes(passed=1, failed=1)  # nbval compares each digit
    result.stdout.no_fnmatch_line("*stored state*")


@pytest.mark.parametrize("way", ["option", "twin"])
def test_it_is_asked_for_on_the_command_line_or_in_the_file(run, pytester, notebook, way):
    write(pytester, "nbval_tolerance = true" if way == "twin" else "")
    arguments = ["--nbval-tolerance"] if way == "option" else []
    run("--nbval", *arguments, notebook).assert_outcomes(passed=3)


def test_asked_for_in_the_file_it_waits_for_nbval(run, pytester, notebook):
    write(pytester, "nbval_tolerance = true")
    pytester.makepyfile("def test(): pass")
    run().assert_outcomes(passed=1)


def test_lax_means_lax(run, pytester, notebook):
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        cell.outputs[0].text = "something else\n"
    content.cells[1].source += "\n# NBVAL_CHECK_OUTPUT"  # and edited since it was stored
    nbformat.write(content, notebook)
    run("--nbval-lax", "--nbval-tolerance", notebook).assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nbval-tolerance"], "--nbval-tolerance needs nbval: add --nbval"),
        (["--nbval", "--nbval-tolerance-report"], "--nbval-tolerance-report needs the comparison"),
        (["--nbval", "--nbval-tolerance", "--nbdime"], "--nbdime cannot be used with"),
        (
            ["--nbval", "--nbval-tolerance", "--nbval-tolerance-output-timeout=soon"],
            "takes seconds, not 'soon'",
        ),
        (
            ["--nbval", "--nbval-tolerance", "--nbval-tolerance-dir=small.ipynb"],
            "small.ipynb is no folder",
        ),
        (
            ["--nbval", "--nbval-tolerance", "--nbval-tolerance-config=none.toml"],
            "none.toml: *No such file",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(run, notebook, arguments, said):
    result = run(*arguments, notebook)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{said}*"])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("traning = ['step']", "traning: unknown; the keys are *training*"),
        ("training = 'step'", "training: takes a list of texts"),
        ("figures = 'off'", "figures: takes true or false"),
        ("words = { accuracies = ['hits'] }", "words.accuracies: no such kind"),
        ("tolerances = { late = { loss = [1, 2] } }", "tolerances.late: no such phase"),
        ("tolerances = { fit = { loss = [true, 0] } }", "*takes [[]absolute, relative[]]"),
        ("tolerances = { fit = { loss = 0.1 } }", "*takes [[]absolute, relative[]]"),
    ],
)
def test_a_wrong_table_is_named_with_what_it_takes(run, pytester, notebook, table, said):
    write(pytester, "nbval_tolerance = true", table)
    result = run("--nbval", notebook)
    result.stdout.fnmatch_lines([f"*pyproject.toml, [[]tool.nbval-tolerance[]], {said}*"])
    assert result.ret not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def test_every_option_has_a_prefix_and_a_twin_and_is_documented(pytester):
    said = pytester.runpytest_inprocess("--help").stdout.str()
    options = set(re.findall(r"--(nbval-tolerance[\w-]*)", said))
    twins = set(re.findall(r"^ +(nbval_tolerance\w*) \(", said, re.M))
    assert len(options) > 5
    assert {option.replace("-", "_") for option in options} == twins
    page = Path(__file__).parents[1] / "docs" / "configuration.md"
    for option in options:
        assert f"`--{option}" in page.read_text()
        assert f"`{option.replace('-', '_')}`" in page.read_text()


def test_nbvals_own_file_of_patterns_is_honoured(run, pytester, notebook):
    content = nbformat.read(notebook, as_version=4)
    content.cells[1].outputs[0].text = "finished\n"
    nbformat.write(content, notebook)
    arguments = ["--nbval", "--nbval-tolerance", notebook]
    run(*arguments).assert_outcomes(passed=2, failed=1)
    (pytester.path / "patterns").write_text("regex: done|finished\nreplace: ENDED\n")
    run(*arguments, "--nbval-sanitize-with=patterns").assert_outcomes(passed=3)


@pytest.mark.parametrize("option", ["--nbval-current-env", "--nbval-kernel-name=python3"])
def test_nbvals_choice_of_a_kernel_is_honoured(run, notebook, option):
    content = nbformat.read(notebook, as_version=4)
    content.metadata.kernelspec.name = "none-such"
    nbformat.write(content, notebook)
    run("--nbval", "--nbval-tolerance", option, notebook).assert_outcomes(passed=3)


def test_the_entry_point_imports_nothing_heavy():
    """What pytest loads in every session, wanted or not."""
    code = (
        "import sys, pytest; before = set(sys.modules); import nbval_tolerance.pytest_plugin; "
        "print(*set(sys.modules) - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert {name.partition(".")[0] for name in found.stdout.split()} == {"nbval_tolerance"}


def test_xdist_is_left_alone_in_a_session_that_does_not_ask(pytester):
    config = pytester.parseconfigure("--nbval")
    loaded = [name for name, _ in config.pluginmanager.list_name_plugin()]
    assert not {f"nbval_tolerance.session.{part}" for part in pytest_plugin.PARTS} & set(loaded)

"""Test that options are off by default, can be set in a file, and are never ignored."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbval_tolerance import pytest_plugin
from nbval_tolerance.compare import Rules, compare_text
from nbval_tolerance.config import ConfigError, find, load
from nbval_tolerance.execute import execute

SOURCES = ["print('score', 0.1234567)", "print('done')"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the text of an executed notebook whose stored score is off by a rounding error."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in SOURCES])
    execute(notebook, tmp_path_factory.mktemp("notebook"))
    notebook.cells[0].outputs[0].text = "score 0.1234568\n"
    return nbformat.writes(notebook)


@pytest.fixture
def notebook(executed: str, pytester: pytest.Pytester) -> Path:
    """Write the executed notebook into a separate folder and return its path."""
    path = pytester.path / "small.ipynb"
    path.write_text(executed)
    return path


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch):
    """Return a function that runs pytest in-process, because importing Jupyter takes seconds."""
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
    content.cells[1].source += "\n# NBVAL_CHECK_OUTPUT"  # edited after it was stored
    nbformat.write(content, notebook)
    run("--nbval-lax", "--nbval-tolerance", notebook).assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--nbval-tolerance", "--nbval-tolerance needs nbval: add --nbval"),
        ("--nbval --nbval-tolerance-report", "--nbval-tolerance-report needs the comparison"),
        ("--nbval --nbval-tolerance --nbdime", "--nbdime cannot be used with"),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-output-timeout=soon",
            "takes seconds, not 'soon'",
        ),
        *(
            (f"--nbval --nbval-tolerance --nbval-{name}={text}", f"{name} takes seconds, ")
            for name in ("cell-timeout", "kernel-startup-timeout")
            for text in ("0", "-1", "nan", "inf")
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-dir=small.ipynb",
            "small.ipynb is not a folder",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-dir=/proc/none/such",
            "/proc/none/such cannot be written: ",
        ),
        (
            f"--nbval --nbval-tolerance --nbval-tolerance-dir={'a' * 300}",
            "cannot be written: File name too long",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-config=none.toml",
            "none.toml cannot be read: No such file",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-config=other.toml",
            "other.toml has no table [[]tool.nbval-tolerance[]]",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-config=small.ipynb",
            "small.ipynb is not a TOML file: *",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-data=small.ipynb",
            "--nbval-tolerance-data works only with --nbval-tolerance-changed: also add that",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-dir=",
            "--nbval-tolerance-dir takes a value, but got an empty one",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-data= --nbval-tolerance-changed",
            "--nbval-tolerance-data takes a value, but got an empty one",
        ),
        (
            "--nbval --nbval-tolerance-report --nbval-tolerance-dir=found",
            "--nbval-tolerance-report, --nbval-tolerance-dir need the comparison: add",
        ),
        (
            "--nbval --nbval-tolerance --nbval-tolerance-dir=small.ipynb/found",
            "small.ipynb is not a folder",
        ),
        (
            "--nbval --nbval-tolerance --nbval-sanitize-with=none.cfg",
            "--nbval-sanitize-with: none.cfg: No such file or directory",
        ),
        (
            "--nbval --nbval-tolerance --nbval-sanitize-with=other.toml",
            "--nbval-sanitize-with: other.toml has no line `regex: …`",
        ),
        (
            "--nbval --nbval-tolerance --nbval-sanitize-with=wrong.cfg",
            "--nbval-sanitize-with: wrong.cfg: '(': missing ), unterminated subpattern",
        ),
        (
            "--nbval --nbval-tolerance --nbval-sanitize-with=group.cfg",
            "--nbval-sanitize-with: group.cfg: 'a': *unknown group name*",
        ),
        (
            "--nbval --nbval-tolerance --nbval-sanitize-with=.",
            "--nbval-sanitize-with: .: Is a directory",
        ),
        (
            "--nbval --nbval-tolerance --nbval-current-env --nbval-kernel-name=python3",
            "--nbval-kernel-name and --nbval-current-env both say which kernel to use: give one",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(run, notebook, arguments, said):
    (notebook.parent / "other.toml").write_text("[tool.ruff]")
    (notebook.parent / "group.cfg").write_text("regex: a\nreplace: \\g<name>\n")
    (notebook.parent / "wrong.cfg").write_text("regex: (\nreplace: x\n")
    result = run(*arguments.split(), notebook)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{said}*"])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("traning = ['step']", "traning: unknown; the keys are *training*"),
        ("training = 'step'", "training: takes a list of strings"),
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
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *pyproject.toml, [[]tool.nbval-tolerance[]], {said}*"])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        *(
            (f"{key} = ['{name}']", f"{key}: '{name}' is not a name; write one without")
            for key in ("training", "deterministic")
            for name in ("train()", "train(", "a b", "3d", "model.", ".fit", "for", "x[0].fit", "*")
        ),
        ("training = ['a.b']\ndeterministic = ['a.b']", "'a.b' is in training and in d"),
        ("skip = ['image/pgn']", "skip: 'image/pgn' is not known; the types of images are"),
        *(
            (f"skip = ['{kind}']", f"skip: '{kind}' is not a MIME type; write one in full")
            for kind in ("png", "image", "image/", "image/*", "text/html; x", "a/b/c", "Text/html")
        ),
        *(
            (f"environment = ['{name}']", f"environment: '{name}' is not an environment variable")
            for name in ("A B", "=x", "$HOME", "${HOME}", "3A", "A,B", "MY_*=3", "A B=3")
        ),
        ("notebooks = ['lessons']", "notebooks: 'lessons' matches no notebook; write one that"),
        ("notebooks = ['*.py']", "notebooks: '*.py' matches no notebook"),
        *(
            (f"{key} = {empty}", f"{key}: {empty} has an empty string")
            for key in ("notebooks", "training", "skip", "environment")
            for empty in ("['']", "[' ']")
        ),
        ("words = { loss = ['_'] }", "words.loss: '_' contains no letter"),
        ("words = { loss = ['hits'], accuracy = ['Hits'] }", "words: 'Hits' names loss and acc"),
        ("tolerances = { fit = { setting = [0, 1] } }", "tolerances.fit.setting: a setting is a c"),
        ("tolerances = { fit = { integer = [0, 1] } }", "tolerances.fit.integer: an integer must"),
        (
            "tolerances = { trained = { 'held-out loss' = [0, 1] } }",
            "tolerances.trained.held-out loss: no such kind; the kinds are loss, ",
        ),
    ],
)
def test_what_can_mean_nothing_is_refused(tmp_path, table, said):
    file = tmp_path / "pyproject.toml"
    file.write_text(f"[tool.nbval-tolerance]\n{table}")
    with pytest.raises(ConfigError) as error:
        load(file)
    assert f"{file}, [tool.nbval-tolerance]" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "table",
    [
        "training = ['fit', 'optimizer.update', '_step', 'größe']",
        "skip = ['image/png', 'image/svg+xml', 'application/vnd.plotly.v1+json', 'text/x-any']",
        "environment = ['HOME', 'MY_*', '*_DIR', 'LANG=C.UTF-8', 'EMPTY=', 'A=b c=d']",
        "words = { accuracy = ['top 5', '@1'], loss = ['perplexity'] }",
        "tolerances = { fit = { 'held-out loss' = [0, 1], loss = [0.1, 0] } }",
        "",
    ],
)
def test_what_means_something_is_taken(tmp_path, table):
    (tmp_path / "pyproject.toml").write_text(f"[tool.nbval-tolerance]\n{table}")
    assert load(tmp_path / "pyproject.toml").folder == tmp_path


@pytest.mark.parametrize("text", ["[tool]\nnbval-tolerance = 3", "tool = 3", "[tool.other]", ""])
def test_a_file_without_the_table_is_no_file_of_ours(tmp_path, text):
    file = tmp_path / "pyproject.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"has no table \[tool.nbval-tolerance\]"):
        load(file)


@pytest.mark.parametrize("name", ["tool.nbval_tolerance", "nbval-tolerance", "nbval_tolerance"])
def test_a_table_that_nothing_reads_is_named(tmp_path, name):
    (tmp_path / "pyproject.toml").write_text(f"[{name}]\nstrict = true")
    with pytest.raises(ConfigError, match=rf"the table \[{name}\] is not read; call it \[tool"):
        find(tmp_path)


def test_settings_in_the_file_wait_for_their_switch(run, pytester, notebook):
    write(pytester, "nbval_tolerance_data = ['none']\nnbval_tolerance_changed = true")
    run("--nbval", notebook).assert_outcomes(passed=1, failed=1)  # only nbval compares
    write(pytester, "nbval_tolerance_data = ['none']\nnbval_tolerance = true")
    result = run("--nbval", notebook)
    result.assert_outcomes(passed=3)
    assert result.ret == 0


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
    """Pytest loads the entry point in every session, even if the plugin is not used."""
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


def test_the_words_in_the_documentation_name_their_kinds():
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M))
    assert set(rows) == {"loss", "accuracy", "probability", "percentage", "setting", "float"}
    for kind in ("loss", "accuracy", "probability", "setting"):
        for word in re.split(r"[,;] ", rows[kind]):
            if "…" not in word:
                text = f"{word.strip('`')} 0.5"
                (number,) = compare_text(text, text, Rules()).numbers
                assert number.kind == kind, word


def test_the_readme_leads_somewhere_from_a_wheel():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert re.findall(r"\]\((?!https://)", readme) == []
    for module in re.findall(r"pydoc ([\w.]+)", readme):
        assert pydoc.locate(module).__doc__

"""Test the plugin with small notebooks in a real kernel, without TensorFlow, to save time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat import NotebookNode

from nbval_tolerance import execute as execute_module
from nbval_tolerance.config import find
from nbval_tolerance.config import read as read_toml
from nbval_tolerance.session import changed, report
from nbval_tolerance.stored import source_hash, stamp

CELLS = {
    "shapes": "print('train', (6, 28, 28))",
    "display": "from IPython.display import display; display({'a': 1}); 6 * 7",
    "untrained": "print('score', 0.25)",
    "order": "print('before'); display('shown'); print('after')",
    "progress": "for i in range(9): print(f'{i}/8', end='\\r')",
    "cleared": "from IPython.display import clear_output\n"
    "for i in range(3): print(i); clear_output(wait=True)\nprint('left')",
    "updated": "handle = display('one', display_id=True); handle.update('two')",
    "training": "class Model:\n    def fit(self): print('loss: 0.300')\nModel().fit()",
    "trained": "print('test accuracy 0.975')\nprint('mistakes', 262)",
}
WHOLE = len(CELLS) + 1  # a test for each cell, and one for the stored state

Change = Callable[[NotebookNode], None]


def make(path: Path, *sources: str, ids: list[str] | None = None) -> Path:
    """Create a notebook, then execute and store it as `make execute` does."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell, name in zip(cells, ids or [], strict=False):
        cell.id = name
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Small"), *cells])
    execute_module.execute(notebook, path.parent)
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the text of an executed notebook with `CELLS`."""
    path = tmp_path_factory.mktemp("lesson") / "07_small.ipynb"
    return make(path, *CELLS.values(), ids=list(CELLS)).read_text()


@pytest.fixture
def lesson(executed: str, pytester: pytest.Pytester) -> Path:
    """Return a copy of the executed notebook that a test can change."""
    path = pytester.path / "07_small.ipynb"
    path.write_text(executed)
    # Without this setting, the notebook's `fit` would not be recognized as training, because it
    # only prints.
    pytester.makepyprojecttoml('[tool.nbval-tolerance]\ntraining = ["fit"]')
    find.cache_clear()
    return path


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch):
    """Return a function that runs pytest with the plugin, as another course would.

    The plugin runs in this process, because importing Jupyter takes seconds.
    """
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)

    def run(*arguments: str | Path) -> pytest.RunResult:
        changed.surroundings.cache_clear()  # the cached value applies to one session
        return pytester.runpytest_inprocess("--nbval", "--nbval-tolerance", "-ra", *arguments)

    return run


def change(path: Path, name: str, **new) -> None:
    """Change a stored cell. `text=(old, new)` replaces text in the cell's output."""
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.id == name)
    if text := new.pop("text", None):
        (output,) = (output for output in cell.outputs if output.get("text"))
        assert text[0] in output.text
        output.text = output.text.replace(*text)
    cell.update(new)
    cell.metadata["regression"] = {
        **cell.metadata.get("regression", {}),
        "source": source_hash(cell),
    }
    nbformat.write(notebook, path)


def test_a_fresh_lesson_passes_and_reports_its_head_room(run, lesson):
    change(lesson, "trained", text=("0.975", "0.978"))
    result = run(
        lesson, "--nbval-tolerance-report", "--nbval-tolerance-dir", "found", "--junitxml", "j.xml"
    )
    result.assert_outcomes(passed=WHOLE)
    result.stdout.fnmatch_lines(["*50.0%*07_small.ipynb::Cell 8*0.978 became 0.975*accuracy*"])
    cases = ElementTree.parse(lesson.parent / "j.xml").iter("testcase")
    (last,) = (case for case in cases if case.get("name") == "Cell 8")
    properties = {p.get("name"): p.get("value") for p in last.iter("property")}
    assert properties["tolerance_used"] == "0.500"
    assert "0.978 became 0.975" in properties["tolerance_worst"]
    numbers = json.loads((lesson.parent / "found" / "07_small.tolerance.json").read_text())
    assert {"cell": 8, "kind": "accuracy", "stored": "0.978", "computed": "0.975"}.items() <= next(
        number for number in numbers if number["stored"] == "0.978"
    ).items()
    computed = nbformat.read(lesson.parent / "found" / "07_small.computed.ipynb", as_version=4)
    assert computed.cells[-1].outputs[0].text == "test accuracy 0.975\nmistakes 262\n"
    assert [cell.execution_count for cell in computed.cells[1:]] == list(range(1, WHOLE))


@pytest.mark.parametrize(
    ("changes", "reports"),
    [
        (
            {
                "shapes": {"text": ("28, 28", "28, 27")},
                "untrained": {"text": ("0.25", "0.26123")},
                "training": {"text": ("0.300", "0.400")},
                "trained": {"text": ("262", "263")},
            },
            [
                "*07_small.ipynb, Cell 0, shown as [[]1]: line 1*27 became 28 (integer*",
                "*07_small.ipynb, Cell 2*0.26123 became 0.25*",
                "*07_small.ipynb, Cell 7*0.400 became 0.300 (loss*",
                "*07_small.ipynb, Cell 8*line 2*263 became 262 (integer*",
            ],
        ),
        (
            {
                "shapes": {"source": "pass"},
                "display": {"source": "6 * 7"},
                "order": {"source": "print('before'); print('after'); display('shown')"},
                "cleared": {"source": "print('0'); print('left')"},
                "updated": {"source": "display('one')"},
                "untrained": {"source": "import sys; print(0.25, file=sys.stderr)"},
            },
            ["*Cell 0*the outputs differ in kind or order*", "*stored:*", "*computed: nothing*"],
        ),
    ],
)  # fmt: skip
def test_each_change_fails_alone_and_is_named(run, lesson, changes, reports):
    for name, new in changes.items():
        change(lesson, name, **new)
    result = run(lesson)
    if "display" in changes:  # this cell imports names for later cells
        result.assert_outcomes(passed=WHOLE - 6, failed=6)
    else:
        result.assert_outcomes(passed=WHOLE - len(changes), failed=len(changes))
    result.stdout.fnmatch_lines(reports)


def test_the_stored_state_needs_no_kernel(run, lesson):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[1].source += "  # edited"
    notebook.cells[2].execution_count = None
    notebook.cells[3].metadata["tags"] = ["regression:fuzzy"]
    notebook.cells[4].metadata["tags"] = ["regression:no-figure"]
    notebook.metadata.kernelspec.name = "there-is-no-such-kernel"
    nbformat.write(notebook, lesson)
    result = run(lesson, "-k", "stored")
    result.assert_outcomes(failed=1, deselected=len(CELLS))
    result.stdout.fnmatch_lines(
        [
            "*Cell 0, shown as [[]1]: was edited after its output was stored*",
            "*Cell 1, shown as [[] ]: was never executed*",
            "*Cell 2*'regression:fuzzy' is not known; the tags are regression:exact*",
            "*Cell 3*'regression:no-figure' makes the check weaker without a reason*",
        ]
    )


def test_tags_change_how_a_cell_is_compared(run, lesson):
    reason = {"regression": {"reason": "It is measured again in each run."}}
    wider = {"tags": ["regression:wider-accuracy=5"], **reason}
    change(lesson, "trained", text=("0.975", "0.955"), metadata=wider)
    change(
        lesson,
        "shapes",
        text=("6, 28", "7, 28"),
        metadata={"tags": ["regression:unseeded"], **reason},
    )
    change(lesson, "untrained", text=("0.25", "0.2500"), metadata={"tags": ["regression:exact"]})
    run(lesson).assert_outcomes(passed=WHOLE - 1, failed=1)  # the exact cell fails


def test_what_cannot_go_on_stops_its_notebook_and_no_other(run, pytester):
    after = "print('after')"
    for name, source in {
        "dies": "import os, signal\nos.environ.get('TF_STAY') or os.kill(os.getpid(), 9)",
        "hangs": "import os, time\nwhile not os.environ.get('TF_STAY'): time.sleep(1)",
        "catches": "import os, time\ntry:\n    os.environ.get('TF_STAY') or time.sleep(99)\n"
        "except KeyboardInterrupt: pass",
        "raises": "import os; 1 / len(os.environ.get('TF_STAY', ''))",
    }.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TF_STAY", "1")
            make(pytester.path / f"{name}.ipynb", source + ";", after)
    well = make(pytester.path / "well.ipynb", after)
    none = nbformat.read(well, as_version=4)
    none.metadata.kernelspec.name = "none-such"
    nbformat.write(nbformat.from_dict(none), pytester.path / "unstarted.ipynb")
    result = run("--nbval-cell-timeout=3", "--junitxml", "j.xml")
    # In each notebook, the stored state passes, cell 0 fails and cell 1 is skipped.
    result.assert_outcomes(passed=4 + 2 + 1, failed=4 + 1, skipped=4)
    result.stdout.fnmatch_lines(
        [
            "catches.ipynb, Cell 0, shown as [[]1]: still running after 3 s*",
            "dies.ipynb, Cell 0, shown as [[]1]: the kernel died*SIGKILL*memory*",
            "hangs.ipynb, Cell 0, shown as [[]1]: still running after 3 s*",
            "raises.ipynb, Cell 0, shown as [[]1]: raised ZeroDivisionError*",
            "unstarted.ipynb, Cell 0*: could not be run: no kernel 'none-such' is installed; "
            "installed: *. Choose an installed one with --nbval-kernel-name=*",
            "SKIPPED*not run, because Cell 0 of this notebook failed*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*NoSuchKernel*")
    result.stdout.no_fnmatch_line("*Captured log*")
    (died,) = (
        case
        for case in ElementTree.parse(pytester.path / "j.xml").iter("testcase")
        if "dies" in case.get("classname") and case.find("failure") is not None
    )
    assert "the kernel died" in died.find("failure").get("message")


def test_a_cell_may_have_a_time_limit_of_its_own(run, pytester):
    path = make(pytester.path / "slow.ipynb", "import time; time.sleep(2)", "time.sleep(2)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["tags"] = ["regression:seconds=30"]
    nbformat.write(notebook, path)
    result = run(path, "--nbval-cell-timeout=1")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["slow.ipynb, Cell 1*still running after 1 s*"])


def test_one_cell_can_be_run_by_itself(run, pytester):
    path = make(pytester.path / "chain.ipynb", "a = 2", "b = a * 3", "print(b)")
    run(f"{path.name}::Cell 2").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('lost')", "Cell 0 raised ValueError: lost"),
        ("import time; time.sleep(60)", "Cell 0 still running after 2 s"),
        ("import os; os._exit(3)", "Cell 0 ended the kernel. *exit code 3*"),
    ],
)
def test_one_cell_says_which_earlier_one_cannot_be_run(run, pytester, source, said):
    path = make(pytester.path / "chain.ipynb", "a = 2", "print(a)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = source
    nbformat.write(notebook, path)
    result = run(f"{path.name}::Cell 1", "--nbval-cell-timeout=2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"chain.ipynb, Cell 1*could not be run: {said}*"])


def test_an_earlier_cell_may_raise_if_its_tag_says_so(run, pytester):
    path = make(pytester.path / "chain.ipynb", "a = 2", "print(a)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += "\n1 / 0"
    notebook.cells[1].metadata.tags = ["raises-exception"]
    nbformat.write(notebook, path)
    run(f"{path.name}::Cell 1").assert_outcomes(passed=1)


def test_xdist_never_splits_a_notebook_and_shares_the_cores(run, pytester):
    cells = [
        "import os",
        "x = int(os.environ['OMP_NUM_THREADS'])",
        "x += 1",
        "assert x > 1",
        "x += 1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in "abc":
            make(pytester.path / f"{name}.ipynb", *cells)
        patch.delenv("OMP_NUM_THREADS")
        result = run("-n", "2", "-v")
    result.assert_outcomes(passed=3 * (len(cells) + 1))
    ran = set(re.findall(r"\[(gw\d)\] .*PASSED (\w)\W+ipynb", result.stdout.str()))
    assert sorted(name for _, name in ran) == ["a", "b", "c"], "one worker runs each notebook"


FIGURE = """\
import matplotlib.pyplot as plt
fig, ax = plt.subplots(figsize=(4, 3)); ax.plot([1, 3, 2]); plt.show()"""


def test_a_figure_that_differs_is_shown_side_by_side(run, pytester):
    path = make(pytester.path / "drawn.ipynb", FIGURE, FIGURE)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = FIGURE.replace("[1, 3, 2]", "[3, 1, 2]")
    stamp(notebook)
    nbformat.write(notebook, path)
    result = run(path, "--nbval-tolerance-dir", "found")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["drawn.ipynb, Cell 0*the figure differs*", "*drawn.cell-0.png*"])
    assert (pytester.path / "found" / "drawn.cell-0.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_cache_a_temporary_folder_is_named(run, pytester, monkeypatch):
    path = make(pytester.path / "drawn.ipynb", "x = 1", FIGURE)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source = FIGURE.replace("[1, 3, 2]", "[3, 1, 2]")
    nbformat.write(notebook, path)
    (pytester.path / "own").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(pytester.path / "own"))
    report.temporary.cache_clear()
    there = set(pytester.path.iterdir())
    said = run(path, "-p", "no:cacheprovider", "-k", "Cell").stdout
    said.fnmatch_lines(["*difference: */own/nbval-tolerance-*/drawn.cell-1.png"])
    said.fnmatch_lines(["the computed notebook and its numbers: */own/nbval-tolerance-*"])
    assert set(pytester.path.iterdir()) == there, "nothing is written beside the notebooks"
    report.temporary.cache_clear()


def test_unchanged_notebooks_are_left_out(run, lesson, monkeypatch):
    data = lesson.parent / "data.txt"
    data.write_text("1")
    (lesson.parent / "pytest.ini").write_text("[pytest]\nnbval_tolerance_data = data.txt\n")
    assert run(lesson, "--nbval-tolerance-changed").parseoutcomes() == {"passed": WHOLE}
    again = run(lesson, "--nbval-tolerance-changed")
    assert again.parseoutcomes() == {"deselected": WHOLE}
    assert again.ret == 0
    data.write_text("2")
    assert run(lesson, "--nbval-tolerance-changed").parseoutcomes() == {"passed": WHOLE}
    change(lesson, "trained", text=("262", "263"))
    for _ in range(2):  # a notebook that failed runs again
        assert run(lesson, "--nbval-tolerance-changed").parseoutcomes() == {
            "passed": WHOLE - 1,
            "failed": 1,
        }
    change(lesson, "trained", text=("263", "262"))
    # A notebook is not skipped after a run that compared no outputs.
    for arguments in (["--nbval-lax"], ["--setup-plan"], ["--collect-only"]):
        run(lesson, *arguments)
        found = run(lesson, "--nbval-tolerance-changed").parseoutcomes()
        assert found == {"passed": WHOLE}, arguments
        (lesson.parent / "helper.py").write_text(f"value = {arguments!r}")  # can be imported
    package = lesson.parent / "package" / "deep"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for content in "ab":
        (package / "module.py").write_text(f"value = {content!r}")
        assert run(lesson, "--nbval-tolerance-changed").parseoutcomes() == {"passed": WHOLE}


@pytest.mark.parametrize("name", ["CI", "BUILD_NUMBER"])
def test_in_ci_nothing_is_left_out(run, lesson, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    in_ci = run(lesson, "--nbval-tolerance-changed")
    assert in_ci.ret != 0
    in_ci.stderr.fnmatch_lines(["*in CI every notebook is run*"])


def test_two_notebooks_of_one_name_have_a_report_each(run, pytester):
    for name, stored in [("one", "1"), ("two", "2")]:
        (pytester.path / name).mkdir()
        path = make(pytester.path / name / "index.ipynb", f"print({stored})")
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[1].outputs[0].text = "3\n"
        nbformat.write(notebook, path)
    run("one", "two", "--nbval-tolerance-dir=found")
    for name, stored in [("one", "1"), ("two", "2")]:
        report = nbformat.read(pytester.path / "found" / name / "index.computed.ipynb", 4)
        assert report.cells[1].outputs[0].text == f"{stored}\n"


def test_the_plugin_needs_no_tensorflow():
    code = "import sys, nbval_tolerance.session.plugin; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"tensorflow", "keras"} & set(found.stdout.split())


def edit(path: Path, number: int, **metadata) -> None:
    """Change a cell's metadata, and store each cell's hash."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[number].metadata |= metadata
    stamp(notebook)
    nbformat.write(notebook, path)


def test_a_probe_is_compared_by_its_phase_and_named(run, pytester):
    path = make(pytester.path / "probed.ipynb", "scores = [0.1234567, 0.5]\nprint('made')")
    about = {"probes": {"untrained scores": "scores"}}
    edit(path, 1, regression=about | {"values": {"untrained scores": "[0.1234568, 0.5]"}})
    run(path).assert_outcomes(passed=2)
    edit(path, 1, regression=about | {"values": {"untrained scores": "[0.1244567, 0.5]"}})
    result = run(path)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "probed.ipynb, Cell 0*: probe 'untrained scores', line 1, before any training: "
            "0.1244567 became 0.1234567*",
            "*stored: *[[]0.1244567, 0.5[]]",
            "*computed: *[[]0.1234567, 0.5[]]",
        ]
    )


def test_a_probe_that_cannot_be_evaluated_fails_its_cell_alone(run, pytester):
    path = make(pytester.path / "probed.ipynb", "x = 1", "print('after')")
    edit(path, 1, regression={"probes": {"gone": "missing"}, "values": {"gone": "1"}})
    result = run(path)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*Cell 0*: probe 'gone' raised NameError*"])


def test_a_probe_that_hangs_ends_by_the_cells_time_limit(run, pytester):
    path = make(pytester.path / "probed.ipynb", "x = 1", "print('after')")
    probes = {"quick": "x", "slow": "__import__('time').sleep(60)"}
    values = {"quick": "1", "slow": "None"}
    edit(path, 1, regression={"probes": probes, "values": values}, tags=["regression:seconds=2"])
    result = run(path)
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*Cell 0*: probe 'slow' is still running after 2 s, the cell's*"])


def test_a_probe_has_no_effect_on_the_cells_after_it(run, pytester):
    path = make(pytester.path / "probed.ipynb", "x = 1", "_", "x + 1", "_", "print(In[-1], Out)")
    edit(path, 1, regression={"probes": {"x": "x"}, "values": {"x": "1"}})
    edit(path, 3, regression={"probes": {"x": "x + 5"}, "values": {"x": "6"}})
    run(path).assert_outcomes(passed=6)


@pytest.mark.parametrize(("stored", "passes"), [("0.59", True), ("0.11", True), ("0.61", False)])
def test_a_range_takes_the_place_of_the_stored_number(run, pytester, stored, passes):
    path = make(pytester.path / "ranged.ipynb", "print('accuracy', 0.31)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = f"print('accuracy', {stored})"
    notebook.cells[1].metadata["regression"] = {
        "between": {"accuracy": [0.1, 0.6]},
        "reason": "Training diverges, and how far is luck.",
    }
    stamp(notebook)
    nbformat.write(notebook, path)
    result = run(path)
    result.assert_outcomes(passed=1 + passes, failed=1 - passes)
    if not passes:
        result.stdout.fnmatch_lines([f"*{stored}*is not between 0.1 and 0.6*"])


def test_alternative_texts_in_the_metadata_are_those_of_the_figures(run, pytester):
    path = make(pytester.path / "drawn.ipynb", FIGURE)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["alt"] = "A line."
    notebook.cells[1].outputs[0].metadata["image/png"] = {"alt": "A line."}
    nbformat.write(notebook, path)
    run(path).assert_outcomes(passed=2)


def test_what_a_semicolon_hides_stays_hidden(run, pytester):
    make(pytester.path / "hist.ipynb", "import matplotlib.pyplot as plt\nplt.hist([1, 2, 2]);")
    run("hist.ipynb").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("name", "value"), [("MPLBACKEND", "agg"), ("COLUMNS", "20"), ("PYTHONWARNINGS", "error")]
)
def test_what_the_shell_says_changes_no_notebook(run, pytester, monkeypatch, name, value):
    source = (
        "import numpy as np, warnings\nwarnings.warn('old', DeprecationWarning)\nnp.arange(40.0)"
    )
    make(pytester.path / "shown.ipynb", FIGURE, source)
    monkeypatch.setenv(name, value)
    run("shown.ipynb").assert_outcomes(passed=3)


def test_a_home_that_cannot_be_written_prints_no_warning(run, pytester, monkeypatch):
    make(pytester.path / "shown.ipynb", FIGURE)
    (pytester.path / "home").touch()  # a file, so even root cannot write into it
    monkeypatch.setenv("HOME", str(pytester.path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    run("shown.ipynb").assert_outcomes(passed=2)


def test_a_variable_that_kernels_do_not_inherit_is_named(run, pytester, monkeypatch):
    path = make(pytester.path / "reads.ipynb", "import os")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "import os\nos.environ['MY_FOLDER']"
    nbformat.write(notebook, path)
    monkeypatch.setenv("MY_FOLDER", "data")
    run(path).stdout.fnmatch_lines(["*raised KeyError*", "MY_FOLDER is a variable of your shell*"])


def test_a_cell_that_is_meant_to_raise_may_say_so_in_a_comment(run, pytester):
    path = pytester.path / "raises.ipynb"
    make(path, "# NBVAL_RAISES_EXCEPTION\n1 / 0", "print('after')")
    run(path).assert_outcomes(passed=3)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = "# NBVAL_RAISES_EXCEPTION\n1 / 1"
    nbformat.write(notebook, path)
    run(path).assert_outcomes(passed=1, failed=2)  # the stored state also fails


@pytest.mark.parametrize("tag", ["nbval-skip", "skip-execution"])
def test_a_cell_that_is_not_run_is_not_run(run, pytester, tag):
    path = make(pytester.path / "skips.ipynb", "x = 1", "print(x)")
    notebook = nbformat.read(path, as_version=4)
    skipped = nbformat.v4.new_code_cell("x = 2", metadata={"tags": [tag]})
    notebook.cells.insert(2, skipped)
    nbformat.write(notebook, path)
    run(path).assert_outcomes(passed=3, skipped=1)


def test_coverage_is_measured_in_the_kernel(run, pytester):
    pytest.importorskip("pytest_cov")
    (pytester.path / "measured.py").write_text("def f():\n    return 3\n")
    make(pytester.path / "uses.ipynb", "import measured", "print(measured.f())")
    result = run("uses.ipynb", "--cov=measured", "--cov-report=term")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["measured.py * 100%"])


@pytest.mark.parametrize("name", ["broken", "unreadable", "shape"])
def test_a_file_that_is_no_notebook_is_a_sentence(run, pytester, lesson, monkeypatch, name):
    broken = pytester.path / "broken.ipynb"
    broken.write_text("" if name == "broken" else lesson.read_text())
    if name == "shape":
        broken.write_text(lesson.read_text().replace('"metadata": {', '"metadata": [], "_": {', 1))
    if name == "unreadable":
        read_bytes = Path.read_bytes

        def denied(path: Path) -> bytes:
            if path == broken:
                raise PermissionError(13, "Permission denied")
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", denied)
    result = run("broken.ipynb", lesson.name)
    result.assert_outcomes(errors=1)
    said = {
        "broken": "it is not a notebook: the file is empty",
        "unreadable": "it cannot be read (Permission denied)",
        "shape": "it is not a valid notebook: the 'metadata' of the cell before Cell 0",
    }
    result.stdout.fnmatch_lines([f"broken.ipynb: {said[name]}*"])
    result.stdout.no_fnmatch_line("*Error*:*")
    result.stdout.no_fnmatch_line("*site-packages*")


def test_a_wrong_table_below_is_a_sentence_at_each_of_its_notebooks(run, pytester, lesson):
    below = pytester.mkdir("below")
    below.joinpath("pyproject.toml").write_text("[tool.nbval-tolerance]\ntraning = ['fit']")
    lesson.rename(below / lesson.name)
    result = run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*below*pyproject.toml, *, traning: unknown; the keys are *"])
    result.stdout.no_fnmatch_line("*UsageError*")


def test_the_nearest_table_counts(run, pytester):
    pytester.makepyprojecttoml("[tool.nbval-tolerance]\nstrict = true")
    for name in ("above", "below"):
        pytester.mkdir(name)
        make(
            pytester.path / name / f"{name}.ipynb",
            "clock = __import__('time')\nprint('took 3.25 s')",
        )
    table = pytester.path / "below" / "pyproject.toml"
    table.write_text("[tool.other]\nx = 1")  # not our table, so the parent folder's applies
    result = run("-k", "stored")
    result.assert_outcomes(failed=2, deselected=2)
    table.write_text("[tool.nbval-tolerance]\nstrict = false")
    find.cache_clear(), read_toml.cache_clear()
    result = run("-k", "stored")
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    result.stdout.fnmatch_lines(["above.ipynb: Cell 0*differs from run to run*"])


@pytest.mark.parametrize("options", [[], ["-o", "norecursedirs=none"]])
def test_copies_that_jupyter_keeps_are_left_out_unless_they_are_named(run, pytester, options):
    path = make(pytester.path / "small.ipynb", "1")
    checkpoint = pytester.mkdir(".ipynb_checkpoints") / "small-checkpoint.ipynb"
    for copied in (pytester.path / ".~small.ipynb", checkpoint):
        copied.write_text(path.read_text())
    run(*options).assert_outcomes(passed=2)
    run(*options, pytester.path).assert_outcomes(passed=2)
    run(*options, ".~small.ipynb").assert_outcomes(passed=2)
    run(*options, ".~small.ipynb::Cell 0").assert_outcomes(passed=1)


@pytest.mark.parametrize(("lines", "shown", "rest"), [(10, 10, ""), (35, 6, "and 29 more differ")])
def test_of_many_differences_the_first_are_shown(run, pytester, lines, shown, rest):
    source = "for i in range({}): print('part', i, 'is {}')"
    path = make(pytester.path / "many.ipynb", source.format(lines, "old"))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = source.format(lines, "new")
    nbformat.write(notebook, path)
    said = run(path, "-k", "Cell").stdout.str()
    assert said.count("    stored:   part") == shown
    assert rest in said
    assert ("more differences" in said) is bool(rest)


RANDOM = "import random, time\nx = random.random()"
CLOCK = "began = time.perf_counter()"
DRAWN = (
    "Cell 0 calls random.random, and nothing before it sets a seed. If that is the cause, set one, "
)
TEXT = "set one, random.seed(0), or tag the cell 'nbval-ignore-output'"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([RANDOM, "print('score', x)"], f"{DRAWN}random.seed(0), or tag the cell 'regression:uns"),
        (
            [RANDOM, f"{CLOCK}\nprint('score', x)"],
            "Cell 1 calls time.perf_counter, which reads the clock. Cell 0 calls random.random, ",
        ),
        # The advice names the clock call in the cell, but not random draws that cannot affect the
        # cell.
        (
            [RANDOM, f"{CLOCK}\nprint('score', began)"],
            "Cell 1 calls time.perf_counter, which reads the clock. "
            "If that is the cause, tag the cell",
        ),
        (
            ["import time", f"{CLOCK}\nprint('score', began)"],
            "Cell 1 calls time.perf_counter, which reads the clock. "
            "If that is the cause, tag the cell",
        ),
        ([RANDOM, "print('label', 'a' if x < 2 else 'b')"], f"{DRAWN}random.seed(0), or tag the c"),
        (["import random", "print('label', random.choice('ab')[:0] + 'a')"], f"Cell 1*{TEXT}"),
        (
            ["import secrets", "secrets.token_hex(4)\nprint('label a')"],
            "Cell 1*which cannot be seeded",
        ),
        ([RANDOM, "print('label', 'a')"], ""),  # the cell does not use x
        (["x = 0.123", "print('score', x)"], ""),
    ],
)
def test_a_missing_seed_is_named_where_it_may_be_why(run, pytester, sources, said):
    path = make(pytester.path / "drawn.ipynb", *sources)
    notebook = nbformat.read(path, as_version=4)
    output = notebook.cells[2].outputs[0]
    output.text = output.text.replace("label a", "label c")
    output.text = re.sub(r"score .*", "score 12.75", output.text)
    nbformat.write(notebook, path)
    result = run(path)
    result.assert_outcomes(passed=2, failed=1)
    if said:
        result.stdout.fnmatch_lines([f"{said}*"])
    else:
        result.stdout.no_fnmatch_line("*If that is the cause*")


@pytest.mark.parametrize(
    ("shown", "tags"),
    [
        ("", "'regression:no-figure' with a reason"),
        (
            "print('score', {} / 8)",
            "'regression:unseeded' and 'regression:no-figure' with a reason",
        ),
        ("print('score' if {} > 0 else 'other')", "'nbval-ignore-output'"),
    ],
)
def test_a_missing_seed_is_named_where_a_figure_differs(run, pytester, shown, tags):
    source = (
        f"import random, matplotlib.pyplot as plt\n{shown}\nplt.plot([random.random(), {{}}, 1]);"
    )
    arguments = [5] * source.count("{}")
    path = make(pytester.path / "drawn.ipynb", source.format(*arguments))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = source.format(*(-each for each in arguments))
    nbformat.write(notebook, path)
    said = (
        "Cell 0 calls random.random, and nothing before it sets a seed. "
        "If that is the cause, set one, "
    )
    run(path, "-k", "Cell").stdout.fnmatch_lines([f"{said}random.seed(0), or tag the cell {tags}"])


def test_data_that_are_not_there_matter_to_who_asks_for_changes(run, pytester, lesson):
    (pytester.path / "pytest.ini").write_text("[pytest]\nnbval_tolerance_data = none\n")
    result = run(lesson)
    result.assert_outcomes(passed=WHOLE)
    assert result.ret == 0
    asked = run(lesson, "--nbval-tolerance-changed")
    assert asked.ret == pytest.ExitCode.USAGE_ERROR
    asked.stderr.fnmatch_lines(["ERROR: --nbval-tolerance-data names *none, which does not exist"])


def test_what_a_project_says_about_its_notebooks_is_a_change(run, pytester, lesson):
    run(lesson, "--nbval-tolerance-changed").assert_outcomes(passed=WHOLE)
    run(lesson, "--nbval-tolerance-changed").assert_outcomes(deselected=WHOLE)
    pytester.makepyprojecttoml("[tool.nbval-tolerance]\ntraining = ['fit']\nskip = ['image/png']")
    find.cache_clear(), read_toml.cache_clear()
    run(lesson, "--nbval-tolerance-changed").assert_outcomes(passed=WHOLE)

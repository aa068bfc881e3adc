"""Test `nbval-tolerance execute` with small notebooks in a real kernel."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest

from nbval_tolerance import execute as module
from nbval_tolerance.cli import main
from nbval_tolerance.config import find
from nbval_tolerance.config import read as read_toml
from nbval_tolerance.run import chance_state, kernel_environment
from nbval_tolerance.stored import problems

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from nbval_tolerance.cli import main; sys.exit(main())",
]
SOURCES = [
    "print('train', (6, 28, 28))",
    "print('before'); display('shown'); print('after')",
    "for i in range(9): print(f'{i}/8', end='\\r')\nprint()",
    "class Model:\n    def fit(self): print('test accuracy: 0.975')\nModel().fit()",
]

# Code that edits the first cell of the notebook `name`, as if it were open in another window.
EDIT = """notebook = nbformat.read(name, as_version=4)
notebook.cells[0].source = {!r}
nbformat.write(notebook, name)"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a lesson that was executed and stored."""
    path = tmp_path_factory.mktemp("lesson") / "07_small.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in SOURCES]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert main(["execute", str(path)]) == 0
    return path


@pytest.fixture
def lesson(executed: Path, tmp_path: Path, monkeypatch) -> Path:
    """Return the path of a copy of the executed lesson, in a project folder for one test."""
    monkeypatch.chdir(tmp_path)
    find.cache_clear()
    Path("pyproject.toml").write_text("[tool.nbval-tolerance]\nstrict = true\ntraining = ['fit']\n")
    return shutil.copy(executed, tmp_path / executed.name)


def read(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def edit(path: Path, number: int, old: str, new: str, output: bool = False) -> None:
    """Replace some text in a cell's source or in its stored output."""
    notebook = nbformat.read(path, as_version=4)
    where = notebook.cells[number].outputs[0] if output else notebook.cells[number]
    key = "text" if output else "source"
    assert old in where[key]
    where[key] = where[key].replace(old, new)
    nbformat.write(notebook, path)


def test_what_is_stored_is_well_and_is_what_a_reader_sees(lesson):
    assert problems(nbformat.read(lesson, as_version=4)) == []
    cells = read(lesson)
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4]
    order = [output.get("text") or output.data["text/plain"] for output in cells[1].outputs]
    assert order == ["before\n", "'shown'", "after\n"]
    assert cells[2].outputs[0].text == "8/8\n", "only the last frame of the progress bar is stored"


def test_chunks_of_one_stream_are_joined_where_nothing_stands_between():
    chunks = [nbformat.v4.new_output("stream", text=text) for text in ("a", "b\n")]
    cell = nbformat.v4.new_code_cell(outputs=[*chunks, nbformat.v4.new_output("display_data")])
    module.tidy(cell)
    assert [output.get("text") for output in cell.outputs] == ["ab\n", None]


def test_a_second_run_changes_nothing(lesson, capsys):
    before = lesson.read_bytes()
    assert main(["execute"]) == 0
    assert lesson.read_bytes() == before
    assert "unchanged" in capsys.readouterr().out


def test_without_hashes_no_cell_counts_as_edited(lesson, capsys):
    edit(lesson, 3, "0.975", "0.974", output=True)
    notebook = nbformat.read(lesson, as_version=4)
    for cell in notebook.cells:
        del cell.metadata["regression"]
    nbformat.write(notebook, lesson)
    assert main(["execute", "07"]) == 0
    assert "0.974" in read(lesson)[3].outputs[0].text
    assert "unchanged" in capsys.readouterr().out


def test_outputs_within_their_tolerance_are_kept(lesson):
    edit(lesson, 3, "0.975", "0.974", output=True)
    before = lesson.read_bytes()
    assert main(["execute"]) == 0
    assert lesson.read_bytes() == before


def test_a_comment_needs_no_acceptance_but_a_new_hash(lesson):
    edit(lesson, 3, "Model()", "# Train it.\nModel()")
    assert problems(nbformat.read(lesson, as_version=4))
    assert main(["execute"]) == 0
    assert problems(nbformat.read(lesson, as_version=4)) == []


def test_changes_are_shown_and_stored_only_when_accepted(lesson, capsys):
    edit(lesson, 0, "6, 28", "7, 28")
    before = lesson.read_bytes()
    assert main(["execute", "07"]) == 1
    shown = capsys.readouterr().out
    assert "changes 1 cell:" in shown
    assert "Cell 0, shown as [1]" in shown
    assert "computed: train (7, 28, 28)" in shown
    assert "--accept" in shown
    assert lesson.read_bytes() == before
    assert main(["execute", "07", "--accept"]) == 0
    assert read(lesson)[0].outputs[0].text == "train (7, 28, 28)\n"
    assert problems(nbformat.read(lesson, as_version=4)) == []


@pytest.mark.parametrize(
    ("number", "old", "new"),
    [
        (3, "0.975", "0.974"),  # Within its tolerance.
        (0, "'train', ", "'train  ', "),  # Only white space.
        (1, "display('shown')", "display('shown', metadata={'text/plain': {'colour': 1}})"),
    ],
)
def test_what_an_edit_changes_is_never_kept_from_before(lesson, capsys, number, old, new):
    edit(lesson, number, old, new)
    before = lesson.read_bytes()
    assert main(["execute", "07"]) == 1
    assert f"Cell {number}, shown as" in capsys.readouterr().out
    assert lesson.read_bytes() == before
    assert main(["execute", "07", "--accept"]) == 0
    outputs = str(read(lesson)[number].outputs)
    assert main(["execute", "07"]) == 0
    assert (
        str(read(lesson)[number].outputs)
        == outputs
        != str(nbformat.reads(before, 4).cells[number].outputs)
    )


def test_kept_outputs_show_the_numbers_of_their_cells(lesson):
    edit(lesson, 0, "print", "6 * 7\nprint")
    edit(lesson, 1, "display('shown'); print('after')", "print('after')\n'result'")
    assert main(["execute", "--accept"]) == 0
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("x = 1"))
    nbformat.write(notebook, lesson)
    assert main(["execute"]) == 0
    cell = read(lesson)[2]
    assert [o.execution_count for o in cell.outputs if "execution_count" in o] == [3]


def test_a_notebook_elsewhere_keeps_what_it_says_about_its_kernel(lesson, tmp_path, capsys):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.metadata.kernelspec.display_name = "Python 3.11 (conda)"
    notebook.metadata.language_info = {"name": "python", "version": "3.11.2"}
    elsewhere = tmp_path / "other" / "first.ipynb"
    elsewhere.parent.mkdir()
    nbformat.write(notebook, elsewhere)
    edit(elsewhere, 0, "6, 28", "7, 28")
    assert main(["execute", "other", "--accept"]) == 0
    assert "other/first.ipynb ..." in capsys.readouterr().out
    after = nbformat.read(elsewhere, as_version=4)
    assert "7" in after.cells[0].outputs[0].text
    assert after.metadata == notebook.metadata


def test_a_kernel_that_is_not_there_is_named_and_another_can_be_chosen(lesson, capsys):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.metadata.kernelspec.name = "none-such"
    nbformat.write(notebook, lesson)
    assert main(["execute", "07"]) == 1
    said = capsys.readouterr().out
    assert "no kernel 'none-such' is installed; installed: " in said
    assert "Choose an installed one: --kernel " in said
    assert main(["execute", "07", "--kernel", "python3"]) == 0


def probe(path: Path, number: int, **probes: str) -> None:
    """Add probes to a cell, as JupyterLab's metadata editor does."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[number].metadata["regression"]["probes"] = probes
    nbformat.write(notebook, path)


def test_probes_are_stored_and_displayed_nowhere(lesson, capsys):
    outputs = str(read(lesson)[0].outputs)
    probe(lesson, 0, size="6 * 28 * 28")
    assert main(["execute", "07"]) == 1
    assert "probe 'size' is new" in capsys.readouterr().out
    assert main(["execute", "07", "--accept"]) == 0
    (cell, *_) = read(lesson)
    assert cell.metadata.regression["values"] == {"size": "4704"}
    assert str(cell.outputs) == outputs
    assert [cell.execution_count for cell in read(lesson)] == [1, 2, 3, 4]
    probe(lesson, 0)
    assert main(["execute", "07", "--accept"]) == 0
    assert "probe 'size' is gone" in capsys.readouterr().out
    assert "values" not in read(lesson)[0].metadata.regression


def test_the_command_line_adds_a_probe(lesson, capsys):
    arguments = ["probe", str(lesson), "1", "size", "6 * 28"]
    assert main(arguments) == 0
    assert "nbval-tolerance execute 07_small.ipynb" in capsys.readouterr().out
    assert read(lesson)[0].metadata.regression.probes == {"size": "6 * 28"}
    for wrong, said in [("9", "no cell of"), ("1", "is not an expression")]:
        expression = "x = 1" if wrong == "1" else "x"
        assert main(["probe", str(lesson), wrong, "other", expression]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("__import__('random').random()", "returns another value each time"),
        ("(__import__('random').random(), 1)[1]", "probe 'wrong' draws random numbers or creates "),
        ("(new := 1)", "draws random numbers or creates a v"),
        ("print('loud')", "probe 'wrong' prints: 'loud"),
        ("missing", "probe 'wrong' raised NameError: name 'missing' is not defined"),
    ],
)
def test_a_probe_that_does_more_than_look_is_refused(lesson, capsys, expression, said):
    before = lesson.read_bytes()
    probe(lesson, 0, wrong=expression)
    assert main(["execute", "07", "--accept"]) == 1
    assert said in capsys.readouterr().out
    probe(lesson, 0)
    assert nbformat.read(lesson, 4).cells[0].outputs == nbformat.reads(before, 4).cells[0].outputs


@pytest.mark.parametrize(
    ("made", "probed"),
    [
        ("import numpy as np\nrng = np.random.default_rng(42)", "rng.normal(size=3).shape"),
        ("import numpy as np\nrng = np.random.RandomState(42)", "rng.normal(size=3).shape"),
        ("import random\nrng = random.Random(42)", "bool(rng.random())"),
    ],
)
def test_a_probe_must_not_draw_from_a_generator_of_the_notebook(lesson, capsys, made, probed):
    edit(lesson, 0, SOURCES[0], f"{made}\nprint('ready')")
    probe(lesson, 0, wrong=probed, other="1")
    assert main(["execute", "07", "--accept"]) == 1
    assert "one of the probes 'other', 'wrong' draws random numbers" in capsys.readouterr().out


def make_mt19937():
    return np.random.Generator(np.random.MT19937(1))


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (lambda: np.random.default_rng(1), lambda rng: rng.normal()),
        (make_mt19937, lambda rng: rng.normal()),
        (lambda: np.random.RandomState(1), lambda rng: rng.rand()),
        (lambda: np.random.PCG64(1), lambda rng: rng.random_raw()),
        (lambda: random.Random(1), lambda rng: rng.random()),
        (lambda: random, lambda rng: rng.random()),
        (lambda: np.random, lambda rng: rng.rand()),
    ],
)
def test_every_generator_counts(generator, draw):
    rng = generator()
    variables = {"rng": rng, "x": 1}
    before = chance_state(variables)
    assert chance_state(variables) == before
    draw(rng)
    assert chance_state(variables) != before
    assert chance_state({**variables, "y": 1}) != chance_state(variables)


def test_variables_that_have_no_state_or_answer_nothing_do_no_harm():
    class Mute:
        def __getattribute__(self, name):
            raise RuntimeError(name)

    chance_state({"system": random.SystemRandom(), "mute": Mute(), "kind": type, "nothing": None})


def test_hashes_of_texts_are_the_same_unless_somebody_says_otherwise():
    def seed(ours: dict[str, str], *more: str) -> str:
        return kernel_environment(ours, more)["PYTHONHASHSEED"]

    assert seed({}) == "0"
    assert seed({"PYTHONHASHSEED": "random"}) == "random"
    assert seed({"PYTHONHASHSEED": "5"}, "PYTHONHASHSEED=7") == "7"


def test_a_set_of_texts_is_printed_in_one_order(lesson, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    edit(lesson, 0, SOURCES[0], "print({f'word {n}' for n in range(50)})")
    assert main(["execute", "07", "--accept"]) == 0
    before = lesson.read_bytes()
    assert main(["execute", "07"]) == 0
    assert lesson.read_bytes() == before


FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);"


def test_an_alternative_text_goes_from_the_metadata_to_the_figure(lesson):
    edit(lesson, 0, SOURCES[0], FIGURE)
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[0].metadata["alt"] = "A line that rises and falls."
    nbformat.write(notebook, lesson)
    assert main(["execute", "07", "--accept"]) == 0
    (output,) = read(lesson)[0].outputs  # the semicolon hides any other output
    assert output.metadata["image/png"]["alt"] == "A line that rises and falls."


def test_new_words_for_a_figure_that_is_not_compared_are_stored(lesson):
    edit(lesson, 0, SOURCES[0], FIGURE)
    for words in ("A line with a peak.", "A line that rises and falls."):
        notebook = nbformat.read(lesson, as_version=4)
        cell = notebook.cells[0]
        cell.metadata |= {"alt": words, "tags": ["regression:no-figure"]}
        cell.metadata["regression"] = {"reason": "The weather changes it."} | cell.metadata.get(
            "regression", {}
        )
        nbformat.write(notebook, lesson)
        assert main(["execute", "07", "--accept"]) == 0
    (output,) = read(lesson)[0].outputs
    assert output.metadata["image/png"]["alt"] == words


# Displays two widgets: one also has text, as in ipywidgets, and the other only has a name.
WIDGETS = """view = {"application/vnd.jupyter.widget-view+json": {"model_id": "b4e5"}}
about = {"application/vnd.jupyter.widget-view+json": {"colab": 1}, "text/plain": {"lang": "en"}}
display({"text/plain": "answer 3", **view}, metadata=about, raw=True)
display({"text/plain": "<Pad at 0x7f0010>", **view}, raw=True)"""


def test_of_a_live_widget_its_other_forms_are_stored(lesson):
    edit(lesson, 0, SOURCES[0], WIDGETS)
    assert main(["execute", str(lesson), "--accept"]) == 0
    still, only = read(lesson)[0].outputs
    assert still.data == {"text/plain": "answer 3"}
    assert still.metadata == {"text/plain": {"lang": "en"}}
    assert "application/vnd.jupyter.widget-view+json" in only.data
    assert main(["execute", str(lesson)]) == 0  # the comparison finds no difference


def test_what_is_out_of_its_range_is_not_stored(lesson, capsys):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[3].metadata["regression"] |= {
        "between": {"accuracy": [0.1, 0.6]},
        "reason": "Training may diverge.",
    }
    nbformat.write(notebook, lesson)
    assert main(["execute", "07", "--accept"]) == 1
    assert "is not between 0.1 and 0.6" in capsys.readouterr().out


def test_kernels_inherit_what_is_named_and_nothing_else(lesson, monkeypatch, capsys):
    for name in ("MPLBACKEND", "COLUMNS", "MY_DATA", "OTHER"):
        monkeypatch.setenv(name, "agg" if name == "MPLBACKEND" else "7")
    edit(
        lesson, 0, SOURCES[0], "import os\nprint({n: v for n, v in os.environ.items() if v == '7'})"
    )
    Path("pyproject.toml").write_text('[tool.nbval-tolerance]\nenvironment = ["MY_*", "EXTRA=7"]\n')
    find.cache_clear(), read_toml.cache_clear()
    assert main(["execute", "07", "--accept"]) == 0
    assert read(lesson)[0].outputs[0].text == "{'MY_DATA': '7', 'EXTRA': '7'}\n"


def test_a_cells_own_time_limit_holds(lesson, capsys):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[0].source = "import time; time.sleep(30)"
    notebook.cells[0].metadata.tags = ["regression:seconds=1"]
    nbformat.write(notebook, lesson)
    assert main(["execute", "07"]) == 1
    assert "still running after 1 s" in capsys.readouterr().out


def test_ctrl_c_writes_nothing_and_says_so(lesson):
    edit(lesson, 0, SOURCES[0], "import time; print('slow'); time.sleep(60)")
    before = lesson.read_bytes()
    command = [*COMMAND, "execute", lesson, "--accept"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Under `nohup` or `&`, this process ignores SIGINT, and child processes inherit that
        # setting.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not [child for child in psutil.Process(process.pid).children() if child.status()]:
        time.sleep(0.1)
    time.sleep(3)  # by now, the kernel is starting or the cell is sleeping
    os.killpg(process.pid, signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    assert "interrupted, not written" in output
    assert lesson.read_bytes() == before


def test_the_end_of_input_is_a_no(lesson, monkeypatch):
    def end(question: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", end)
    edit(lesson, 0, "6, 28", "7, 28")
    assert main(["execute", "07"]) == 1


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1), ("n", 1)])
def test_at_a_terminal_it_asks(lesson, monkeypatch, answer, code):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    edit(lesson, 0, "6, 28", "7, 28")
    assert main(["execute", "07"]) == code
    assert ("7" in read(lesson)[0].outputs[0].text) is (code == 0)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; print(1, file=sys.stderr)", "stderr"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_lesson_that_fails_is_left_as_it_was(lesson, capsys, source, reason):
    edit(lesson, 0, SOURCES[0], source)
    before = lesson.read_bytes()
    assert main(["execute", "07", "--accept"]) == 1
    assert reason in capsys.readouterr().out
    assert lesson.read_bytes() == before


def test_what_is_saved_while_it_runs_is_not_lost(lesson, capsys):
    saved = "print('edited in another window')"
    edit(lesson, 0, SOURCES[0], f"import nbformat\nname = '{lesson.name}'\n{EDIT.format(saved)}")
    assert main(["execute", "07", "--accept"]) == 1
    assert "changed while the notebook ran" in capsys.readouterr().out
    assert read(lesson)[0].source == saved


def test_a_later_cell_must_not_change_what_an_earlier_one_has_put_out(lesson, capsys):
    edit(lesson, 0, SOURCES[0], "shown = display('loading', display_id=True)")
    edit(lesson, 1, SOURCES[1], "shown.update('done')")
    before = lesson.read_bytes()
    assert main(["execute", "07", "--accept"]) == 1
    said = capsys.readouterr().out
    assert "A later cell changed the output of cell [1]" in said
    assert "display_id=True" in said
    assert lesson.read_bytes() == before


def test_what_cannot_be_read_or_written_is_said_and_the_rest_goes_on(lesson, monkeypatch, capsys):
    shutil.copy(lesson, "08_other.ipynb")
    denied = PermissionError(13, "Permission denied", str(lesson))

    def read_bytes(path: Path) -> bytes:
        if path.name == "07_small.ipynb":
            raise denied
        return path.open("rb").read()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        assert main(["execute", "07", "08"]) == 1
    said = capsys.readouterr().out
    assert "07_small.ipynb ... FAILED: it cannot be read (Permission denied)\n" in said
    assert "08_other.ipynb ... " in said
    edit(lesson, 0, "6, 28", "7, 28")

    def replace(path: Path, target: Path) -> None:
        raise denied

    monkeypatch.setattr(Path, "replace", replace)
    assert main(["execute", "07", "--accept"]) == 1
    assert "the file cannot be written (Permission denied). NOT WRITTEN" in capsys.readouterr().out
    assert "6, 28" in read(lesson)[0].outputs[0].text


def test_a_wrong_table_is_one_sentence(lesson, capsys):
    Path("pyproject.toml").write_text("[tool.nbval-tolerance]\ntraning = ['fit']\n")
    find.cache_clear(), read_toml.cache_clear()
    assert main(["execute", "07"]) == 2
    said = capsys.readouterr()
    assert "traning: unknown" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["no-such-program"], "The kernel 'broken' does not start: "),
        ([sys.executable, "-c", "raise SystemExit(3)"], "The kernel 'broken' does not start: "),
    ],
)
def test_a_kernel_that_does_not_start_is_said(lesson, monkeypatch, capsys, argv, said):
    specification = Path("jupyter/kernels/broken/kernel.json")
    specification.parent.mkdir(parents=True)
    content = {"argv": argv, "display_name": "Broken", "language": "python"}
    specification.write_text(json.dumps(content))
    monkeypatch.setenv("JUPYTER_PATH", str(Path("jupyter").absolute()))
    assert main(["execute", "07", "--kernel", "broken"]) == 1
    assert said in capsys.readouterr().out


def test_a_probe_that_hangs_ends_by_the_cells_time_limit(lesson, capsys):
    probe(lesson, 0, size="6 * 28", slow="__import__('time').sleep(60)")
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[0].metadata["tags"] = ["regression:seconds=2"]
    nbformat.write(notebook, lesson)
    began = time.monotonic()
    assert main(["execute", "07", "--accept"]) == 1
    assert time.monotonic() - began < 40
    assert "probe 'slow' is still running after 2 s, the cell's" in capsys.readouterr().out


def test_a_probe_that_ends_the_kernel_is_named(lesson, capsys):
    probe(lesson, 0, end="__import__('os')._exit(3)")
    assert main(["execute", "07", "--accept"]) == 1
    assert "probe 'end': The kernel's process ended (exit code 3)" in capsys.readouterr().out


def test_an_older_notebook_with_metadata_of_its_own_keeps_them(lesson):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.nbformat_minor = 2
    for cell in notebook.cells:
        del cell["id"]
    notebook.metadata.title = "Small"
    nbformat.write(notebook, lesson)
    edit(lesson, 0, "6, 28", "7, 28")
    assert main(["execute", "07", "--accept"]) == 0
    stored = nbformat.read(lesson, as_version=4)
    assert (stored.nbformat_minor, stored.metadata.title) == (2, "Small")


def test_a_wrong_tag_of_the_notebook_is_named_before_anything_runs(lesson, capsys):
    notebook = nbformat.read(lesson, as_version=4)
    notebook.metadata["regression"] = {"tags": ["regression:unseded"]}
    nbformat.write(notebook, lesson)
    assert main(["execute", "07"]) == 1
    assert "The notebook: the tag 'regression:unseded' is not known" in capsys.readouterr().out

"""Test that problems with a stored notebook are found without a kernel."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from nbval_tolerance.config import Config
from nbval_tolerance.stored import problems, source_hash, stamp, unprinted_figures


def printed(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return new_output("stream", name=name, text=text)


def picture(plain: str = "<Figure at 0x7f001122>") -> nbformat.NotebookNode:
    return new_output("display_data", data={"image/png": "", "text/plain": plain})


def lesson(*cells: tuple | nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook with hashes, and with cells (source, output, …) executed in order."""
    made = [new_markdown_cell("# A lesson")]
    for cell in cells:
        source, *outputs = cell if isinstance(cell, tuple) else (cell,)
        made.append(new_code_cell(source, outputs=outputs))
    notebook = new_notebook(cells=made)
    for count, cell in enumerate(made[1:], start=1):
        cell.execution_count = count
    stamp(notebook)
    return notebook


def strictly(notebook: nbformat.NotebookNode) -> list[str]:
    return problems(notebook, Config(strict=True))


def test_an_executed_notebook_is_well():
    assert problems(lesson(("a = 1",), ("print(a)", printed("1\n")), ("draw()", picture()))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda c: c[1].update(execution_count=None),
            ["Cell 1, shown as [ ]: was never executed", "Cell 2, shown as [3]: follows [1]"],
        ),
        (
            lambda c: c[1].update(execution_count=7),
            ["Cell 1, shown as [7]: follows [1]", "Cell 2, shown as [3]: follows [7]"],
        ),
        (lambda c: c[2].update(execution_count=4), ["Cell 2, shown as [4]: follows [2]"]),
        (lambda c: c[1].update(source="b = 3"), ["Cell 1, shown as [2]: was edited after its"]),
        (lambda c: c[1].metadata.clear(), ["Cell 1, shown as [2]: was edited after its"]),
        (
            lambda c: c[1].outputs.append(new_output("error", ename="KeyError", evalue="")),
            ["Cell 1, shown as [2]: stores an error, KeyError"],
        ),
        (
            lambda c: c[1].outputs.append(printed("WARNING: frightening", "stderr")),
            ["Cell 1, shown as [2]: stores stderr, 'WARNING: frightening'"],
        ),
        (
            lambda c: c[1].outputs.append(printed("\n", "stderr")),
            ["Cell 1, shown as [2]: stores stderr, ''"],
        ),
        (
            lambda c: c[1].metadata.update(tags=["regression:fuzzy"]),
            ["Cell 1, shown as [2]: the tag 'regression:fuzzy' is not known"],
        ),
        (
            lambda c: [c[0].update(source="x"), c[2].update(source="y")],
            ["Cell 0, shown as [1]: was edited", "Cell 2, shown as [3]: was edited"],
        ),
    ],
)
def test_what_is_wrong_is_named(change, expected):
    notebook = lesson(("a = 1",), ("b = 2",), ("c = 3",))
    change(notebook.cells[1:])
    for problem, sentence in zip(strictly(notebook), expected, strict=True):
        assert sentence in problem


@pytest.mark.parametrize(
    "text",
    [
        "Wall time: 3.2 s",
        "took 0:00:12",
        "on 2026-02-03 04:05:06",
        "1,200 images/s",
        "<Model at 0x7f0011223344>",
        "\x1b[1mtook 3.2 s\x1b[0m",
        "1/3\r2/3\r3/3\n",
        "one\b\b\btwo",
    ],
)
def test_what_differs_from_run_to_run_is_not_stored(text):
    assert problems(lesson(("f()", printed(text)))) == []
    (found,) = strictly(lesson(("f()", printed(text))))
    assert "differs from run to run" in found or "progress bar" in found


@pytest.mark.parametrize(
    "text",
    ["28 x 28", "0.2 min 0.7", "\x1b[1mbold\x1b[0m", "x[0:10]", "16:9", "line\r\n", "0xff"],
)
def test_what_is_the_same_in_each_run_may_be_stored(text):
    assert strictly(lesson(("f()", printed(text)))) == []


@pytest.mark.parametrize(
    ("data", "alt"),
    [
        ({"text/plain": "<Markdown>", "text/markdown": "It took 3 s."}, ""),
        ({"text/plain": "<Latex>", "text/latex": "took $3 s$ and took 3 s"}, ""),
        ({"text/plain": "Report()", "text/html": "<b>took 3 s</b>"}, ""),
        ({"text/plain": "Report in 3 s", "text/html": "<b>done</b>"}, ""),
        ({"text/plain": "<JSON>", "application/json": {"time": "3 s"}}, ""),
        ({"text/plain": "<Figure>", "image/png": ""}, "A line, drawn in 3 s."),
    ],
)
def test_each_text_that_is_compared_is_looked_at(data, alt):
    output = new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})
    (found,) = strictly(lesson(("f()", output)))
    assert "differs from run to run, '3 s'" in found


def test_a_plain_text_that_is_not_shown_may_hold_an_address():
    shown = {"text/plain": "<Styler at 0x7f001122>", "text/html": "<b>1</b>"}
    assert strictly(lesson(("f()", new_output("display_data", data=shown)))) == []
    assert strictly(
        lesson(("f()", new_output("display_data", data={**shown, "text/html": "<b>took 1 s</b>"})))
    )


def test_a_time_that_is_data_is_told_by_a_tag():
    notebook = lesson(("f()", printed("took 0.5 s")))
    assert strictly(notebook)
    notebook.cells[1].metadata["tags"] = ["regression:exact"]
    assert strictly(notebook) == []


def test_a_notebook_that_was_never_run_says_so_once():
    notebook = new_notebook(cells=[new_code_cell("1"), new_code_cell("2")])
    assert problems(notebook) == ["no cell was ever executed; execute the notebook"]


def test_a_notebook_that_was_never_run_hides_no_wrong_tag():
    tagged = new_code_cell("1", metadata={"tags": ["regression:fuzzy"]})
    ranged = new_code_cell("2", metadata={"regression": {"probes": {"a": "1"}, "alt": "A line."}})
    notebook = new_notebook(cells=[tagged, new_code_cell("2"), ranged])
    notebook.metadata["regression"] = {"tags": ["regression:unseeded"]}
    said = problems(notebook)
    assert len(said) == 4
    assert said[0].startswith("no cell was ever executed")
    assert said[1].startswith("The notebook: 'regression:unseeded' makes the check weaker")
    assert said[2].startswith("Cell 0, shown as [ ]: the tag 'regression:fuzzy' is not known")
    assert said[3].startswith("Cell 2, shown as [ ]: regression: 'alt' is not known")


def test_what_was_not_run_lacks_nothing_else():
    about = {"probes": {"a": "1"}, "between": {"loss": [1, 2]}, "reason": "It is a matter of luck."}
    notebook = lesson(("x = 1",), ("f()",))
    notebook.cells[2].metadata |= {"regression": about, "alt": "A line."}
    notebook.cells[2].execution_count = None
    (found,) = problems(notebook)
    assert "Cell 1, shown as [ ]: was never executed" in found


def test_a_notebook_with_nothing_to_run_needs_no_run():
    skipped = new_code_cell("x", metadata={"tags": ["nbval-skip"]})
    assert problems(new_notebook(cells=[new_code_cell(" "), skipped])) == []


def test_tags_of_the_notebook_allow_a_strict_project_what_a_cells_own_do():
    notebook = lesson(("f()", printed("took 0.5 s"), printed("WARNING", "stderr")))
    assert len(strictly(notebook)) == 2
    tags = ["regression:exact", "regression:stderr"]
    notebook.metadata["regression"] = {"tags": tags, "reason": "Times are what it is about."}
    assert strictly(notebook) == []


def test_a_course_without_hashes_is_not_held_to_them():
    notebook = lesson(("a = 1",), ("b = 2",))
    for cell in notebook.cells:
        cell.metadata.clear()
    assert problems(notebook) == []


@pytest.mark.parametrize("same", ["x = 1\n", "x = 1\r\n", "x = 1  \n\n"])
def test_what_an_editor_changes_on_saving_does_not_count(same):
    assert source_hash(new_code_cell(same)) == source_hash(new_code_cell("x = 1"))
    assert source_hash(new_code_cell("x = 2")) != source_hash(new_code_cell("x = 1"))


def test_a_probe_that_was_edited_is_an_edit():
    one, other = (
        new_code_cell("x = 1", metadata={"regression": {"probes": {"sum": text}}}) for text in "xy"
    )
    assert source_hash(one) != source_hash(other) != source_hash(new_code_cell("x = 1"))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"a": "1"}, "its probes changed after their values were stored; execute the"),
        ({"a": "1"}, {"a": "1", "b": "2"}, "its probes changed after their values were stored; ex"),
        ({"a": "1"}, {"a": "2"}, "its source or its probes changed after its output was stored"),
        ({"a": "1"}, {}, "its source or its probes changed after its output was stored"),
        ({"a": "1"}, {"a": "1"}, ""),
    ],
)
def test_a_change_of_the_probes_is_said_once(before, after, said):
    notebook = lesson(("x = 1",), ("y = 2",))
    cell = notebook.cells[2]
    cell.metadata["regression"] = {"probes": before, "values": dict.fromkeys(before, "1")}
    stamp(notebook)
    cell.metadata["regression"]["probes"] = after
    assert [f"Cell 1, shown as [2]: {said}" in each for each in problems(notebook)] == [
        True
    ] * bool(said)
    cell.source = "y = 3"
    (found,) = problems(notebook)
    edited = "its source or its probes changed" if before or after else "was edited after its"
    assert edited in found


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("stored", [True, False])
def test_a_tag_for_stderr_does_nothing_without_it_or_in_a_project_that_is_not_strict(
    strict, stored
):
    notebook = lesson(("f()", *[printed("WARNING", "stderr")] * stored))
    cell = notebook.cells[1]
    cell.metadata["tags"] = ["regression:stderr", "nbval-ignore-output"]
    cell.metadata["regression"]["reason"] = "The warning is what the cell is about."
    found = problems(notebook, Config(strict=strict))
    if strict and stored:
        assert found == []
    elif strict:
        assert "'regression:stderr' does nothing: the cell stores no stderr" in found[0]
    else:
        assert "'regression:stderr' does nothing: it is for projects that set `strict`" in found[0]
    assert len(found) == (not (strict and stored))


def test_the_same_tag_of_a_whole_notebook_is_for_strict_projects():
    notebook = lesson(("f()",))
    about = {"tags": ["regression:stderr"], "reason": "The library warns in most cells."}
    notebook.metadata["regression"] = about
    assert strictly(notebook) == []
    (found,) = problems(notebook)
    assert found.startswith("The notebook: the tag 'regression:stderr' does nothing: it is for")


def test_many_chunks_of_stderr_are_one_complaint_which_a_reason_ends():
    chunks = [item for n in range(300) for item in (printed(f"{n}\n", "stderr"), printed("."))]
    notebook = lesson(("f()", *chunks))
    assert problems(notebook) == []
    (found,) = strictly(notebook)
    assert "stores stderr, '0'" in found
    cell = notebook.cells[1]
    cell.metadata["tags"] = ["regression:stderr"]
    assert ["without a reason" in found for found in strictly(notebook)] == [True]
    cell.metadata["regression"]["reason"] = "The warning is what the cell is about."
    assert strictly(notebook) == []


@pytest.mark.parametrize("mark", ["raises-exception", "nbval-raises-exception", "comment"])
def test_a_tag_says_that_a_cell_raises_and_the_output_has_to_agree(mark):
    error = new_output("error", ename="ValueError", evalue="x", traceback=[])
    source = "# NBVAL_RAISES_EXCEPTION\nf()" if mark == "comment" else "f()"
    notebook = lesson((source, error))
    if mark != "comment":
        notebook.cells[1].metadata["tags"] = [mark]
    assert problems(notebook) == []
    notebook.cells[1].outputs = []
    (found,) = problems(notebook)
    assert "is tagged as raising an exception but stores no error" in found


def test_each_probe_has_a_value():
    notebook = lesson(("x = 1",), ("y = 2",))
    notebook.cells[2].metadata["regression"] = {"probes": {"x": "x"}, "values": {"y": "2"}}
    stamp(notebook)
    (found,) = problems(notebook)
    assert "Cell 1, shown as [2]: its probes and their stored values have different" in found


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({"accuracy": [0.1, 0.9]}, []),
        ({"mistakes": [200, 300], "accuracy": [0.1, 0.9]}, []),
        ({"untrained": [0.0, 0.2]}, []),
        ({"accuracy": [0.1, 0.6]}, ["is not between"]),
        ({"untrained": [0.3, 0.4]}, ["is not between"]),
        ({"loss": [0.1, 0.6]}, ["between: no number is 'loss'"]),
    ],
)
def test_a_range_holds_what_is_stored(ranges, said):
    notebook = lesson(("f()", printed("accuracy 0.8123\nmistakes 257")))
    notebook.cells[1].metadata["regression"] = {
        "between": ranges,
        "reason": "It is a matter of luck.",
        "probes": {"untrained": "s"},
        "values": {"untrained": "0.1"},
    }
    stamp(notebook)
    for found, words in zip(problems(notebook), said, strict=True):
        assert words in found


@pytest.mark.parametrize(
    ("alt", "said"),
    [
        ("A line.", []),
        (["A line."], []),
        (["A line.", "A dot."], ["has 1 figure and 2 texts"]),
        ("A dot.", ["was edited after the figures were stored"]),
    ],
)
def test_alternative_texts_are_those_of_the_figures(alt, said):
    figure = picture()
    figure.metadata["image/png"] = {"alt": "A line."}
    notebook = lesson(("draw()", figure))
    notebook.cells[1].metadata["alt"] = alt
    for found, words in zip(problems(notebook), said, strict=True):
        assert words in found


@pytest.mark.parametrize(
    ("tag", "output", "said"),
    [
        ("wider-accuracy=2", printed("accuracy 0.9"), ""),
        ("wider-accuracy=2", printed("loss 0.9"), "wider-accuracy' does nothing: the cell shows"),
        ("wider-loss=2", printed("val_loss 0.9"), ""),
        ("wider-float=2", printed("std 0.9"), ""),
        ("wider-float=2", printed("3 apples"), "wider-float' does nothing: the cell shows no flo"),
        ("wider-figure=2", printed("loss 0.9"), "wider-figure' does nothing: the cell shows no fi"),
        ("wider-figure=2", picture(), ""),
        ("no-figure", printed("loss 0.9"), "no-figure' does nothing: the cell shows no figure"),
        ("no-figure", picture(), ""),
        ("no-figure", new_output("display_data", data={"text/html": "<svg></svg>"}), ""),
        ("wider-float=2", picture("logit 0.97"), ""),
        ("wider-float=2", picture("<Figure size 0.9>"), "wider-float' does nothing: the cell sh"),
    ],
)
def test_a_tag_is_about_something_that_the_cell_shows(tag, output, said):
    notebook = lesson(("f()", output))
    notebook.cells[1].metadata["tags"] = [f"regression:{tag}"]
    notebook.cells[1].metadata["regression"]["reason"] = "It is a matter of luck."
    assert [said in found for found in problems(notebook)] == ([True] if said else [])
    notebook.cells[1].metadata["tags"].append("nbval-ignore-output")
    assert problems(notebook) == []


def test_a_tag_of_the_whole_notebook_need_not_fit_each_cell():
    notebook = lesson(("f()", printed("loss 0.9")))
    about = {"tags": ["regression:no-figure", "regression:wider-accuracy=2"]}
    notebook.metadata["regression"] = {**about, "reason": "It is a matter of luck."}
    assert problems(notebook) == []


def test_a_stamp_keeps_a_reason():
    notebook = lesson(("a",))
    notebook.cells[1].metadata["regression"]["reason"] = "Because it is so."
    stamp(notebook)
    assert notebook.cells[1].metadata["regression"]["reason"] == "Because it is so."


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ([("y = f()",), ("print(y)", printed("[1 2]")), ("plot(y)", picture())], None),
        ([("y = f()",), ("print(y)", printed("done")), ("plot(y)", picture())], "y"),
        ([("y = f()",), ("plot(y)", picture())], "y"),
        # A cell after the figure may print the plotted numbers, or the numbers from which they were
        # computed.
        ([("y = f()",), ("plot(y)", picture()), ("print(y)", printed("3"))], None),
        ([("x = f()\nprint(x)", printed("3")), ("y = x / 2",), ("plot(y)", picture())], None),
        # The notebook prints only other numbers.
        ([("x = f()\nprint(x)", printed("3")), ("y = g()",), ("plot(x, y)", picture())], "y"),
        ([("import numpy as np\nprint(np.pi)", printed("3.1")), ("y = np.exp(1)",),
          ("plot(y)", picture())], "y"),
        ([("%matplotlib inline\nplot([1, 2])", picture())], None),  # constants
    ],
)  # fmt: skip
def test_a_figure_whose_numbers_are_not_printed_is_named(cells, named):
    found = unprinted_figures(lesson(*cells))
    assert [f"draws {named}, " in sentence for sentence in found] == ([True] if named else [])

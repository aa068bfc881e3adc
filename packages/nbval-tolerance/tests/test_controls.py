"""Test the effects of an author's tags and metadata, and which ones are rejected."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from nbval_tolerance.compare import Phase, Rules
from nbval_tolerance.config import Config
from nbval_tolerance.controls import KINDS, KNOWN, ControlError, rules, rules_of
from nbval_tolerance.stored import problems

PACKAGE = Path(__file__).parents[1]
REASON = "The score changes with the processor."


def cell(*tags: str, source: str = "x", reason: object = None) -> nbformat.NotebookNode:
    regression = {} if reason is None else {"reason": reason}
    return nbformat.v4.new_code_cell(
        source, metadata={"tags": list(tags), "regression": regression}
    )


def error_of(wrong: nbformat.NotebookNode) -> str:
    with pytest.raises(ControlError) as error:
        rules(wrong, Rules())
    return str(error.value)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], Rules(Phase.FIT)),
        (["hide-input", "raises-exception", "regression"], Rules(Phase.FIT)),  # other tools' tags
        (["regression:exact"], Rules(Phase.FIT, exact=True)),
        (["regression:wider-loss=2"], Rules(Phase.FIT, wider={"loss": 2.0})),
        (
            ["regression:wider-loss=2", "regression:wider-accuracy=1.5", "regression:no-figure"],
            Rules(Phase.FIT, wider={"loss": 2.0, "accuracy": 1.5}, figures=False),
        ),
        (["regression:unseeded"], Rules(Phase.FIT, seeded=False)),
        (["regression:trained"], Rules(Phase.TRAINED)),
        (["regression:untrained"], Rules(Phase.UNTRAINED)),
        (["regression:seconds=0.5"], Rules(Phase.FIT, seconds=0.5)),
    ],
)
def test_what_each_tag_sets(tags, expected):
    assert rules(cell(*tags, reason=REASON), Rules(Phase.FIT)) == expected


@pytest.mark.parametrize(
    "tag",
    [
        "regression:exactly",
        "regression:",
        "regression: exact",
        "Regression:exact",
        "regression:wider",
        "regression:wider-speed=2",
        "regression:exact=1",
        "regression:exact=",
    ],
)
def test_an_unknown_tag_is_an_error_that_lists_the_known_ones(tag):
    message = error_of(cell(tag, reason=REASON))
    assert repr(tag) in message
    for name in ("exact", "wider-KIND=FACTOR", "no-figure", "unseeded", "stderr", "seconds=N"):
        assert f"regression:{name}" in message
    for kind in KINDS:
        assert kind in message


@pytest.mark.parametrize("text", ["", "=", "=1", "=0.5", "=-2", "=10.1", "=inf", "=nan", "=two"])
def test_a_factor_is_more_than_1_and_at_most_10(text):
    message = error_of(cell(f"regression:wider-loss{text}", reason=REASON))
    assert "takes a number above 1 and at most 10" in message


@pytest.mark.parametrize("text", ["", "=", "=0", "=-1", "=inf", "=nan", "=1min"])
def test_a_time_limit_is_a_positive_number(text):
    assert "takes a number above 0" in error_of(cell(f"regression:seconds{text}"))


@pytest.mark.parametrize(
    "tags",
    [
        ["regression:exact", "regression:wider-loss=2"],
        ["regression:trained", "regression:untrained"],
        ["regression:exact", "regression:unseeded"],
        ["regression:unseeded", "regression:wider-loss=2"],
        ["regression:seconds=5", "regression:seconds=6"],
        ["regression:wider-loss=2", "regression:wider-loss=3"],
        ["regression:no-figure", "regression:wider-figure=3"],
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_contradictions_are_errors(tags, order):
    assert "contradict each other" in error_of(cell(*tags[::order], reason=REASON))


@pytest.mark.parametrize(
    "weaker",
    [
        {"tag": "regression:wider-loss=2"},
        {"tag": "regression:no-figure"},
        {"tag": "regression:unseeded"},
        {"tag": "regression:trained"},
        {"tag": "regression:stderr"},
        {"between": {"accuracy": [0.1, 0.6]}},
    ],
    ids=lambda weaker: str(next(iter(weaker.values()))),
)
def test_no_check_is_made_weaker_without_a_reason(weaker):
    tags = [weaker["tag"]] if "tag" in weaker else []
    for reason in (None, "", "flaky", ["a", "list"]):
        wrong = cell(*tags, reason=reason)
        wrong.metadata["regression"] |= {k: v for k, v in weaker.items() if k == "between"}
        assert "without a reason" in error_of(wrong)
    wrong.metadata["regression"]["reason"] = REASON
    rules(wrong, Rules(Phase.FIT))


@pytest.mark.parametrize("page", ["docs/tags.md", "src/nbval_tolerance/controls.py"])
def test_every_tag_is_documented(page):
    text = (PACKAGE / page).read_text()
    for tag in re.findall(r"regression:[\w-]+(?:=\w+)?", KNOWN):
        assert f"| `{tag}` |" in text


@pytest.mark.parametrize(
    ("tag", "source"),
    [
        ("nbval-skip", "x"),
        ("nbval-ignore-output", "x"),
        ("", "# PYTEST_VALIDATE_IGNORE_OUTPUT\nx"),
        ("", "x\n  ## NBVAL_IGNORE_OUTPUT"),
        *(
            ("", f"x\n{c}")
            for c in ("# NBVAL_SKIP", "#\tNBVAL_SKIP", "#\u00a0nbval-skip", "##NBVAL_SKIP")
        ),
    ],
)
def test_a_strict_project_gives_a_reason_for_nbvals_own_ways_to_drop_a_check(tag, source):
    dropped = cell(*filter(None, [tag]), source=source)
    dropped.execution_count = 1
    notebook = nbformat.v4.new_notebook(cells=[dropped])
    assert problems(notebook) == []
    (problem,) = problems(notebook, Config(strict=True))
    assert "without a reason" in problem
    dropped.metadata["regression"]["reason"] = REASON
    assert problems(notebook, Config(strict=True)) == []


def test_a_notebooks_tags_hold_for_all_of_its_cells_and_a_cells_own_come_after_them():
    notebook = nbformat.v4.new_notebook(cells=[cell(), cell("regression:untrained")])
    notebook.metadata["regression"] = {"tags": ["regression:trained"], "reason": REASON}
    assert [found.phase for found in rules_of(notebook)] == [Phase.TRAINED, Phase.UNTRAINED]
    del notebook.metadata["regression"]["reason"]
    for each in notebook.cells:
        each.execution_count = 1
    (problem,) = problems(notebook)[:-1]  # the last problem is that both cells are shown as [1]
    assert problem.startswith("The notebook: 'regression:trained' makes the check")


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"probs": {"scores": "x"}}, "'probs' is not known; the keys are probes"),
        ({"betwen": {"loss": [1, 2]}}, "'betwen' is not known"),
        ({"tags": ["regression:exact"]}, "'tags' is not known"),  # valid only for a notebook
        ({"probes": ["model(x)"]}, "the probes must be"),
        ({"probes": {"scores": 3}}, "the probes must be"),
        ({"probes": {"scores": " "}}, "the probes must be"),
        ({"probes": {"scores": "x = 3"}}, "probe 'scores' is not an expression"),
        ({"between": [1, 2]}, "between must be"),
        ({"between": {"loss": [2]}}, "'loss' takes two numbers"),
        ({"between": {"loss": [2, 1]}}, "'loss' takes two numbers"),
        ({"between": {"loss": ["1", "2"]}}, "'loss' takes two numbers"),
        ({"between": {"loss": [False, True]}}, "'loss' takes two numbers"),
        ({"between": {"loss": [0, float("inf")]}}, "'loss' takes two numbers"),
        ({"values": ["4704"]}, "`nbval-tolerance execute` writes 'source' and 'values'"),
        ({"values": {"size": 4704}}, "`nbval-tolerance execute` writes 'source' and 'values'"),
        ({"source": 7}, "`nbval-tolerance execute` writes 'source' and 'values'"),
        ({"reason": ["a", "longer", "list"]}, "the reason must be a sentence"),
    ],
)
def test_wrong_probes_and_ranges_are_errors(about, said):
    wrong = cell(reason=REASON)
    wrong.metadata["regression"] |= about
    assert said in error_of(wrong)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"regression": "because"}, "metadata must be"),
        ({"tags": [1]}, "not a list of strings"),
        ({"tags": "regression:foo"}, "not a list of strings"),
    ],
)
def test_malformed_metadata_is_an_error_of_its_cell(metadata, said):
    wrong = nbformat.v4.new_code_cell("x", execution_count=1)
    wrong.metadata = nbformat.from_dict(metadata)
    assert said in error_of(wrong)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [wrong]
    (problem,) = problems(notebook)
    assert problem.startswith("Cell 0, shown as [1]: ")
    assert said in problem


@pytest.mark.parametrize("alt", [5, ["A line.", 5], {"text": "A line."}, []])
def test_an_alternative_text_is_a_text(alt):
    wrong = cell()
    wrong.metadata["alt"] = alt
    assert "alt takes a string" in error_of(wrong)


def test_a_range_of_exact_numbers_would_do_nothing():
    wrong = cell("regression:exact", reason=REASON)
    wrong.metadata["regression"] |= {"between": {"loss": [1, 2]}}
    assert "'exact' makes 'between' pointless" in error_of(wrong)


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        ("unseeded", "wider-loss=2"),
        ("exact", "unseeded"),
        ("exact", "wider-loss=2"),
        ("no-figure", "wider-figure=2"),
    ],
)
def test_a_tag_of_the_notebook_and_one_of_a_cell_may_contradict_each_other(shared, own):
    notebook = nbformat.v4.new_notebook(cells=[cell(f"regression:{own}", reason=REASON)])
    notebook.cells[0].execution_count = 1
    notebook.metadata["regression"] = {"tags": [f"regression:{shared}"], "reason": REASON}
    (problem,) = problems(notebook)
    assert "Cell 0, shown as [1]: " in problem
    assert "contradict each other" in problem


def test_a_project_without_figures_keeps_the_tags_of_its_figures():
    wide = cell("regression:wider-figure=2", reason=REASON)
    assert rules(wide, Rules(figures=False)).wider == {"figure": 2.0}


@pytest.mark.parametrize("source", ["", " \n"])
def test_an_empty_cell_has_no_tags_of_ours(source):
    said = error_of(cell("regression:exact", source=source))
    assert said == "the cell is empty, so 'regression:exact' would do nothing"
    rules(cell("hide-input", source=source), Rules())


@pytest.mark.parametrize("about", [{"probes": {"a": "x"}}, {"between": {"loss": [1, 2]}}])
@pytest.mark.parametrize(("tag", "source"), [("nbval-skip", "x"), ("a", "# NBVAL_SKIP\nx")])
def test_a_cell_that_is_not_run_has_no_probes(tag, source, about):
    skipped = cell(tag, source=source, reason=REASON)
    rules(skipped, Rules())
    skipped.metadata["regression"] |= about
    assert "the cell is not run (" in error_of(skipped)


@pytest.mark.parametrize("kind", ["markdown", "raw"])
@pytest.mark.parametrize("metadata", [{"tags": ["regression:exact"]}, {"regression": {}}])
def test_a_text_cell_has_no_tags_of_ours(kind, metadata):
    make = getattr(nbformat.v4, f"new_{kind}_cell")
    notebook = nbformat.v4.new_notebook(cells=[make("# Title\nText", metadata=metadata)])
    (problem,) = problems(notebook)
    assert problem.startswith(f"The {kind} cell '# Title': a tag with 'regression:', or metadata")
    notebook.cells[0].metadata = nbformat.from_dict({"tags": ["hide-cell"]})
    assert problems(notebook) == []


def test_tags_of_a_notebook_stand_where_they_do_something():
    notebook = nbformat.v4.new_notebook(metadata={"tags": ["regression:unseeded"]})
    (problem,) = problems(notebook)
    assert problem.startswith("The notebook: tags for all cells belong in the metadata as")
    notebook.metadata["tags"] = ["lesson"]
    assert problems(notebook) == []


def test_probes_of_a_whole_notebook_are_refused():
    notebook = nbformat.v4.new_notebook(cells=[cell()])
    notebook.cells[0].execution_count = 1
    notebook.metadata["regression"] = {"probes": {"a": "1"}}
    (problem,) = problems(notebook)
    assert problem.startswith("The notebook: regression: 'probes' is not known; the keys are tags")


def test_wrong_tags_leave_the_strict_rules():
    notebook = nbformat.v4.new_notebook(
        cells=[cell("regression:no-figure"), cell("regression:exact"), cell(source="model.fit()")]
    )
    strict = Rules(clock=False)
    assert rules_of(notebook)[:2] == [strict, replace(strict, exact=True)]
    assert rules_of(notebook)[2] == Rules(Phase.FIT)

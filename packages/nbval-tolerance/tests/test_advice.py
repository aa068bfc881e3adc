"""Test that advice names the random draws and clock calls that may have made a cell differ."""

from __future__ import annotations

import base64
import io

import nbformat
import pytest
from PIL import Image

from nbval_tolerance.compare import Comparison, Difference, Rules, compare_text
from nbval_tolerance.outputs import compare_outputs, compare_values
from nbval_tolerance.pictures.svg import compare_svg
from nbval_tolerance.session.advice import advice, kinds_of
from nbval_tolerance.source import Draw

RANDOM = Draw(0, "random.random", "random.seed(0)")
TOKEN = Draw(0, "secrets.token_hex", "")
CLOCK = Draw(0, "time.time", "", clock=True)
OTHER = Draw(1, "np.random.rand", "np.random.seed(0)")
OTHER_CLOCK = Draw(1, "time.ctime", "", clock=True)

SEEDLESS = (
    "Cell 0 calls random.random, and nothing before it sets a seed. If that is the cause, set one, "
)


@pytest.mark.parametrize(
    ("kinds", "strict", "said"),
    [
        ({"number"}, False, "tag the cell 'regression:unseeded' with a reason"),
        ({"figure"}, False, "tag the cell 'regression:no-figure' with a reason"),
        (
            {"figure", "number"},
            True,
            "tag the cell 'regression:unseeded' and 'regression:no-figure' with a reason",
        ),
        ({"text"}, False, "tag the cell 'nbval-ignore-output'"),
        ({"text", "number", "figure"}, True, "tag the cell 'nbval-ignore-output' with a reason"),
        ({"range"}, False, "widen the range"),
        (
            {"range", "figure"},
            False,
            "tag the cell 'regression:no-figure' with a reason and widen ",
        ),
    ],
)
def test_the_tag_fits_what_differs(kinds, strict, said):
    (found,) = advice([RANDOM], 0, {0}, kinds, strict)
    assert found.startswith(f"{SEEDLESS}random.seed(0), or {said}")


@pytest.mark.parametrize(
    ("draws", "used", "kinds", "named"),
    [
        # Draws in the cell itself come first, then those in the cells whose variables it uses, then
        # others. Clocks come last.
        ([OTHER, RANDOM], {1}, {"number"}, ["np.random.rand"]),
        ([OTHER_CLOCK, OTHER, RANDOM], {1}, {"number"}, ["np.random.rand"]),
        ([OTHER_CLOCK, RANDOM], {1}, {"number"}, ["time.ctime"]),
        ([OTHER_CLOCK, RANDOM], {0, 1}, {"number"}, ["time.ctime", "random.random"]),
        ([CLOCK, RANDOM], {1}, {"number"}, ["random.random"]),
        ([Draw(0, "a", "b"), Draw(-1, "c", "d")], {-1, 1}, {"figure"}, ["c"]),
        ([TOKEN, RANDOM], {0, 1}, {"number"}, ["random.random"]),
        # If text differs, the advice lists only the random draws in that cell and in the cells
        # whose variables that cell uses.
        ([RANDOM], {1}, {"text"}, []),
        ([RANDOM], {1}, {"text", "number"}, ["random.random"]),
        ([RANDOM], {0, 1}, {"text"}, ["random.random"]),
        ([RANDOM], {0, 1}, set(), []),
        ([], {1}, {"number"}, []),
    ],
)
def test_which_draw_is_named(draws, used, kinds, named):
    said = " ".join(advice(draws, 1, used, kinds, False))
    for draw in draws:
        assert (f" calls {draw.call}," in said) is (draw.call in named)


def test_what_no_seed_helps():
    (said,) = advice([TOKEN], 0, {0}, {"text"}, False)
    assert said == (
        "Cell 0 calls secrets.token_hex, which cannot be seeded. If that is the cause, tag the "
        "cell 'nbval-ignore-output'"
    )
    (said,) = advice([CLOCK], 0, {0}, {"figure"}, False)
    assert said == (
        "Cell 0 calls time.time, which reads the clock. If that is the cause, tag the cell "
        "'regression:no-figure' with a reason"
    )


def figures(one: int, other: int) -> Comparison:
    """Compare two plain figures with the given grey levels."""

    def shown(level: int) -> nbformat.NotebookNode:
        file = io.BytesIO()
        Image.new("L", (80, 60), level).save(file, "png")
        data = {"image/png": base64.b64encode(file.getvalue()).decode()}
        return nbformat.v4.new_output("display_data", data=data)

    return compare_outputs([shown(one)], [shown(other)], Rules())


def drawing(text: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg"><text>{text}</text></svg>'


@pytest.mark.parametrize(
    ("result", "kinds"),
    [
        (compare_text("score 0.5", "score 0.7", Rules()), {"number"}),
        (compare_text("n = 5", "n = 7", Rules()), {"number"}),
        (compare_text("score 0.5", "score 0.5", Rules()), set()),
        (compare_text("a", "b", Rules()), {"text"}),
        (compare_text("a", "b\nc", Rules()), {"text"}),
        (compare_text("a", "b", Rules(exact=True)), {"text"}),
        (compare_text("a\n0.5", "b\n0.7", Rules()), {"text", "number"}),
        (compare_text("x 0.5", "x 0.7", Rules(between={"x": (0.1, 0.6)})), {"range"}),
        (compare_values({"a": "0.5"}, {"a": "0.7"}, Rules()), {"number"}),
        (compare_values({"a": "'b'"}, {"a": "'c'"}, Rules()), set()),  # no tag allows this
        (figures(0, 200), {"figure"}),
        (figures(0, 1), set()),
        (Comparison([Difference("the outputs differ in kind or order", "", "")]), {"text"}),
        (Comparison([Difference("the pictures in the text differ", "", "")]), {"text"}),
    ],
)
def test_what_differs(result, kinds):
    assert kinds_of(result) == kinds


LINE = 'a</text><path d="M 0 0 L {} 1"/><text>'


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        (drawing("a"), drawing("b")),
        (drawing("a"), "<svg"),
        (drawing("a"), drawing(LINE.format(1))),
        (drawing(LINE.format(1)), drawing(LINE.format(900))),
    ],
)
def test_a_drawing_is_a_figure(stored, computed):
    found = compare_svg(stored, computed, Rules(), trained=False)
    assert found.differences
    assert kinds_of(Comparison(found.differences)) == set()  # a figure, not a text

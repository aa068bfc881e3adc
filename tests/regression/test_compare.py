"""The comparison, as pure functions: what may move, by how much, and what may not."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tfcourse.regression.compare import (
    NUMBER,
    Phase,
    compare_text,
    decimals,
    number_kind,
    value,
)
from tfcourse.regression.plugin import text_of, trains

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

UNTRAINED, TRAINED = Phase.UNTRAINED, Phase.TRAINED


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "train (55000, 28, 28) uint8",
        "epoch 1  accuracy: 0.9080  loss: 0.3149",
        "[nan nan  0.]",
        "rows sum to 1: True\nsame answers: True",
    ],
)
def test_a_text_equals_itself(text, phase):
    assert compare_text(text, text, phase) == []


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("loss 2.5816898", "loss 2.5816901"),  # the last digit of a float32
        ("[ 1.     10.2512]", "[1. 10.2513]"),  # NumPy pads by the widest entry
        ("array([0.1007, 0.1006])", "array([0.1006, 0.1006])"),
        ("-1e-05", "-2e-05"),
    ],
)
def test_rounding_passes_before_training(stored, computed):
    assert compare_text(stored, computed, UNTRAINED) == []


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("train (55000, 28, 28)", "train (54999, 28, 28)"),
        ("score 0.5816898", "score -0.5816898"),
        ("uint8", "uint16"),
        ("TensorFlow 2.21.0", "TensorFlow 2.22.0"),
        ("Total params: 101,770 (397.54 KB)", "Total params: 101,771 (397.54 KB)"),
        ("1,234.5 images", "1,334.5 images"),
        ("equal: True", "equal: False"),
        ("nan", "0.5"),
        ("[0. 0. 1.]", "[0. 1. 0.]"),
        ("1.0", "nan"),
        ("label 5", "label 5.0"),
        ("one\ntwo", "one"),
        ("", "something"),
    ],
)
@pytest.mark.parametrize("phase", Phase)
def test_what_a_learner_would_notice_fails(stored, computed, phase):
    assert compare_text(stored, computed, phase)


@pytest.mark.parametrize(
    ("stored", "computed", "passes"),
    [
        ("test accuracy 0.975", "test accuracy 0.979", True),
        ("test accuracy 0.975", "test accuracy 0.985", False),
        ("test loss     0.078", "test loss     0.085", True),
        ("test loss     0.078", "test loss     0.120", False),
        ("accuracy 97.5%", "accuracy 97.9%", True),
        ("accuracy 97.5%", "accuracy 98.5%", False),
        ("score 0.91", "score 0.93", True),
        ("score 0.91", "score 0.99", False),
        ("steps: 5157", "steps: 5158", False),
    ],
)
def test_trained_numbers_may_move_by_their_kind(stored, computed, passes):
    assert (compare_text(stored, computed, TRAINED) == []) is passes
    assert compare_text(stored, computed, UNTRAINED), "before training, none of these may pass"


@pytest.mark.parametrize(
    ("stored", "computed"), [("p = 0.5", "p = 0.6"), ("6.0 on CPU", "6.1 on CPU"), ("2.38", "2.39")]
)
def test_a_short_number_is_exact_before_training(stored, computed):
    assert compare_text(stored, computed, UNTRAINED)


def stored_lines(phase: Phase) -> list[str]:
    """Return the lines that the lessons' cells of this phase have printed."""
    lines = []
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        now = UNTRAINED
        for cell in nbformat.read(path, as_version=4).cells:
            now = TRAINED if trains(cell.source) else now
            if cell.cell_type == "code" and now is phase:
                lines += [line for output in cell.outputs for line in text_of(output).splitlines()]
    return lines


@pytest.mark.parametrize("phase", Phase)
def test_every_number_of_the_lessons_is_held(phase):
    """Change each stored number by a tenth of itself and by 1: no integer or float passes."""
    changed = 0
    for line in stored_lines(phase):
        for match in NUMBER.finditer(line):
            places = max(decimals(match.group()), 0)
            by = 1 if number_kind(line, match) == "integer" else 1 + abs(value(match.group())) / 10
            other = f"{value(match.group()) + by:.{places}f}" + "." * match.group().endswith(".")
            mutant = line[: match.start()] + other + line[match.end() :]
            assert compare_text(line, mutant, phase), f"{line!r} -> {mutant!r}"
            changed += 1
    assert changed > 100


def test_a_training_log_holds_each_number_to_its_own_kind():
    line = "epoch 1  accuracy: 0.9080  loss: 0.3149  val_accuracy: 0.9664  val_loss: 0.1241"
    kinds = [number_kind(line, match) for match in NUMBER.finditer(line)]
    assert kinds == ["integer", "accuracy", "loss", "accuracy", "loss"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("101,770 (397.54 KB)", ["101,770", "397.54"]),
        ("(60000, 28, 28) uint8", ["60000", "28", "28"]),
        ("[-1. .5 1e-05]", ["-1.", ".5", "1e-05"]),
        ("x1 3x 2.21.0", []),
        ("1,2 10,000 / 32 = 312.50", ["1", "2", "10,000", "32", "312.50"]),
    ],
)
def test_what_counts_as_a_number(text, numbers):
    assert [match.group() for match in NUMBER.finditer(text)] == numbers


def test_the_difference_names_the_line_and_both_values():
    (difference,) = compare_text("first\nshape (3, 4)", "first\nshape (3, 5)", UNTRAINED)
    assert "line 2" in str(difference)
    assert "4 became 5" in str(difference)
    assert difference.stored == "shape (3, 4)"
    assert difference.computed == "shape (3, 5)"

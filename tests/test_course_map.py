"""Check that the course teaches each claim in course_map.toml in the places that the file lists."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
# The first three words of each claim in course_map.toml, used to detect missing rows.
BEGINNINGS = [
    "You log in",
    "Python 2's `from",
    "Keras 3 runs",
    "A call of",
    "`x / 255.0`",
    "Training on raw",
    "Keras 3 warns",
    "Parameters are counted",
    "Not every layer",
    "Logits equal log-odds",
    "A fixed example",
    "Softmax in the",
    "Logits with the",
    "The loss averages",
    "The loss is",
    "The first loss",
    "`.numpy` without brackets",
    "The channel axis",
    "Softmax takes categorical",
    "Train, validation and",
    "Right answers are",
    "Accuracies that others",
    "1875 and 313",
    "Fashion-MNIST from its",
    "A gap is",
    "What softmax returns",
    "Softmax can be",
]
ROWS = tomllib.loads((ROOT / "tests/course_map.toml").read_text())["row"]
PLACES = [(row["claim"], place) for row in ROWS for place in row.get("taught", [])]
IN_LESSONS = [(claim, place) for claim, place in PLACES if "cell" in place]
IDS = [
    f"{place['lesson']}-{place['cell']}-{number}" for number, (_, place) in enumerate(IN_LESSONS)
]


@cache
def lessons() -> dict[str, dict[str, nbformat.NotebookNode]]:
    """Return a dictionary from each lesson's number to its cells, keyed by cell ID."""
    paths = (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")
    return {p.name[:2]: {c.id: c for c in nbformat.read(p, as_version=4).cells} for p in paths}


def printed(cell: nbformat.NotebookNode) -> str:
    """Return the text of a cell's stored output."""
    outputs = cell.get("outputs", [])
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def fault(place: dict[str, str], cells: dict[str, nbformat.NotebookNode]) -> str | None:
    """Return an error message if a place does not teach its claim, or None if it does."""
    cell = cells.get(place["cell"])
    if cell is None:
        return "the cell is gone"
    if not cell.source:
        return "the cell is empty"
    if place.get("says", "") not in cell.source:
        return "the cell's source no longer contains the text"
    if place.get("shows", "") not in printed(cell):
        return "the cell's output no longer contains the text"
    return None


def test_no_row_is_lost():
    assert [" ".join(row["claim"].split()[:3]) for row in ROWS] == BEGINNINGS


def test_every_row_has_a_place_or_names_what_is_left_out():
    assert len({row["claim"] for row in ROWS}) == len(ROWS)
    assert [row["claim"] for row in ROWS if not row.get("taught") and not row.get("absent")] == []
    assert all(place.get("says") or "cell" in place for _, place in PLACES)


@pytest.mark.parametrize(("claim", "place"), IN_LESSONS, ids=IDS)
def test_the_map_pins_code_and_outputs_but_no_prose(claim, place):
    is_code = lessons()[place["lesson"]][place["cell"]].cell_type == "code"
    assert is_code == bool(place.get("says") or place.get("shows")), claim


@pytest.mark.parametrize(("claim", "place"), IN_LESSONS, ids=IDS)
def test_each_claim_is_taught_where_the_map_says(claim, place):
    assert fault(place, lessons()[place["lesson"]]) is None, claim


@pytest.mark.parametrize(("claim", "place"), IN_LESSONS, ids=IDS)
def test_without_the_cell_the_map_is_red(claim, place):
    cells = lessons()[place["lesson"]]
    assert fault(place, {i: cell for i, cell in cells.items() if i != place["cell"]})
    without = nbformat.from_dict({**cells[place["cell"]], "source": "", "outputs": []})
    assert fault(place, {**cells, place["cell"]: without}), claim


def test_the_claims_that_are_taught_elsewhere():
    for claim, place in PLACES:
        if "file" in place:
            assert place["says"] in (ROOT / place["file"]).read_text(), claim


@pytest.mark.parametrize("row", [row for row in ROWS if "absent" in row], ids=lambda r: r["claim"])
def test_what_is_left_out_stays_out(row):
    for number, cells in lessons().items():
        for phrase in row["absent"]:
            found = [i for i, cell in cells.items() if phrase in cell.source + printed(cell)]
            assert found == [], f"{phrase} in lesson {number}"

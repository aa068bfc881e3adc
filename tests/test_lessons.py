"""What a reader of the stored lessons finds: links that lead somewhere, pictures with a text."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import nbformat
import pytest

from tfcourse.regression.stored import unprinted_figures

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PAGES = [*LESSONS, *ROOT.glob("*.md"), *ROOT.glob("tfcourse/*/README.md")]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def texts(path: Path) -> str:
    """Return a page's text: a Markdown file, or a notebook's text cells."""
    if path.suffix == ".md":
        return path.read_text()
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_course_leads_somewhere(page):
    for picture, text, target in LINK.findall(texts(page)):
        assert text, f"{target} has no text"
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert not picture or len(text) > 20, f"{target} needs a text that says what it shows"
        assert (page.parent / path).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", texts(page.parent / path if path else page), re.M)
            assert anchor in {heading.replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_figure_has_a_text(lesson):
    for cell in nbformat.read(lesson, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt) > 40, cell.source


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_figure_has_its_numbers_printed_and_every_cell_its_hash(lesson):
    notebook = nbformat.read(lesson, as_version=4)
    assert unprinted_figures(notebook) == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all("source" in cell.metadata.get("regression", {}) for cell in code), "make execute"


def test_the_readme_and_each_lesson_lead_to_the_next():
    readme = texts(ROOT / "README.md")
    for lesson in LESSONS:
        assert f"(notebooks/{lesson.name})" in readme
    for lesson, following in itertools.pairwise(LESSONS):
        assert f"({following.name})" in texts(lesson)

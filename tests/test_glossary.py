"""Check that the glossary defines each lesson's new words, and that first uses link to it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
TO_GLOSSARY = re.compile(r"\[([^\]]+)\]\(glossary\.md#([^)]*)\)")
# Matches everything except running text: headings, table rows, code, formulas, pictures and links.
ASIDE = r"^#[^\n]*|^\|[^\n]*|`[^`]*`|\$\$[^$]*\$\$|\$[^$\n]*\$|!?\[[^\]]*\]\([^)]*\)"
LINK_OR_ASIDE = re.compile(f"({TO_GLOSSARY.pattern})|{ASIDE}", re.M)


@cache
def entries() -> dict[str, str]:
    """Return a dictionary from each glossary term to its entry."""
    text = (NOTEBOOKS / "glossary.md").read_text().partition("\n## Error messages\n")[0]
    parts = re.split(r"^### (.+)\n", text, flags=re.M)
    assert len(parts[1::2]) == len(set(parts[1::2])), "the glossary lists a term twice"
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cells(lesson: Path) -> list[str]:
    notebook = nbformat.read(lesson, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def running_text(lesson: Path) -> str:
    """Return a lesson's running text, excluding the opening (title and aims) and the summary."""
    ends = ("## In this lesson", "## Check yourself")
    text = "\n\n".join(cell for cell in cells(lesson)[1:] if not cell.startswith(ends))
    return LINK_OR_ASIDE.sub(lambda found: found[1] or "", text)


def words(text: str) -> str:
    """Return the text in lower case, without Markdown's emphasis and code markers."""
    return re.sub(r"[*`]", "", text).lower()


def term_of(word: str) -> str | None:
    """Return the glossary term for a singular or plural word, or None if there is none."""
    forms = [word, word.removesuffix("s"), word.removesuffix("es")]
    return next((form for form in forms if form in entries()), None)


def identifier(term: str) -> str:
    return term.replace(" ", "-")


def test_the_headings_give_the_same_links_everywhere():
    # JupyterLab keeps capitals and punctuation in a heading's id; GitHub and MyST do not. All three
    # replace spaces with hyphens.
    terms = list(entries())
    assert all(re.fullmatch(r"[a-z0-9]+([ -][a-z0-9]+)*", term) for term in terms)
    assert terms == sorted(terms)


@pytest.mark.parametrize("term", entries())
def test_each_entry_names_its_lesson_which_links_it(term):
    text = entries()[term]
    assert len(text.split()) > 20, "an entry needs a definition and an example"
    number, _, file = re.search(
        r"Introduced in \[?lesson (\d\d)(\]\((\S+\.ipynb)\))?\.\s*\Z", text
    ).groups()
    there = next((lesson for lesson in LESSONS if lesson.name.startswith(number)), None)
    assert file == (there and there.name), (
        "an entry links its lesson if and only if the lesson exists"
    )
    if there:
        links = {target for _, target in TO_GLOSSARY.findall(running_text(there))}
        assert identifier(term) in links, f"{there.name} does not link to the term"
    for target in re.findall(r"\]\(#([^)]*)\)", text):
        assert target in ["Error-messages", *map(identifier, entries())]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_each_new_word_is_in_the_glossary(lesson):
    (new,) = re.findall(r"^\*\*New words\.\*\* (.*)$", "\n".join(cells(lesson)), re.M)
    found = [word.lower() for word in re.findall(r"\*([^*]+)\*", new)]
    assert found
    assert [word for word in found if term_of(word) is None] == []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_each_link_to_the_glossary_is_at_the_first_use(lesson):
    text = running_text(lesson)
    links = list(TO_GLOSSARY.finditer(text))
    assert len(links) == len(TO_GLOSSARY.findall("\n".join(cells(lesson)))), (
        "only running text may link to the glossary"
    )
    for link in links:
        word, target = words(link[1]), link[2]
        assert target in map(identifier, entries()), link[0]
        before = words(TO_GLOSSARY.sub(r"\1", text[: link.start()]))
        used = rf"(?<![\w-])({re.escape(word)}|{re.escape(target.replace('-', ' '))})s?(?![\w-])"
        assert not (earlier := re.search(used, before)), (
            f"{link[0]} is used earlier: «{before[max(0, earlier.start() - 40) : earlier.end()]}»"
        )

"""Check notebooks against the rules in CONTRIBUTING: `python tools/lint_lessons.py NOTEBOOK ...`.

Established linters do most of the work. This script runs PyMarkdown to check the Markdown (heading
levels, lists, bare URLs, pictures without alternative text, …). Separately, pre-commit runs Ruff
for the code and codespell for the spelling. The script itself implements only the rules that are
specific to this course.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from pymarkdown.api import PyMarkdownApi

from nbval_tolerance.config import load
from nbval_tolerance.stored import code_cells, problems

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 16  # the maximum for each visible code cell, not counting blank lines
# `interactive` is a package in the lessons' folder.
PLAIN = {"tensorflow", "numpy", "matplotlib", "interactive"} | sys.stdlib_module_names
WORDS, LINES = 200, 10  # the assumed reading speed: words of text and lines of code per minute
MOST_MINUTES = 25
ROOTS = "home|root|tmp|usr|var|opt|mnt|media|srv|work|data|content|kaggle|Users|Volumes"
PATH = re.compile(rf"(?<![\w.:/<])(?:/(?:{ROOTS})/\w|[A-Z]:[\\/]\w|file:///?\w)")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
# Proper names, which remain capitalised in headings that otherwise use sentence case.
NAMES = {"Dense", "Dropout", "Fashion-MNIST", "Flatten", "JupyterLab", "Keras", "MNIST"}
NAMES |= {"NumPy", "TensorFlow"}
PARTS = ["When you have finished, you can", "## In this lesson", "**New words.**"]


def main() -> int:
    """Print the problems found in the given notebooks; return 1 if there are any."""
    parser = argparse.ArgumentParser(description="Check notebooks against the course's rules.")
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    found = [
        f"{path}: {complaint}"
        for path in parser.parse_args().notebooks
        for complaint in [
            *complaints(nbformat.read(path, as_version=4), is_lesson(path)),
            *links(path),
        ]
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


def is_lesson(path: Path) -> bool:
    """Return whether a notebook is a lesson.

    `frame` and `quiz` apply only to lessons, not to exercises or solutions.
    """
    return path.parent.name == "notebooks"


def complaints(notebook: NotebookNode, lesson: bool = True) -> list[str]:
    """Return a message for each rule violation in a notebook."""
    found = [*markdown(notebook), *headings(notebook), *code(notebook), *stored(notebook)]
    found += paths(notebook)
    return [*found, *frame(notebook), *quiz(notebook)] if lesson else found


def markdown(notebook: NotebookNode) -> Iterator[str]:
    """Join all Markdown cells into one page, and check it with PyMarkdown."""
    page = "\n\n".join(cell.source.strip() for cell in text_cells(notebook)) + "\n"
    linter = PyMarkdownApi()
    # Disable the rules against long lines, HTML (which our collapsed answers need) and JupyterLab's
    # anchors.
    for rule in ("md013", "md033", "md051"):
        linter.disable_rule_by_identifier(rule)
    lines = page.splitlines()
    for failure in linter.scan_string(page).scan_failures:
        what = f"{failure.rule_description} {failure.extra_error_information}".strip()
        yield f"{what} ({failure.rule_id}): {lines[failure.line_number - 1][:60]!r}"
    for summary in re.findall(r"<summary>[^<]*`.*</summary>", page):
        yield f"Markdown does not work in a summary; write <code>: {summary[:60]!r}"


def headings(notebook: NotebookNode) -> Iterator[str]:
    """Check that headings use sentence case and are at the start of a cell."""
    for cell in text_cells(notebook):
        for heading in re.findall(r"^#+ (.+)$", cell.source, re.M):
            later = re.findall(r"[\w-]+", re.sub(r"^\d+\. ", "", heading))[1:]
            if capitals := [w for w in later if w.istitle() and w not in NAMES]:
                yield f"heading {heading!r}: {', '.join(capitals)} begins with a capital"
        if re.search(r"(?<!\A)^#+ ", cell.source, re.M):
            yield f"a heading inside a cell; start a new cell: {cell.source[:60]!r}"


def code(notebook: NotebookNode) -> Iterator[str]:
    """Check that code cells are short and import only packages that every learner has."""
    for where, cell in code_cells(notebook):
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        lines = len([line for line in cell.source.splitlines() if line.strip()])
        if lines > MOST_LINES and not folded:
            yield f"{where}: {lines} lines of code; split it (at most {MOST_LINES})"
        for node in ast.walk(ast.parse(re.sub(r"^[%!].*", "", cell.source, flags=re.M))):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in {name.partition(".")[0] for name in imported} - PLAIN:
                yield f"{where}: imports {name}; allowed: TensorFlow, NumPy, Matplotlib, Python"


def paths(notebook: NotebookNode) -> Iterator[str]:
    """Check that no text, code or output contains a path that exists on only one computer."""
    for cell in notebook.cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), *output.get("traceback", [])]
            texts += [text for kind, text in output.get("data", {}).items() if "text/" in kind]
        for path in filter(None, map(PATH.search, texts)):
            start = path.string.rfind("\n", 0, path.start()) + 1
            yield f"a path that only one machine has: {path.string[start:].splitlines()[0][:60]!r}"


def stored(notebook: NotebookNode) -> Iterator[str]:
    """Check that the outputs come from one clean run, and that figures have alternative text."""
    yield from problems(notebook, load(ROOT / "pyproject.toml"))
    for where, cell in code_cells(notebook):
        if "source" not in cell.metadata.get("regression", {}):
            yield f"{where}: no hash of its source is stored; `make execute` stores one"
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                if len(alt) <= 40:
                    yield f"{where}: the figure's text says too little: {alt!r}"


def frame(notebook: NotebookNode) -> Iterator[str]:
    """Check the parts that every lesson must have.

    A lesson must state its goals and its duration, list its new words, and link to the next lesson.
    """
    page = "\n\n".join(cell.source for cell in text_cells(notebook))
    if not re.match(r"# .+\n\n\*\*About \d+ minutes\b", page):
        yield "it does not begin with a title and **About N minutes"
    places = [page.find(part) for part in PARTS]
    for part, place in zip(PARTS, places, strict=True):
        if place < 0:
            yield f"there is no {part!r}"
    if places != sorted(places):
        yield f"these are not in order: {PARTS}"
    if not page.partition("\n**Next:**")[2].strip():
        yield "after the questions there is no '**Next:**'"
    said = int(found[1]) if (found := re.search(r"\*\*About (\d+) minutes", page)) else None
    took = minutes(notebook.cells)
    if said and (not took <= said <= took + 5 or said > MOST_MINUTES):
        yield (
            f"**About {said} minutes**: reading takes {took:.1f} minutes; at most {MOST_MINUTES} "
            "are allowed"
        )


def quiz(notebook: NotebookNode) -> Iterator[str]:
    """Check that each question has collapsed, explained answers, exactly one of them correct."""
    page = "\n\n".join(cell.source for cell in text_cells(notebook))
    questions = page.partition("\n## Check yourself\n")[2].partition("\n**Next:**")[0]
    _, *parts = re.split(r"^\*\*\d\. .+\*\*$", questions, flags=re.M)
    if not 3 <= len(parts) <= 5:
        yield f"{len(parts)} questions under '## Check yourself'; write 3 to 5 like '**1. … ?**'"
    for number, part in enumerate(parts, 1):
        # An answer is rendered as Markdown only if there are blank lines before and after it.
        options = re.findall(
            r"<details><summary>[^\n]+</summary>\n\n(.+?)\n\n</details>", part, re.S
        )
        right = [text.startswith("**Right.**") for text in options]
        wrong = [text.startswith("**Not quite.**") for text in options]
        if not 2 <= len(options) <= 4 or len(options) != part.count("<details"):
            yield f"question {number} has {len(options)} options; write 2 to 4, each folded"
        elif right.count(True) != 1 or right.count(True) + wrong.count(True) != len(options):
            yield (
                f"question {number}: one option must begin with **Right.**, and the others with "
                "**Not quite.**"
            )
        elif min(len(text.split()) for text in options) < 5:
            yield f"question {number}: each option must say why it is right or wrong"


def minutes(cells: list[NotebookNode]) -> float:
    """Return the estimated number of minutes for reading the text and the visible code."""
    text = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    # Do not count alternative text, URLs and HTML tags.
    text = re.sub(r"!\[[^\]]*\]|\]\([^)]*\)|<[^>]*>", "", text)
    code = [
        cell.source
        for cell in cells
        if cell.cell_type == "code" and not cell.metadata.get("jupyter", {}).get("source_hidden")
    ]
    lines = [line for source in code for line in source.splitlines() if line.strip()]
    return len(text.split()) / WORDS + len(lines) / LINES


def links(page: Path) -> Iterator[str]:
    """Check that links between the course's files work, and that a lesson links to the next one."""
    text = page_text(page)
    for picture, label, target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        if not label:
            yield f"the link to {target} has no text"
        elif "://" in target:
            continue
        elif picture and len(label) <= 20:
            yield f"the picture {target} needs a text that says what it shows"
        elif not there.exists():
            yield f"a link leads nowhere: {target}"
        elif anchor and anchor not in anchors(there):
            yield f"a link leads to no heading: {target}"
    if is_lesson(page):
        later = [path.name for path in sorted(page.parent.glob("[0-9][0-9]_*.ipynb"))]
        later = [name for name in later if name > page.name]
        if later and f"({later[0]})" not in text:
            yield f"it does not lead to the next lesson, {later[0]}"


def page_text(path: Path) -> str:
    """Return the text of a Markdown file, or of a notebook's Markdown cells."""
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(cell.source for cell in text_cells(nbformat.read(path, as_version=4)))


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors that JupyterLab, GitHub and the book generate for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page_text(path), re.M)
    found = {heading.replace(" ", "-") for heading in headings}
    if path.suffix == ".md" and "packages" in path.parts:  # GitHub's anchors
        found |= {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    return found


def text_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return a notebook's Markdown cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


if __name__ == "__main__":
    sys.exit(main())

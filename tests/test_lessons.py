"""Check that the stored lessons follow the style rules and that all links work."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lint_lessons
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
NOTEBOOKS = [*LESSONS, *sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))]
TEXTS = ["*.md", "docs/*.md", "notebooks/*.md", "packages/*/*.md", "packages/*/docs/*.md"]
PAGES = [*LESSONS, *itertools.chain.from_iterable(map(ROOT.glob, TEXTS))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_course_leads_somewhere(page):
    assert list(lint_lessons.links(page)) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_notebook_keeps_the_rules(notebook):
    found = lint_lessons.complaints(
        nbformat.read(notebook, as_version=4), lint_lessons.is_lesson(notebook)
    )
    assert found == []


# Changes that break a rule in a valid lesson, each with the message that the linter must print.
MISTAKES = {
    "a level left out": (("## Set up", "#### Set up"), "Heading levels"),
    "a title twice": (("## Set up", "# Set up"), "first-line-h1|Multiple top-level"),
    "Title Case": (("## Set up", "## Set Up"), "Up begins with a capital"),
    "a heading inside a cell": (("## Set up", "Text.\n\n## Set up"), "a heading inside a cell"),
    "a bare address": (("## Set up", "## Set up\n\nSee https://example.org"), "Bare URL"),
    "a picture without a text": (("## Set up", "## Set up\n\n![](a.png)"), "alternate text"),
    "Markdown in a summary": (
        ("## Set up", "## Set up\n\n<details><summary>Why `fit`?</summary>\n\nSo.\n\n</details>"),
        "does not work in a summary",
    ),
    "no minutes": (("**About", "**Perhaps"), "About N minutes"),
    "no aims": (("you can", "you may"), "there is no 'When you have finished"),
    "no questions": (("**1. ", "1. "), "0 questions|2 questions|3 questions|4 questions"),
    "no right answer": (("**Right.**", "Right."), "one option must begin"),
    "an option without a reason": (
        ("</summary>\n\n**Right.**", "</summary>\n\n**Right.**\n\n</details>\n\n<details>"),
        "options|says why",
    ),
    "no way on": (("**Next:**", "Next:"), r"no '\*\*Next:"),
    "no end": (("## In this lesson", "## Goodbye"), "there is no '## In this lesson'"),
    "a long cell": (
        ("import numpy as np", "import numpy as np\n" + 20 * "x = 1\n"),
        "lines of code",
    ),
    "another package": (("import numpy as np", "import numpy as np, sklearn"), "imports sklearn"),
    "one machine's path": (("import numpy as np", 'f = "/home/ada"'), "that only one machine has"),
    "a path in the text": (
        ("## Set up", "## Set up\n\nSee /content/data"),
        "that only one machine has",
    ),
    "an edited cell": (("import numpy as np", "import numpy"), "was edited after"),
}


@pytest.mark.parametrize(("change", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_broken_rule_is_named(change, said):
    notebook = nbformat.read(LESSONS[1], as_version=4)
    assert lint_lessons.complaints(notebook) == []
    cell = next(cell for cell in notebook.cells if change[0] in cell.source)
    cell.source = cell.source.replace(*change)
    found = lint_lessons.complaints(notebook)
    assert any(re.search(said, complaint) for complaint in found), found


@pytest.mark.parametrize(
    ("alt", "hash_", "said"),
    [
        ("A figure", True, "says too little"),
        ("", True, "says too little"),
        (None, False, "no hash"),
    ],
)
def test_what_is_stored_is_checked(alt, hash_, said):
    notebook = nbformat.read(LESSONS[1], as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for output in [o for cell in cells for o in cell.outputs if alt is not None]:
        if "image/png" in output.get("data", {}):
            output.metadata["image/png"]["alt"] = alt
    if not hash_:
        del cells[0].metadata["regression"]
    assert any(said in complaint for complaint in lint_lessons.complaints(notebook))


@pytest.mark.parametrize(
    "output",
    [
        "/home/ada/a.keras",
        "saved:\n/Users/ada/a",
        "saved\t/data/a",
        "C:\\Users\\ada",
        "file:///mnt/a",
    ],
)
def test_an_output_names_no_path(output):
    notebook = nbformat.read(LESSONS[1], as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for found in [
        nbformat.v4.new_output("stream", text=output),
        nbformat.v4.new_output("execute_result", {"text/html": f"<b>\n{output}</b>"}),
    ]:
        cell.outputs = [found]
        assert any("a path that only one" in each for each in lint_lessons.complaints(notebook))


def test_the_command_names_the_notebook_and_fails(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    copy = tmp_path / "notebooks" / "broken.ipynb"
    notebook = nbformat.read(LESSONS[1], as_version=4)
    notebook.cells[0].source = "# Load data"
    nbformat.write(notebook, copy)
    command = [sys.executable, lint_lessons.__file__, LESSONS[1], copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{copy}: it does not begin with a title and **About N minutes",
        f"{copy}: there is no 'When you have finished, you can'",
    ]


def test_lessons_print_numbers_instead_of_verdicts():
    # A bare True or False does not convince readers, who need to see the numbers behind it.
    lines = verdicts = 0
    for lesson in LESSONS:
        for _, cell in lint_lessons.code_cells(nbformat.read(lesson, as_version=4)):
            for output in cell.outputs:
                text = output.get("text") or output.get("data", {}).get("text/plain", "")
                printed = [line for line in text.splitlines() if line.strip()]
                lines += len(printed)
                verdicts += sum(bool(re.search(r"\b(True|False)\b", line)) for line in printed)
    assert verdicts < 0.02 * lines, f"{verdicts} of {lines} printed lines contain True or False"


def test_something_learns_within_a_quarter_of_an_hour():
    before = []
    for lesson in LESSONS:
        for cell in nbformat.read(lesson, as_version=4).cells:
            before.append(cell)
            if cell.cell_type == "code" and ".fit(" in cell.source:
                assert lint_lessons.minutes(before) <= 15
                return
    pytest.fail("no lesson trains a model")


def test_the_readme_leads_to_each_lesson():
    readme = (ROOT / "README.md").read_text()
    assert [lesson.name for lesson in LESSONS if f"(notebooks/{lesson.name})" not in readme] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("(02_load_data.ipynb)", "(03_build_a_model.ipynb)"), "to the next lesson"),
        (("(02_load_data.ipynb)", "(02_load.ipynb)"), "leads nowhere"),
        (("(glossary.md#", "(glossary.md#no-"), "leads to no heading"),
        (("[*label*]", "[]"), "has no text"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(change, said, tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=lambda *_: ["images"])
    lesson = tmp_path / "notebooks" / LESSONS[1].name
    text = lesson.read_text()
    assert change[0] in text
    lesson.write_text(text.replace(*change))
    assert any(said in complaint for complaint in lint_lessons.links(lesson))


def test_tables_of_lessons_give_the_minutes_that_each_lesson_says():
    said = {}
    for path in LESSONS:
        page = nbformat.read(path, as_version=4).cells[0].source
        said[path.name[:2]] = re.search(r"\*\*About (\d+) minutes", page)[1]
    front = (ROOT / "docs" / "index.md").read_text()
    assert dict(re.findall(r"^\| \[(\d\d) .*\| (\d+) \|$", front, re.M)) == said
    guide = (ROOT / "docs" / "instructors.md").read_text()
    plan = re.findall(r"^\| \d+ \| (\d\d[^|]*)\|(?:[^|]*\|)?? ([\d +]+) min \|", guide, re.M)
    assert len(plan) > 15
    for lessons, minutes in plan:
        assert [said[name] for name in re.findall(r"\b\d\d\b", lessons)] == minutes.split(" + ")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "yes"),
        ({"image_data_format": "channels_last", "floatx": "float32"}, "yes"),
        ({"image_data_format": "channels_first"}, "NO"),
        ({"floatx": "float16"}, "NO"),
        ({"floatx": "float64"}, "NO"),
    ],
)
def test_lesson_00_notices_keras_settings_of_another_course(settings, says, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    lesson = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    cells = [cell.source for cell in lesson.cells if cell.cell_type == "code"]
    check = next(source for source in cells if "Keras' usual settings" in source)
    run = subprocess.run(
        [sys.executable, "-c", f"import tensorflow as tf\ngpus = []\n{check}"],
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"Keras' usual settings      {says}" in run.stdout

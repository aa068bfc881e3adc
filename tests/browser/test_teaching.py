"""Teach a class of three, from the first attempt to the grades in the learning platform."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pytest
from hubs import Hub, run_cell, wait_until
from lab import menu, wait_for_kernel
from learning_platform import TEACHER, Platform, PlatformLearner, start
from playwright.sync_api import Browser, Page, expect
from visitor import Visitor

from tfcourse.exercises import EXERCISES, SOLUTIONS

LESSON = "03_build_a_model"
FOLDER = "tensorflow-course/exercises"


@pytest.fixture
def platform() -> Iterator[Platform]:
    """Start the stand-in for a learning platform."""
    platform = Platform()
    yield platform
    platform.stop()


def test_a_class_of_three(browser: Browser, make_hub, platform, tmp_path: Path):
    """Also save a screenshot of each step in pytest's temporary folder (see `--basetemp`)."""
    hub: Hub = make_hub()
    start(hub, platform, tmp_path)
    pictures = (tmp_path / f"{number:02}.png" for number in range(99))
    ada, bob, cy, teacher = (
        PlatformLearner(hub, platform, name) for name in ("ada", "bob", "cy", TEACHER)
    )
    desk = teacher.open(browser)
    visitor = Visitor(desk, hub)
    desk.goto(f"{hub.url}/hub/class")
    expect(desk.get_by_role("row", name=re.compile("^cy not started"))).to_be_visible()
    desk.screenshot(path=next(pictures))

    # Ada solves all exercises. The teacher's open page shows it.
    ada.start_server()
    path = f"{FOLDER}/{LESSON}.ipynb"
    solve(ada, path)
    lab = ada.open(browser)
    lab.goto(f"{hub.url}/user/ada/lab/tree/{path}")
    wait_for_kernel(lab)
    menu(lab, "Run", "Run All Cells")
    expect(lab.locator(".course-progress")).to_have_text("Lesson 03 · 3 of 3", timeout=60_000)
    lab.screenshot(path=next(pictures))
    expect(desk.get_by_role("row", name=re.compile("^ada.*3.3"))).to_be_visible()

    # Bob runs the same check again and again. The teacher sees where he is stuck, and why.
    bob.start_server()
    session = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
    kernel = bob.api("POST", "/user/{name}/api/sessions", json=session).json()["kernel"]["id"]
    cells = nbformat.read(EXERCISES / f"{LESSON}.ipynb", 4).cells
    for cell in cells:
        if cell.cell_type == "code" and not cell.id.startswith("budget"):
            run_cell(bob, kernel, cell.source)
    for parameters in range(5):
        run_cell(bob, kernel, f"check_count(lambda sizes: {parameters})")
    expect(desk.get_by_role("heading", name="Stuck")).to_be_visible()
    expect(desk.get_by_role("listitem").filter(has_text="bob")).to_contain_text("5 attempts")
    desk.screenshot(path=next(pictures), full_page=True)

    # The teacher opens an assignment. Ada hands in with the button.
    desk.get_by_role("link", name="Assignments").click()
    desk.get_by_label("Title").fill("Week 2")
    desk.get_by_label("03 Build a model").check()
    desk.get_by_label("Due").fill("2101-01-01T12:00")
    desk.screenshot(path=next(pictures))
    desk.get_by_role("button", name="Create").click()
    desk.get_by_role("link", name="Week 2").click()
    lab.reload()
    lab.get_by_role("button", name="Hand in").click()
    expect(lab.get_by_role("dialog")).to_contain_text("was handed in for “Week 2” on")
    lab.screenshot(path=next(pictures))
    lab.get_by_role("dialog").get_by_role("button", name="Close").click()

    # The deadline passes. Bob hands in late, with the command, and Ada once more.
    soon = datetime.now(UTC) + timedelta(seconds=20)
    form = {"due_utc": soon.isoformat(), "_xsrf": xsrf(desk)}
    number = desk.url.rpartition("/")[2]
    url = f"{hub.url}/hub/assignments/{number}"
    assert desk.request.post(url, form=form).ok
    wait_until(lambda: datetime.now(UTC) > soon, "the deadline has passed")
    said = run_cell(bob, kernel, f"!hand-in {LESSON}.ipynb; hand-in")
    assert "was handed in for “Week 2”" in said
    assert ", late" in said
    lab.get_by_role("button", name="Hand in").click()
    expect(lab.get_by_role("dialog")).to_contain_text(", late")
    lab.get_by_role("dialog").get_by_role("button", name="Close").click()
    desk.goto(url)
    expect(desk.get_by_role("row", name=re.compile("^bob.*late"))).to_be_visible()
    expect(desk.get_by_role("row", name=re.compile("^cy "))).to_be_visible()
    desk.screenshot(path=next(pictures), full_page=True)

    # The teacher counts what was on time, grades, comments and gives back.
    visitor.look("Week 2")
    desk.get_by_role("button", name="Count the notebooks that were on time").click()
    expect(desk.get_by_role("row", name=re.compile("^ada.*late, does not count"))).to_be_visible()
    desk.get_by_role("button", name="Grade", exact=True).click()
    expect(desk.get_by_role("progressbar")).to_be_visible()
    desk.screenshot(path=next(pictures), full_page=True)
    graded = desk.get_by_role("row", name=re.compile("^ada.*3 of 3 right"))
    expect(graded).to_be_visible(timeout=180_000)
    desk.get_by_role("link", name="bob").click()
    desk.get_by_label("Your comment on lesson 03").fill("Come and see me: we count them together.")
    desk.screenshot(path=next(pictures), full_page=True)
    desk.get_by_role("button", name="Save").click()
    desk.get_by_role("button", name="Give back").click()
    expect(desk.get_by_text("Learners can see their grades")).to_be_visible()

    # Ada reads her feedback in JupyterLab, and Bob his on the hub's page.
    lab.reload()
    expect(lab.get_by_text("Your feedback for “Week 2”")).to_be_visible()
    lab.get_by_role("button", name="Open", exact=True).click()
    feedback = lab.locator(".jp-MarkdownViewer")
    expect(feedback.get_by_text("3 of 3 right")).to_be_visible()
    lab.screenshot(path=next(pictures))
    page = bob.open(browser, color_scheme="dark", viewport={"width": 360, "height": 740})
    page.goto(f"{hub.url}/hub/assignments")
    expect(page.get_by_text("0 of 3 right")).to_be_visible()
    expect(page.get_by_text("Come and see me: we count them together.")).to_be_visible()
    page.screenshot(path=next(pictures), full_page=True)

    # The grades are in the table, and in the learning platform.
    with desk.expect_download() as download:
        desk.get_by_role("link", name="Download the grades").click()
    content = download.value.path().read_text("utf-8-sig")
    rows = [(row["username"], row["total"]) for row in csv.DictReader(io.StringIO(content))]
    assert rows == [("ada", "3"), ("bob", "0")]
    desk.get_by_role("button", name="Send the grades to your learning platform").click()
    expect(desk.get_by_role("alert")).to_have_text("Sent the grades of 2 learners.")
    visitor.look("Week 2")
    desk.screenshot(path=next(pictures), full_page=True)
    assert {user: score["scoreGiven"] for (_, user), score in platform.scores.items()} == {
        "ada": 3,
        "bob": 0,
    }
    assert cy.name not in {user for _, user in platform.scores}


def solve(learner: PlatformLearner, path: str) -> None:
    """Put our answers into a learner's notebook."""
    url = f"/user/{learner.name}/api/contents/{path}"
    notebook = learner.api("GET", url).json()
    solutions = nbformat.read(SOLUTIONS / f"{LESSON}.ipynb", 4).cells
    answers = {cell.id: cell.source for cell in solutions if cell.id.endswith("-answer")}
    for cell in notebook["content"]["cells"]:
        cell["source"] = answers.get(cell["id"], cell["source"])
    learner.api("PUT", url, json=notebook).raise_for_status()


def xsrf(page: Page) -> str:
    """Return the token in the page's forms."""
    return page.locator("input[name=_xsrf]").first.get_attribute("value")

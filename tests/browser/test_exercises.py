"""Do an exercise in JupyterLab, and see it counted."""

from __future__ import annotations

import nbformat
from hubs import Hub, Learner
from lab import enter, menu, wait_for_kernel
from playwright.sync_api import Page, expect

from tfcourse.exercises import SOLUTIONS

LESSON = "03_build_a_model"


def test_the_status_bar_counts_the_exercises_that_are_done(page: Page, hub: Hub):
    learner = Learner(hub, "badge")
    learner.start_server()
    path = f"/user/badge/api/contents/tensorflow-course/exercises/{LESSON}.ipynb"
    notebook = learner.api("GET", path).json()
    solutions = nbformat.read(SOLUTIONS / f"{LESSON}.ipynb", 4).cells
    (answer,) = (cell.source for cell in solutions if cell.id == "count-answer")
    for cell in notebook["content"]["cells"]:
        if cell["id"] == "count-answer":
            cell["source"] = answer
    learner.api("PUT", path, json=notebook).raise_for_status()

    enter(page, learner, f"tensorflow-course/exercises/{LESSON}.ipynb", "badge")
    badge = page.locator(".course-progress")
    expect(badge).to_have_text("Lesson 03 · 0 of 3")
    wait_for_kernel(page)
    menu(page, "Run", "Run All Cells")
    expect(badge).to_have_text("Lesson 03 · 1 of 3", timeout=60_000)
    with page.context.expect_page() as opened:
        badge.click()
    expect(opened.value.get_by_role("heading", level=1)).to_have_text("Your progress")
    expect(opened.value.get_by_text("2. Count the parameters")).to_be_visible()

    page.bring_to_front()
    page.goto(page.url.replace(f"exercises/{LESSON}", "00_start_here"))
    expect(page.locator(".jp-Notebook")).to_be_visible()
    expect(badge).to_be_hidden()
    learner.stop_server()

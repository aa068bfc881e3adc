"""Do an exercise in JupyterLab, and see it counted."""

from __future__ import annotations

import hashlib
import re

import nbformat
from classroom import give_back, opened, table, upload_grades, with_teacher
from hubs import Hub, Learner, post
from jupyterhub import orm
from lab import enter, menu, wait_for_kernel
from playwright.sync_api import Page, expect

from tfcourse.exercises import SOLUTIONS
from tfcourse.hub.classroom import grades

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


def test_a_notebook_is_handed_in_with_the_button_above_it(page: Page, make_hub):
    hub = with_teacher(make_hub())
    number = opened(hub, hub.teacher, "Week 2", LESSON)
    learner = Learner(hub, "ada")
    learner.start_server()

    enter(page, learner, f"tensorflow-course/exercises/{LESSON}.ipynb", "ada")
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.type("# My own words.")
    button = page.get_by_role("button", name="Hand in")
    button.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("was handed in for “Week 2” on")
    dialog.get_by_role("button", name="Close").click()
    mine = learner.session.get(f"{hub.url}/hub/assignments").text
    taken = learner.session.get(hub.url + re.search(r"/hub/submissions/\d+", mine)[0])
    assert "My own words." in taken.text, "the notebook is saved first"

    url = f"{hub.url}/hub/assignments/{number}"
    comment = {f"comment-{LESSON}": "Well done, *ada*."}
    post(hub.teacher, f"{url}/of/ada", data=comment).raise_for_status()
    give_back(hub, number)
    page.reload()
    told = page.get_by_text("Your feedback for “Week 2” is in 03_build_a_model.feedback.md.")
    told.wait_for()
    page.get_by_role("button", name="Open", exact=True).click()
    feedback = page.locator(".jp-MarkdownViewer")
    expect(feedback.get_by_role("heading", level=1)).to_contain_text(f"Feedback on {LESSON}")
    expect(feedback.get_by_text("Well done, *ada*.")).to_be_visible()
    lab = f"{hub.url}/user/ada/lab/workspaces/again/tree"
    page.goto(f"{lab}/tensorflow-course/exercises/{LESSON}.ipynb?reset")
    expect(button).to_be_visible()
    expect(told).to_be_hidden()  # it is shown once

    # Grades are new. After the learner hands in again, the comment remains, which is not new.
    digest = hashlib.sha256(taken.content).hexdigest()
    path = grades.path_in_archive(orm.User(name="ada"), LESSON, digest)
    upload_grades(hub, number, table(f"{path},{LESSON},count,1,")).raise_for_status()
    page.reload()
    told.wait_for()
    button.click()
    dialog.get_by_role("button", name="Close").click()
    page.reload()
    expect(button).to_be_visible()
    expect(told).to_be_hidden()

    page.route(re.compile("/course/hand-in"), lambda route: route.abort())
    button.click()
    expect(dialog).to_contain_text("Your notebook may not have been handed in")
    dialog.get_by_role("button", name="Close").click()
    page.unroute(re.compile("/course/hand-in"))

    form = {"delete": "yes", "title": "Week 2"}
    post(hub.teacher, url, data=form).raise_for_status()
    button.click()
    expect(dialog).to_contain_text("No assignment includes 03_build_a_model.ipynb")
    hub.stop()


def test_a_lesson_has_no_button(page: Page, hub: Hub):
    learner = Learner(hub, "nobutton")
    learner.start_server()
    enter(page, learner, "tensorflow-course/exercises/05_loss.ipynb", "nobutton")
    expect(page.locator(".course-progress")).to_contain_text("Lesson 05")
    expect(page.get_by_role("button", name="Hand in")).to_have_count(0)
    learner.stop_server()

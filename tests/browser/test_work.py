"""Test in a real browser that JupyterLab neither loses work nor runs strangers' scripts."""

from __future__ import annotations

import json
import re

import pytest
from hubs import Hub, Learner
from lab import enter
from playwright.sync_api import Browser, Page, Response, expect

from tfcourse.hub.spawners.lessons import FOLDER

ATTACK = "document.documentElement.dataset.attacked = 1"
ATTACKED = "html[data-attacked]"
TAGS = (
    f'<script>{ATTACK}</script><img src="x" onerror="{ATTACK}"><a href="javascript:{ATTACK}">x</a>'
)


@pytest.fixture(scope="module")
def learner(hub: Hub) -> Learner:
    """Return a learner whose server is running on the local hub."""
    learner = Learner(hub, "careful")
    learner.start_server()
    return learner


def put(learner: Learner, path: str, cells: list[dict]) -> None:
    """Upload a notebook as plain text, so that JupyterLab does not mark it as trusted."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    file = {"type": "file", "format": "text", "content": json.dumps(notebook)}
    learner.api("PUT", f"/user/{{name}}/api/contents/{path}", json=file).raise_for_status()


def text(learner: Learner, path: str) -> str:
    response = learner.api("GET", f"/user/{{name}}/api/contents/{path}")
    return response.json()["content"]["cells"][0]["source"]


def append(page: Page, words: str) -> None:
    """Append text to the first cell and save the notebook."""
    page.locator(".jp-Cell .cm-content").first.click()
    page.keyboard.press("Control+End")
    page.keyboard.type(words)
    page.keyboard.press("Control+s")


def test_two_devices_do_not_overwrite_each_other_in_silence(page, learner):
    put(learner, "both.ipynb", [{"cell_type": "raw", "id": "a", "metadata": {}, "source": "."}])
    browser: Browser = page.context.browser
    other = browser.new_context().new_page()
    enter(page, learner, "both.ipynb", "one")
    enter(other, learner, "both.ipynb", "two")

    def saved(reply: Response) -> bool:
        return reply.request.method == "PUT" and "both" in reply.url

    with page.expect_response(saved):
        append(page, "first")
    assert text(learner, "both.ipynb") == ".first"
    append(other, "second")
    dialog = other.get_by_role("dialog")
    expect(dialog).to_contain_text("changed on disk")
    assert text(learner, "both.ipynb") == ".first"  # not overwritten until the learner decides
    expect(dialog.get_by_role("button", name=re.compile("Revert"))).to_be_visible()
    with other.expect_response(saved):
        dialog.get_by_role("button", name=re.compile("Overwrite")).click()
    expect(dialog).to_have_count(0)
    other.context.close()
    assert text(learner, "both.ipynb") == ".second"


def test_a_strangers_notebook_runs_no_script(page, learner):
    """Open a notebook as an instructor would open a learner's submission."""
    outputs = [
        {"output_type": "display_data", "metadata": {}, "data": {kind: content}}
        for kind, content in [
            ("text/html", TAGS),
            ("application/javascript", ATTACK),
            ("image/svg+xml", f'<svg xmlns="http://www.w3.org/2000/svg" onload="{ATTACK}"/>'),
        ]
    ]
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"Read me {TAGS}"},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": "1", "execution_count": 1}
        | {"outputs": outputs},
    ]
    name = f"<img src=x onerror={ATTACK.replace(' ', '')}>.ipynb"
    put(learner, name, cells)
    put(learner, "stranger.ipynb", cells)
    enter(page, learner, "stranger.ipynb", "three")
    expect(page.locator(".jp-MarkdownOutput")).to_contain_text("Read me")
    expect(page.locator(".jp-OutputArea-child").first).to_be_attached()
    expect(page.get_by_role("listitem", name=re.compile("onerror"))).to_be_visible()
    page.wait_for_load_state("networkidle")
    expect(page.locator(ATTACKED)).to_have_count(0)
    assert page.locator("script", has_text="attacked").count() == 0
    # Verify that the attack itself works: once the notebook is trusted, its scripts run.
    learner.api("POST", "/user/{name}/api/contents/stranger.ipynb/trust").raise_for_status()
    page.reload()
    expect(page.locator(ATTACKED)).to_have_count(1)
    # An HTML file can run scripts, but only in a sandboxed origin without cookies.
    file = {"type": "file", "format": "text", "content": TAGS}
    learner.api("PUT", "/user/{name}/api/contents/x.html", json=file).raise_for_status()
    response = page.request.get(f"{learner.hub.url}/user/careful/files/x.html")
    assert "sandbox" in response.headers["content-security-policy"]


def test_a_learner_is_told_what_keeps_lessons_from_being_updated(page, hub):
    learner = Learner(hub, "hindered")
    lessons = hub.state / "homes" / "hindered" / FOLDER
    names = ["05_loss", "06_compile_and_fit", "07_evaluate_and_predict"]
    for name in names:
        (lessons / f"{name}.ipynb").mkdir(parents=True)
    learner.start_server()
    enter(page, learner, f"{FOLDER}/00_start_here.ipynb", "four")
    notice = page.get_by_role("alert").filter(has_text="Your lessons are not up to date")
    expect(notice).to_contain_text("Rename it, then restart your server.")
    notice.get_by_role("button", name="Read all").click()
    dialog = page.get_by_role("dialog").filter(has_text="About your server")
    for name in names:
        expect(dialog).to_contain_text(f"{name}.ipynb")
    dialog.get_by_role("button", name="Close").click()
    learner.stop_server()

    # After the folders are removed, the next server start updates the lessons without a notice.
    for name in names:
        (lessons / f"{name}.ipynb").rmdir()
    learner.start_server()
    page.goto("about:blank")
    enter_again = f"{hub.url}/user/hindered/lab/workspaces/five/tree/{FOLDER}/05_loss.ipynb?reset"
    page.goto(enter_again)
    expect(page.locator(".jp-Notebook")).to_be_visible()
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("alert")).to_have_count(0)
    learner.stop_server()

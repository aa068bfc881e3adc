"""Use JupyterLab in a browser, as a learner would.

An `account` has two attributes: `url`, the hub's URL, and `user`, the user name.
"""

from __future__ import annotations

import re
import time

from playwright.sync_api import Page, expect


def open_lesson(page: Page, lesson: str) -> None:
    page.get_by_role("listitem", name=re.compile(lesson)).dblclick()
    page.wait_for_url(f"**/{lesson}*")
    wait_for_kernel(page)


def enter(page: Page, learner, path: str, workspace: str, heading: str = "") -> None:
    """Log in as a learner whose server is running, and open a file in a separate workspace."""
    page.goto(learner.hub.url)
    page.get_by_label("Username").fill(learner.name)
    page.get_by_label("Password").fill(learner.hub.password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/user/{learner.name}/**", wait_until="commit")
    home = f"{learner.hub.url}/user/{learner.name}"
    page.goto(f"{home}/lab/workspaces/{workspace}/tree/{path}?reset#{heading}")
    expect(page.locator(".jp-Notebook")).to_be_visible()


def wait_for_kernel(page: Page) -> None:
    # The status bar shows the state of the active notebook's kernel.
    expect(page.get_by_title(re.compile("Change kernel for"))).to_have_text(
        re.compile(r"Python 3.* \| Idle"), timeout=60_000
    )


def run_all_cells(page: Page, account, lesson: str) -> None:
    """Clear the stored outputs, then run all cells, so that every output is new."""
    menu(page, "Edit", "Clear Outputs of All Cells")
    assert not any(
        cell["outputs"] or cell["execution_count"] for cell in save(page, account, lesson)
    )
    menu(page, "Run", "Run All Cells")


def menu(page: Page, name: str, item: str) -> None:
    page.get_by_role("menuitem", name=name, exact=True).click()
    page.get_by_role("menuitem", name=item, exact=True).click()


def save(page: Page, account, lesson: str) -> list[dict]:
    """Save the open lesson; return its code cells as stored on disk."""
    url = f"{account.url}/user/{account.user}/api/contents/tensorflow-course/{lesson}"
    with page.expect_response(lambda reply: reply.request.method == "PUT" and lesson in reply.url):
        page.keyboard.press("Control+s")
    cells = page.request.get(url).json()["content"]["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def wait_for_cells(page: Page, account, lesson: str) -> list[dict]:
    """Wait until all code cells have run, then return them. Fail immediately if a cell fails."""
    deadline = time.monotonic() + 300
    while True:
        cells = save(page, account, lesson)
        for cell in cells:
            for output in cell["outputs"]:
                assert output["output_type"] != "error", output["traceback"]
                assert output.get("name") != "stderr", output["text"]
        if all(cell["execution_count"] for cell in cells):
            return cells
        assert time.monotonic() < deadline, "the lesson did not finish in time"
        page.wait_for_timeout(1000)


def texts(cell: dict) -> list[str]:
    """Return the text of each output of a cell."""
    return [
        output["text"] if "text" in output else output["data"].get("text/plain", "")
        for output in cell["outputs"]
    ]

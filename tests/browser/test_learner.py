"""What a learner does in the first ten minutes, in a real browser at a real hub."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Page, expect

LESSON = "01_load_data.ipynb"
SHAPES = ("(60000, 28, 28)", "(10000, 28, 28)")


def test_a_learner_logs_in_starts_an_environment_and_runs_a_lesson(page, account, screenshot):
    log_in(page, account, screenshot)
    start(page, screenshot)
    open_lesson(page, account)
    run_all_cells(page, account)
    cells = wait_for_cells(page, account)
    said = "".join(text for cell in cells for text in texts(cell))
    for shape in SHAPES:
        assert shape in said
    # What the learner sees is what was saved.
    seen = page.locator(".jp-OutputArea-output", has_text=SHAPES[0]).first
    seen.scroll_into_view_if_needed()
    expect(seen).to_be_visible()
    screenshot("run")
    # Once its scripts are there: before that, a button does nothing.
    page.goto(f"{account.url}/hub/home", wait_until="networkidle")
    page.get_by_role("button", name="Stop My Server").click()
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible()


def log_in(page: Page, account, screenshot) -> None:
    page.goto(account.url)
    expect(page.get_by_label("Username")).to_be_focused()
    screenshot("login", height=370)
    page.keyboard.type(account.user)
    page.keyboard.press("Tab")
    page.keyboard.type(account.password)
    page.keyboard.press("Enter")


def start(page: Page, screenshot) -> None:
    """Choose the environment with the keyboard alone."""
    environments = page.get_by_role("group", name="Choose an environment")
    choice = environments.get_by_role("radio", name="TensorFlow (CPU)")
    expect(choice).to_be_checked()
    expect(choice).to_be_focused()
    expect(choice).to_have_accessible_description(re.compile("every lesson"))
    screenshot("picker", height=370)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Start")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/lab/tree/tensorflow-course/00_start_here.ipynb*", timeout=120_000)
    wait_for_kernel(page)
    # Neither news nor questions come up.
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)
    screenshot("lab")


def open_lesson(page: Page, account) -> None:
    page.get_by_role("listitem", name=re.compile(LESSON)).dblclick()
    page.wait_for_url(f"**/{LESSON}*")
    wait_for_kernel(page)


def wait_for_kernel(page: Page) -> None:
    # The status bar speaks for the notebook in front.
    expect(page.get_by_title(re.compile("Change kernel for"))).to_have_text(
        re.compile(r"Python 3.* \| Idle"), timeout=60_000
    )


def run_all_cells(page: Page, account) -> None:
    """Take the stored outputs away first: all that is there afterwards comes from this run."""
    menu(page, "Edit", "Clear Outputs of All Cells")
    assert not any(cell["outputs"] or cell["execution_count"] for cell in save(page, account))
    menu(page, "Run", "Run All Cells")


def menu(page: Page, name: str, item: str) -> None:
    page.get_by_role("menuitem", name=name, exact=True).click()
    page.get_by_role("menuitem", name=item, exact=True).click()


def save(page: Page, account) -> list[dict]:
    """Save the lesson in front; return its code cells as they then are on disk."""
    url = f"{account.url}/user/{account.user}/api/contents/tensorflow-course/{LESSON}"
    with page.expect_response(lambda reply: reply.request.method == "PUT" and LESSON in reply.url):
        page.keyboard.press("Control+s")
    cells = page.request.get(url).json()["content"]["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def wait_for_cells(page: Page, account) -> list[dict]:
    """Return the code cells, all of them run; fail as soon as one has failed."""
    deadline = time.monotonic() + 300
    while True:
        cells = save(page, account)
        for cell in cells:
            for output in cell["outputs"]:
                assert output["output_type"] != "error", output["traceback"]
                assert output.get("name") != "stderr", output["text"]
        if all(cell["execution_count"] for cell in cells):
            return cells
        assert time.monotonic() < deadline, "the lesson did not end"
        page.wait_for_timeout(1000)


def texts(cell: dict) -> list[str]:
    """Return what a cell has printed."""
    return [
        output["text"] if "text" in output else output["data"].get("text/plain", "")
        for output in cell["outputs"]
    ]

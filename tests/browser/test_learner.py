"""Test a learner's first ten minutes, in a real browser on a real hub."""

from __future__ import annotations

import re

from lab import open_lesson, run_all_cells, texts, wait_for_cells, wait_for_kernel
from playwright.sync_api import Page, expect

LESSON = "02_load_data.ipynb"
SHAPES = ("(60000, 28, 28)", "(10000, 28, 28)")


def test_a_learner_logs_in_starts_an_environment_and_runs_a_lesson(page, account, screenshot):
    log_in(page, account, screenshot)
    start(page, screenshot)
    open_lesson(page, LESSON)
    run_all_cells(page, account, LESSON)
    cells = wait_for_cells(page, account, LESSON)
    said = "".join(text for cell in cells for text in texts(cell))
    for shape in SHAPES:
        assert shape in said
    # The saved output is also visible on the page.
    seen = page.locator(".jp-OutputArea-output", has_text=SHAPES[0]).first
    seen.scroll_into_view_if_needed()
    expect(seen).to_be_visible()
    screenshot("run", middle=seen)
    # Wait for the page's scripts; until they have loaded, the button does nothing.
    page.goto(f"{account.url}/hub/home", wait_until="networkidle")
    page.get_by_role("button", name="Stop My Server").click()
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible()


def log_in(page: Page, account, screenshot) -> None:
    page.goto(account.url)
    expect(page.get_by_label("Username")).to_be_focused()
    screenshot("login", height=640)
    page.keyboard.type(account.user)
    page.keyboard.press("Tab")
    page.keyboard.type(account.password)
    page.keyboard.press("Enter")


def start(page: Page, screenshot) -> None:
    """Choose and start the environment, using only the keyboard."""
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
    # JupyterLab neither shows news nor opens a dialog.
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)
    screenshot("lab")

"""Start a hub with `make up`, then test it in a browser, from sign-up to a finished lesson."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from hubs import PASSWORD, wait_until
from lab import open_lesson, run_all_cells, texts, wait_for_cells, wait_for_kernel
from playwright.sync_api import Browser, Page, expect

LESSON = "04_logits_and_softmax.ipynb"


def test_from_sign_up_to_a_finished_lesson(browser: Browser, new_hub, tmp_path: Path):
    """Also save a screenshot of each step in pytest's temporary folder (see `--basetemp`)."""
    hub = new_hub()
    hub.up()
    pictures = (tmp_path / f"{number:02}.png" for number in range(99))
    instructor, ada = (browser.new_context().new_page() for _ in range(2))

    ada.goto(hub.url)
    ada.get_by_role("link", name="Sign up").click()
    ada.get_by_label("User name").fill("ada")
    ada.get_by_label("Password", exact=True).fill(PASSWORD)
    ada.get_by_label("The same password again").fill(PASSWORD)
    ada.screenshot(path=next(pictures))
    ada.get_by_role("button", name="Sign up").click()
    expect(ada.get_by_role("alert")).to_contain_text("once your instructor lets you in")
    ada.screenshot(path=next(pictures))

    instructor.goto(hub.url)
    log_in(instructor, "instructor", hub.admin_password)
    instructor.get_by_role("link", name="Who may come in").click()
    instructor.screenshot(path=next(pictures))
    instructor.get_by_role("button", name="Let in ada").click()
    expect(instructor.get_by_role("heading", name="May come in (2)")).to_be_visible()
    instructor.get_by_role("link", name="Announcement").click()
    instructor.get_by_label("One line").fill("Lesson 04 today")
    instructor.get_by_role("button", name="Announce").click()
    expect(instructor.locator("strong", has_text="Lesson 04 today")).to_be_visible()

    ada.get_by_role("link", name="Sign in").first.click()
    log_in(ada, "ada", PASSWORD)
    expect(ada.get_by_text("Lesson 04 today")).to_be_visible()
    ada.screenshot(path=next(pictures))
    ada.get_by_role("button", name="Start").click()
    ada.wait_for_url("**/lab/tree/tensorflow-course/00_start_here.ipynb*", timeout=120_000)
    wait_for_kernel(ada)
    ada.screenshot(path=next(pictures))
    open_lesson(ada, LESSON)
    account = SimpleNamespace(url=hub.url, user="ada")
    run_all_cells(ada, account, LESSON)
    cells = wait_for_cells(ada, account, LESSON)
    assert any("accuracy" in text for cell in cells for text in texts(cell))
    ada.screenshot(path=next(pictures))

    instructor.get_by_role("link", name="Admin").click()
    row = instructor.get_by_role("row").filter(has_text="ada")
    row.get_by_role("button", name="Stop Server").click()
    expect(row.get_by_role("button", name="Start Server").first).to_be_visible()
    instructor.screenshot(path=next(pictures))
    wait_until(lambda: not hub.servers("ada", all=True), "the container is gone")
    ada.goto(f"{hub.url}/user/ada/lab")
    expect(ada.get_by_role("heading", name="Your server is not running")).to_be_visible()
    ada.screenshot(path=next(pictures))


def log_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password", exact=False).first.fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/hub/login" not in url)

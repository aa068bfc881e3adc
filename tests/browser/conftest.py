from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tfcourse.hub.state import ROOT

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Account:
    """Where the browser goes, and as whom."""

    url: str
    user: str
    password: str


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Account:
    """Return a new learner's account on a hub of our own, or on the one at COURSE_HUB_URL."""
    url = os.environ.get("COURSE_HUB_URL")
    if url:
        user = f"browser-test-{secrets.token_hex(4)}"
        return Account(url.rstrip("/"), user, os.environ["COURSE_HUB_PASSWORD"])
    hub = request.getfixturevalue("hub")
    return Account(hub.url, "learner", hub.password)


@pytest.fixture
def page() -> Iterator[Page]:
    """Return an empty page of a real browser."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not program:
        pytest.skip("there is no Chromium on PATH; on Debian and Ubuntu: apt install chromium")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=[
                # Chromium's sandbox refuses root, as CI and containers often are.
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                # It shall talk to the hub and to nobody else.
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-quic",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.set_default_timeout(60_000)
        yield page
        browser.close()


@pytest.fixture
def screenshot(request: pytest.FixtureRequest, page: Page) -> Callable[..., None]:
    """Return a function that takes a picture for the lessons, if --screenshots asks for them."""

    def take(name: str, height: int = 800) -> None:
        if request.config.getoption("--screenshots"):
            page.mouse.move(640, 799)  # over the status bar, where nothing lights up
            page.screenshot(
                path=ROOT / "notebooks" / "images" / f"{name}.png",
                clip={"x": 0, "y": 0, "width": 1280, "height": height},
                animations="disabled",
            )

    return take

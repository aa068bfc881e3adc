from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page

from tfcourse.hub.state import ROOT


@dataclass
class Account:
    """A hub's URL, with the user name and password of an account that the browser logs in to."""

    url: str
    user: str
    password: str


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Account:
    """Return a learner's account on the hub at COURSE_HUB_URL or, by default, on our test hub."""
    url = os.environ.get("COURSE_HUB_URL")
    if url:
        user = f"browser-test-{secrets.token_hex(4)}"
        return Account(url.rstrip("/"), user, os.environ["COURSE_HUB_PASSWORD"])
    hub = request.getfixturevalue("hub")
    return Account(hub.url, "learner", hub.password)


@pytest.fixture
def screenshot(request: pytest.FixtureRequest, page: Page) -> Callable[..., None]:
    """Return a function that saves screenshots for the lessons if `--screenshots` is given."""

    def take(name: str, height: int = 800, middle: Locator | None = None) -> None:
        if request.config.getoption("--screenshots"):
            if middle:
                middle.evaluate("element => element.scrollIntoView({ block: 'center' })")
                middle.hover()  # waits until the element stops moving
            page.mouse.move(640, 799)  # over the status bar, which ignores the mouse
            page.screenshot(
                path=ROOT / "notebooks" / "images" / f"{name}.png",
                clip={"x": 0, "y": 0, "width": 1280, "height": height},
                animations="disabled",
            )

    return take

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
    """The hub that the browser opens, and the account that it logs in with."""

    url: str
    user: str
    password: str


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Account:
    """Return a new learner's account on our test hub, or on the hub at COURSE_HUB_URL."""
    url = os.environ.get("COURSE_HUB_URL")
    if url:
        user = f"browser-test-{secrets.token_hex(4)}"
        return Account(url.rstrip("/"), user, os.environ["COURSE_HUB_PASSWORD"])
    hub = request.getfixturevalue("hub")
    return Account(hub.url, "learner", hub.password)


@pytest.fixture
def screenshot(request: pytest.FixtureRequest, page: Page) -> Callable[..., None]:
    """Return a function that saves a screenshot for the lessons if `--screenshots` is given."""

    def take(name: str, height: int = 800, middle: Locator | None = None) -> None:
        if request.config.getoption("--screenshots"):
            if middle:
                middle.evaluate("element => element.scrollIntoView({ block: 'center' })")
                middle.hover()  # this waits until the element stops moving
            page.mouse.move(640, 799)  # over the status bar, where nothing reacts to the mouse
            page.screenshot(
                path=ROOT / "notebooks" / "images" / f"{name}.png",
                clip={"x": 0, "y": 0, "width": 1280, "height": height},
                animations="disabled",
            )

    return take

"""Visit a hub's pages in a real browser, and check what every page must have."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from hubs import Site
from playwright.sync_api import Page, expect

COURSE = "TensorFlow in notebooks"


class Visitor:
    """A visitor to a hub. The visitor's browser records all requests and page errors."""

    def __init__(self, page: Page, hub: Site):
        self.page, self.hub = page, hub
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self.hear)

    def hear(self, message) -> None:
        # Ignore the error that the browser logs whenever it shows an error page. Also ignore
        # JupyterLab's errors, which can arrive after the next page has been opened.
        lab, url = f"{self.hub.url}/user/", message.location["url"]
        if message.type == "error" and url != self.page.url and not url.startswith(lab):
            self.complaints.append(message.text)

    def visit(self, path: str) -> None:
        self.page.goto(self.hub.url + path)

    def log_in(self, name: str, password: str) -> None:
        """Log in on the open log-in page, using only the keyboard."""
        self.sign_in(name, password)
        self.page.wait_for_url(lambda url: "/hub/login" not in url)

    def sign_in(self, name: str, password: str) -> None:
        """Fill in and submit the log-in form, using only the keyboard."""
        expect(self.page.get_by_label("Username")).to_be_focused()
        self.type(name, password)
        expect(self.page.get_by_label("Show what I type")).to_be_focused()
        self.press("Tab")
        expect(self.page.get_by_role("button", name="Sign in")).to_be_focused()
        self.press("Enter")

    def start(self) -> None:
        """Press Enter in the open environment picker to start the server."""
        expect(self.page.get_by_role("radio", name="TensorFlow (CPU)")).to_be_focused()
        self.press("Enter")

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def type(self, *texts: str) -> None:
        """Type the texts into consecutive fields, starting with the focused one."""
        for text in texts:
            # Wait until an empty field has focus.
            expect(self.page.locator("input:focus")).to_have_value("")
            self.page.keyboard.type(text)
            self.press("Tab")

    def tab_to(self, role: str, name: str) -> None:
        target = self.page.get_by_role(role, name=name, exact=True)
        for _ in range(40):
            if target.evaluate("target => target === document.activeElement"):
                return
            self.press("Tab")
        pytest.fail(f"the Tab key does not reach {name!r}")

    def look(self, title: str) -> None:
        """Check accessibility, the layout on a phone, and that all files come from the hub."""
        expect(self.page).to_have_title(f"{title} | {COURSE}")
        expect(self.page.get_by_role("heading", level=1)).to_have_count(1)
        elsewhere = (self.hub.url, "data:")
        assert not [url for url in self.asked if not url.startswith(elsewhere)]
        assert not self.complaints
        for scheme in ("dark", "light"):
            # Reduce motion; otherwise, axe might measure colours during a transition.
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            # Axe requests style sheets that do not exist; discard the resulting errors.
            found = Axe().run(self.page).response
            self.complaints.clear()
            assert found["passes"]
            assert not [
                (violation["id"], [node["html"] for node in violation["nodes"]])
                for violation in found["violations"]
                if violation["impact"] in ("serious", "critical")
            ], scheme
        self.page.set_viewport_size({"width": 360, "height": 740})
        assert self.page.evaluate("document.documentElement.scrollWidth") <= 360
        self.page.set_viewport_size({"width": 1280, "height": 800})

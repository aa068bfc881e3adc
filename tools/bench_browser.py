"""Measure how long learners wait in the browser: `make bench-browser`, as root, on an idle machine.

The script compares a stock hub with ours (see bench_hub.py). On each hub, a learner logs in with a
new browser, starts a server, opens lesson 01, runs its first cell, and opens the lesson again. The
connection's speed and latency are limited after the log-in.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import docker
from bench_hub import StockHub, build, in_turn, running

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import chromium
import lab
from hubs import ROOT, ClassHub, ClassLearner, Site, free_ports
from playwright.sync_api import Page, expect, sync_playwright

LESSON = "tensorflow-course/01_the_whole_game.ipynb"


class Traffic:
    """The responses that a page receives over a limited network connection."""

    def __init__(self, page: Page, megabits: float, milliseconds: float):
        self.bytes = self.responses = 0
        protocol = page.context.new_cdp_session(page)
        protocol.send("Network.enable")
        limits = {"offline": False, "latency": milliseconds, "uploadThroughput": megabits * 125_000}
        protocol.send(
            "Network.emulateNetworkConditions", {**limits, "downloadThroughput": megabits * 125_000}
        )
        protocol.on("Network.loadingFinished", self.count)

    def count(self, event: dict) -> None:
        """Count a response, unless it comes from the browser's cache (and has no bytes)."""
        self.bytes += event["encodedDataLength"]
        self.responses += event["encodedDataLength"] > 0

    def taken(self) -> tuple[int, int]:
        """Return the bytes and responses since the last call, and reset both counts."""
        found = self.bytes, self.responses
        self.bytes = self.responses = 0
        return found


def main() -> None:
    """Measure both hubs in turn, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each hub (default: 5)")
    parser.add_argument("--megabits", type=float, default=10, help="of bandwidth (default: 10)")
    parser.add_argument("--milliseconds", type=float, default=40, help="of latency (default: 40)")
    parser.add_argument("--only", nargs="*", help="only these hubs: stock, course")
    options = parser.parse_args()
    engine = docker.from_env(timeout=600)
    hubs: dict[str, Callable[[], Site]] = {
        "stock": partial(StockHub, engine),
        "course": lambda: ClassHub(engine, free_ports()),
    }
    hubs = {name: make for name, make in hubs.items() if not options.only or name in options.only}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in hubs}
    build()
    for number, name, make in in_turn(hubs, options.rounds):
        print(f"round {number}, {name} ...", file=sys.stderr)
        with running(make) as hub:
            results[name].append(measure(hub, options.megabits, options.milliseconds))
    print(f"\n{options.megabits:g} Mbit/s, {options.milliseconds:g} ms; medians\n")
    print("| |", " | ".join(results), "|\n|---|" + "---|" * len(results))
    for what in next(iter(results.values()))[0]:
        medians = [statistics.median(found[what] for found in each) for each in results.values()]
        print(f"| {what} |", " | ".join(f"{median:.2f}" for median in medians), "|")


def measure(hub: Site, megabits: float, milliseconds: float) -> dict[str, float]:
    """Return the time and traffic of opening a lesson and running a cell, then of reopening it."""
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    if isinstance(hub, StockHub):
        bring_lesson(ada)
    ada.stop_server()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.__file__,
            args=["--no-sandbox", "--disable-background-networking"],
        )
        page = browser.new_page()
        page.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        page.goto(f"{hub.url}/hub/login")
        page.get_by_label("Username").fill(ada.name)
        page.get_by_label("Password").first.fill(hub.password)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "/login" not in url)
        traffic = Traffic(page, megabits, milliseconds)
        address = f"{hub.url}/user/ada/lab/tree/{LESSON}"
        began = time.monotonic()
        page.goto(f"{hub.url}/hub/spawn/ada?next=/user/ada/lab/tree/{LESSON}")
        start = page.get_by_role("button", name="Start", exact=True)
        if "/spawn-pending/" not in page.url and start.count():
            began = time.monotonic()
            start.click()
        page.wait_for_url("**/user/ada/lab/**")
        found = {"seconds to JupyterLab's page": time.monotonic() - began}
        expect(page.locator(".jp-CodeCell").first).to_be_visible()
        found["seconds to the lesson"] = time.monotonic() - began
        lab.wait_for_kernel(page)
        found["seconds to its kernel"] = time.monotonic() - began
        run_first_cell(page)
        found["seconds to the first cell's end"] = time.monotonic() - began
        sent, responses = traffic.taken()
        found |= {"first time: MB": sent / 1e6, "first time: responses": responses}
        began = time.monotonic()
        page.goto(address)
        expect(page.locator(".jp-CodeCell").first).to_be_visible()
        found["second time: seconds to the lesson"] = time.monotonic() - began
        page.wait_for_timeout(5000)  # more responses arrive after the lesson is visible
        sent, responses = traffic.taken()
        found |= {"second time: MB": sent / 1e6, "second time: responses": responses}
        browser.close()
    ada.stop_server()
    return found


def bring_lesson(learner: ClassLearner) -> None:
    """Put lesson 01 and the package that it imports into a learner's home, as our hub does."""
    notebooks, folder = ROOT / "notebooks", Path(LESSON).parent
    paths = [notebooks / Path(LESSON).name, *notebooks.glob("interactive/*.py")]
    for path in [folder, folder / "interactive"]:
        learner.api("PUT", f"/user/{{name}}/api/contents/{path}", json={"type": "directory"})
    for path in paths:
        file = {"type": "file", "format": "text", "content": path.read_text()}
        url = f"/user/{{name}}/api/contents/{folder / path.relative_to(notebooks)}"
        learner.api("PUT", url, json=file).raise_for_status()


def run_first_cell(page: Page) -> None:
    cell = page.locator(".jp-CodeCell").first
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[1\]:"))


if __name__ == "__main__":
    main()

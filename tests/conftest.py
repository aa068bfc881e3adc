"""Fixtures for several test folders: real hubs, a browser, and a Docker engine with our images."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import chromium
import docker
import pytest
from hubs import IMAGE, ROOT, ClassHub, Hub, free_ports
from playwright.sync_api import Browser, Error, Page, Playwright, expect, sync_playwright

# A test gets a marker if it uses any of the fixtures listed for that marker.
NEEDS = {
    "docker": {"engine", "image", "new_hub"},
    "browser": {"launch", "browser", "page"},
    "network": {"book"},
    "root": {"podman", "engine_with_gpus"},
}

# Test files that take minutes to run. The slowest one starts first, so that the other pytest
# workers do not have to wait for it at the end.
LONGEST = "test_course.py"
SLOW = {
    LONGEST,
    "test_drills.py",
    "test_exercises.py",
    "test_grading.py",
    "test_load.py",
    "test_proof.py",
}


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark each test with the resources that it needs, so that options like `-m "not docker"` work.

    Skip tests that require root if this process does not run as root.
    """
    for item in items:
        if item.path.name in SLOW:
            item.add_marker("slow")
        for marker, fixtures in NEEDS.items():
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(marker)
        if item.get_closest_marker("root") and os.geteuid():
            item.add_marker(pytest.mark.skip(reason="requires root"))
    yield  # let other plugins run, including pytest's `-m` selection
    items.sort(key=lambda item: item.path.name != LONGEST)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots",
        action="store_true",
        help="let the browser tests save their screenshots in notebooks/images",
    )
    parser.addoption(
        "--restart-engine",
        action="store_true",
        help="let tests/hub/test_engine.py restart this machine's Docker engine",
    )


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Ensure that the processes that a test starts respond to SIGINT (Ctrl-C) and SIGHUP.

    If pytest was started with `nohup` or `&`, it and its child processes might ignore these
    signals.
    """
    ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def make_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Return a function that creates hubs; kill any remaining processes at the end."""
    hubs: list[Hub] = []

    def make() -> Hub:
        hubs.append(Hub(tmp_path_factory.mktemp("state"), free_ports()))
        return hubs[-1]

    yield make
    for hub in hubs:
        for process in hub.processes():
            process.kill()


@pytest.fixture(scope="session")
def hub(make_hub) -> Hub:
    """Return a running hub for tests that do not stop it."""
    hub = make_hub()
    hub.start()
    return hub


@pytest.fixture(scope="session")
def launch() -> Callable[..., Browser]:
    """Return a function that starts Chromium; skip the test if it is not installed."""
    if not chromium.program():
        pytest.skip("Chromium is not on PATH; on Debian and Ubuntu, run `apt install chromium`")

    def start(playwright: Playwright, *arguments: str) -> Browser:
        return playwright.chromium.launch(
            executable_path=chromium.__file__,
            args=[
                # Chromium's sandbox does not work as root, and CI jobs and containers often run as
                # root.
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                # Prevent the browser from contacting anything except the hub.
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-quic",
                "--disable-sync",
                "--no-first-run",
                *arguments,
            ],
        )

    return start


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    """Return a real browser."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a blank page in a new browser context, which shares no cookies with other pages."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """If a browser test fails, report the page's content, because CI keeps no screenshots."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and isinstance(page, Page):
        try:
            shown = page.locator("body").aria_snapshot(timeout=5_000)
        except Error as error:
            shown = f"the page cannot be read: {error.message}"
        report.sections.append((f"the page, {page.url.partition('?')[0]}", shown))
    return report


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """Return a Docker client; skip the test if the engine or the images are not available."""
    client = None
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"this user cannot use a Docker engine: {error}")
    try:
        client.images.get("tensorflow-course:cpu")
    except docker.errors.ImageNotFound:
        pytest.skip("there are no Docker images; first run `make images` (about 10 GB)")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Callable[..., str]:
    """Return a function that builds an image if necessary and returns the image's name.

    The tests use a separate image name so that they do not replace the images that learners'
    servers use.
    """

    @functools.cache
    def build(kind: str, name: str = IMAGE, arguments: str = "") -> str:
        command = ["make", "images", f"KINDS={kind}", f"IMAGE={name}", f"BUILD={arguments}"]
        with open(ROOT / ".course" / "images.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other pytest workers wait here, then skip the build
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        return f"{name}:{kind}"

    return build


@pytest.fixture(scope="module")
def new_hub(engine, image) -> Iterator[Callable[..., ClassHub]]:
    """Return a function that creates hubs; remove the hubs at the end.

    Skip the test if Docker Compose is not installed.
    """
    program = os.environ.get("DOCKER", "docker")
    v2 = subprocess.run([program, "compose", "version"], capture_output=True, check=False)
    if v2.returncode and not shutil.which("docker-compose"):
        pytest.skip("Docker Compose is not installed; on Debian, run `apt install docker-compose`")
    image("cpu"), image("gpu"), image("hub")
    hubs: list[ClassHub] = []

    def new(kind: type[ClassHub] = ClassHub) -> ClassHub:
        hubs.append(kind(engine, free_ports()))
        return hubs[-1]

    yield new
    for hub in hubs:
        hub.remove()

"""What tests of several folders use: a real JupyterHub, and a real Docker engine with our images.

The hub is started as `make hub` starts it, with a state folder of its own.
"""

from __future__ import annotations

import fcntl
import functools
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import psutil
import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots",
        action="store_true",
        help="let the browser test write its pictures to notebooks/images",
    )


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Let what a test starts hear Ctrl-C and hang-up; `nohup` and `&` have them ignored.

    A process inherits what its parent ignores.
    """
    ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


class Hub:
    """A hub that a test can start, use, stop, kill and start again."""

    def __init__(self, state: Path, port: int):
        self.state = state
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def launch(self, **environment: str) -> subprocess.Popen[str]:
        """Start the command; what it prints can be read from the process returned."""
        # Of this process's environment, what concerns the tests stays here.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COURSE_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tfcourse.hub", "--port", str(self.port)],
            cwd=ROOT,
            env={
                **inherited,
                "COURSE_STATE": str(self.state),
                "SECRET_OF_THE_HUB": "which no learner's server may see",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        return self.process

    def start(self, **environment: str) -> str:
        """Start it and wait until it says that it is ready; return what it said."""
        said = ""
        for line in self.launch(**environment).stdout:
            said += line
            if "Ctrl-C" in line:
                self.password = re.search(r"Password +(\S+)", said).group(1)
                return said
        pytest.fail(f"The hub did not start:\n{said}")

    def stop(self, number: int = signal.SIGINT) -> str:
        """Send the signal and wait; return what the hub said to that."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]

    def processes(self) -> list[psutil.Process]:
        """Return all that runs with its state: hub, proxy, servers, kernels."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.state) in " ".join(process.environ().values()):
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def wait_until_gone(self, seconds: float = 15) -> list[psutil.Process]:
        """Return the processes that are left after that time."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def login(self, user: str, password: str | None = None) -> requests.Response:
        """Log in as a browser does; the response has the session, for what comes next."""
        session = requests.Session()
        session.get(f"{self.url}/hub/login", timeout=30)
        data = {"username": user, "password": password or self.password}
        response = session.post(
            f"{self.url}/hub/login", {**data, "_xsrf": session.cookies["_xsrf"]}, timeout=30
        )
        response.session = session
        return response


@pytest.fixture(scope="session")
def make_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Return a function that makes hubs; what is left of them at the end is ended."""
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
    """Return a running hub, shared by the tests that leave it running."""
    hub = make_hub()
    hub.start()
    return hub


def free_ports() -> int:
    """Return the first of three ports that nothing listens on."""
    while True:
        first = random.randrange(20000, 30000)  # below those that the system gives out itself
        with socket.socket() as a, socket.socket() as b, socket.socket() as c:
            try:
                for number, listener in enumerate((a, b, c)):
                    listener.bind(("127.0.0.1", first + number))
            except OSError:
                continue
        return first


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """Return a client of the Docker engine; skip where none answers or the images are missing."""
    client = None
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"there is no Docker engine that we may use: {error}")
    try:
        client.images.get("tensorflow-course:cpu")
    except docker.errors.ImageNotFound:
        pytest.skip("there are no Docker images: run `make images`, of about 10 GB, first")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Callable[..., str]:
    """Return a function that returns an image's name, and builds it unless it is up to date.

    Under a name of the tests' own: learners' servers start from the other one.
    """

    @functools.cache
    def build(kind: str, name: str = "course-test", arguments: str = "") -> str:
        command = ["make", "images", f"KINDS={kind}", f"IMAGE={name}", f"BUILD={arguments}"]
        with open(ROOT / ".course" / "images.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # once, not once for each worker of pytest
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        return f"{name}:{kind}"

    return build

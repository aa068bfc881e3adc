"""Start real hubs for tests, as `make hub` and `make up` do, and act as their learners."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import secrets
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
import websocket
from docker.models.containers import Container

from tfcourse.hub.spawners.names import LABEL, USER

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse 9"

# The name of the images that tests build. Clones that share a Docker engine need different names.
IMAGE = os.environ.get("COURSE_TEST_IMAGE") or "course-test"


class Site:
    """A hub on a local port, with methods that send requests as a browser would."""

    password: str  # The password that learners log in with.
    landing = "/hub/spawn"  # The page that learners see after they log in.

    def __init__(self, port: int):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def admit(self, name: str) -> None:
        """Prepare the hub for a new learner's first log-in. Subclasses may override this method."""

    def answers(self) -> bool:
        """Return whether the hub responds."""
        try:
            return requests.get(f"{self.url}/hub/health", timeout=5).ok
        except requests.RequestException:
            return False

    def session(self) -> requests.Session:
        """Return a session that has opened the log-in page and received its cookies."""
        session = requests.Session()
        session.get(f"{self.url}/hub/login", timeout=30).raise_for_status()
        return session

    def login(self, user: str, password: str | None = None) -> requests.Response:
        """Log in as a browser does; return the response, with the session as an attribute."""
        session = self.session()
        form = {"username": user, "password": password or self.password}
        response = post(session, f"{self.url}/hub/login", data=form)
        response.session = session
        return response

    def sign_up(
        self, name: str, password: str = PASSWORD, again: str | None = None, code: str = ""
    ) -> str:
        """Sign up on a hub that manages its own accounts; return the page's message."""
        session = self.session()
        form = {
            "username": name,
            "signup_password": password,
            "signup_password_confirmation": password if again is None else again,
            "class_code": code,
        }
        page = post(session, f"{self.url}/hub/signup", data=form)
        return " ".join(re.search(r'role="alert">(.*?)</div>', page.text, re.S)[1].split())


def post(session: requests.Session, url: str, **content) -> requests.Response:
    """Post a form or JSON with the token that prevents cross-site request forgery."""
    xsrf = {"_xsrf": session.cookies.get("_xsrf", path="/hub/")}
    return session.post(url, params=xsrf, timeout=60, **content)


class Hub(Site):
    """A hub like the one that `make hub` starts. Tests can start, stop, kill and restart it."""

    def __init__(self, state: Path, port: int):
        super().__init__(port)
        self.state = state

    def launch(self, **environment: str) -> subprocess.Popen[str]:
        """Start the hub with its output piped; return the process."""
        # The hub must not inherit variables that are meant for the tests.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COURSE_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tfcourse.hub.laptop", "--port", str(self.port)],
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
        """Start the hub, wait until it reports that it is ready, and return its output so far."""
        said = ""
        for line in self.launch(**environment).stdout:
            said += line
            if "Ctrl-C" in line:
                self.password = re.search(r"Password +(\S+)", said).group(1)
                return said
        pytest.fail(f"The hub did not start:\n{said}")

    def stop(self, number: int = signal.SIGINT) -> str:
        """Send the signal, wait until the hub exits, and return the rest of its output."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]

    def processes(self) -> list[psutil.Process]:
        """Return the processes that use the hub's state folder: hub, proxy, servers and kernels."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.state) in " ".join(process.environ().values()):
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def wait_until_gone(self, seconds: float = 15) -> list[psutil.Process]:
        """Wait up to `seconds` seconds for all processes to exit; return any that remain."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left


class ClassHub(Site):
    """A hub that `make up` starts, with its own name and port."""

    password = PASSWORD  # for learners' log-ins

    def __init__(self, engine: docker.DockerClient, port: int):
        super().__init__(port)
        self.engine = engine
        self.admin: requests.Session | None = None
        self.name = f"course-test-{secrets.token_hex(4)}"
        # An empty value selects the default, even if the developer's docker/.env has another value.
        lines = (ROOT / "docker" / ".env.example").read_text()
        self.environment = dict.fromkeys(re.findall(r"^#(COURSE_\w+)=", lines, re.M), "")
        self.environment |= {"COURSE_NAME": self.name, "COURSE_PORT": str(port)}
        self.homes = Path(f"/tmp/{self.name}")  # a short path, such as an operator would choose
        self.environment |= {"COURSE_IMAGE": IMAGE, "COURSE_HOMES": str(self.homes)}

    def make(self, target: str, **environment: str) -> str:
        """Run `make TARGET`; return its output."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
        run = subprocess.run(
            ["make", target],
            cwd=ROOT,
            env={**clean, **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr + self.log("hub")
        return run.stdout + run.stderr

    def begin(self, target: str, **environment: str) -> subprocess.Popen[str]:
        """Start `make TARGET` in a new process group, with its output piped; return the process."""
        return subprocess.Popen(
            ["make", target],
            cwd=ROOT,
            env={**os.environ, **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def up(self, **environment: str) -> str:
        """Start the hub; return the output of `make up`."""
        said = self.make("up", **environment)
        if password := re.search(r"Password +(\S+)", said):
            self.admin_password = password[1]
        return said

    def remove(self) -> None:
        """Remove the hub's containers, volumes, network and home directories."""
        # Remove the hub first, so that it does not react to the end of the other containers.
        service = "com.docker.compose.service"
        found = self.containers(all=True)
        for container in sorted(found, key=lambda each: each.labels.get(service) != "hub"):
            with contextlib.suppress(docker.errors.APIError):  # the engine is already removing it
                container.remove(force=True, v=True)
        wait_until(lambda: not self.containers(all=True), "all containers are gone")
        for volume in self.engine.volumes.list(filters={"name": self.name}):
            volume.remove()
        for network in self.engine.networks.list(names=[self.name]):
            network.remove()
        if self.homes.exists():  # other users own some of its files
            delete, folder = ["find", "/homes", "-mindepth", "1", "-delete"], f"{self.homes}:/homes"
            self.engine.containers.run(
                f"{IMAGE}:hub", delete, user="root", volumes=[folder], remove=True
            )
            subprocess.run(["rmdir", self.homes], check=False)  # fails if root owns the folder

    def containers(self, name: str = "", **which: bool) -> list[Container]:
        """Return containers by name (by default, the hub's), except any that are being removed."""
        names = {"name": name or self.name}
        return self.engine.containers.list(filters=names, ignore_removed=True, **which)

    def servers(self, *learners: str, **which: bool) -> list[Container]:
        """Return the containers of the given learners' servers, or of all servers by default."""
        found = self.engine.containers.list(
            filters={"label": f"{LABEL}={self.name}"}, ignore_removed=True, **which
        )
        return [each for each in found if not learners or each.labels.get(USER) in learners]

    def is_healthy(self, **environment: str) -> bool:
        """Run the health check that Docker runs periodically; return whether it passes."""
        container = self.container("hub")
        command = container.attrs["Config"]["Healthcheck"]["Test"]
        assert command[0] == "CMD"
        return container.exec_run(command[1:], environment=environment).exit_code == 0

    def container(self, service: str) -> Container:
        """Find a service's container by label, because its name depends on the Compose version."""
        project = f"com.docker.compose.project={self.name}"
        labels = [project, f"com.docker.compose.service={service}"]
        (container,) = self.engine.containers.list(all=True, filters={"label": labels})
        return container

    def log(self, service: str) -> str:
        try:
            return self.container(service).logs(tail=60).decode()
        except ValueError:
            return f"The service `{service}` has no container."

    def admit(self, name: str) -> None:
        """Sign up a new learner and approve the account."""
        self.sign_up(name)
        self.authorize(name)

    def authorize(self, name: str, let_in: str = "yes") -> requests.Response:
        """Approve or block an account, as the administrator would."""
        home = f"{self.url}/hub/home"
        # Log in again if the session has expired.
        if self.admin is None or self.admin.get(home, timeout=30).url != home:
            self.admin = self.login("instructor", self.admin_password).session
        response = post(self.admin, f"{self.url}/hub/authorize/{name}", data={"let_in": let_in})
        response.raise_for_status()
        return response


class Learner:
    """A learner who is logged in and has a token for the REST API."""

    def __init__(self, hub: Site, name: str, password: str | None = None):
        """Log in. If no password is given, call `admit` first, because the learner is new."""
        self.hub, self.name = hub, name
        if not password:
            hub.admit(name)
        self.response = hub.login(name, password)
        assert self.response.url == hub.url + hub.landing, self.response.text
        self.session = self.response.session
        tokens = f"{hub.url}/hub/api/users/{name}/tokens"
        self.token = post(self.session, tokens, json={}).json()["token"]

    def api(self, method: str, path: str, **content) -> requests.Response:
        headers = {"Authorization": f"token {self.token}"}
        url = self.hub.url + path.format(name=self.name)
        return requests.request(method, url, headers=headers, timeout=60, **content)

    def server(self) -> dict | None:
        return self.api("GET", "/hub/api/users/{name}").json()["servers"].get("")

    def start_server(self, **content) -> None:
        response = self.api("POST", "/hub/api/users/{name}/server", **content)
        assert response.status_code in (201, 202), response.text
        self.wait_for_server()

    def wait_for_server(self) -> None:
        wait_until(lambda: (self.server() or {}).get("ready"), "the server is ready")

    def stop_server(self) -> None:
        self.api("DELETE", "/hub/api/users/{name}/server").raise_for_status()
        self.wait_for_no_server()

    def wait_for_no_server(self) -> None:
        wait_until(lambda: not self.server(), "the server has stopped")

    def start_kernel(self) -> str:
        """Start a kernel; return its ID."""
        response = self.api("POST", "/user/{name}/api/kernels", json={})
        response.raise_for_status()
        return response.json()["id"]


class ClassLearner(Learner):
    """A learner whose server runs in a container."""

    hub: ClassHub

    @property
    def container(self) -> Container:
        (container,) = self.hub.servers(self.name, all=True)
        return container

    def run(self, *command: str) -> str:
        """Run a command in the learner's container, as the learner."""
        return run_in(self.container, *command)


def run_in(container: Container, *command: str, **environment: str) -> str:
    """Run a command in a container; return its output.

    The test fails if the command fails. This function uses Docker's command line, because
    `exec_run` sometimes loses output that arrives together with the engine's headers
    (https://github.com/docker/docker-py/issues/3332).
    """
    variables = (f"--env={name}={value}" for name, value in environment.items())
    run = subprocess.run(
        [os.environ.get("DOCKER", "docker"), "exec", *variables, container.id, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def send(learner: Learner, kernel: str, code: str, patience: float = 300) -> Iterator[dict]:
    """Send code to a kernel through the proxy, as a browser does; yield the replies.

    The generator stops when the kernel has run the code, when the server reports that the kernel
    has died, or after `patience` seconds without a reply. The time-out is necessary, because a
    restarting kernel might lose the code.
    """
    url = f"{learner.hub.url}/user/{learner.name}/api/kernels/{kernel}/channels"
    channel = websocket.create_connection(
        url.replace("http", "ws", 1), header=[f"Authorization: token {learner.token}"], timeout=60
    )
    header = {"msg_id": secrets.token_hex(8), "msg_type": "execute_request", "session": "test"}
    header |= {"username": "", "version": "5.3"}
    message = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell"}
    channel.send(json.dumps({**message, "content": {"code": code, "silent": False}}))
    with contextlib.closing(channel):
        heard = time.monotonic()
        while time.monotonic() < heard + patience:
            channel.settimeout(patience)
            try:
                kind, content = channel.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                return
            if kind != websocket.ABNF.OPCODE_TEXT:  # a ping, which the library answers
                continue
            heard = time.monotonic()
            reply = json.loads(content)
            state = reply["content"].get("execution_state")
            ours = reply["parent_header"].get("msg_id") == header["msg_id"]
            if ours or state in ("restarting", "autorestarting", "dead"):
                yield reply
            if (ours and state == "idle") or state in ("restarting", "autorestarting", "dead"):
                return


def run_cell(learner: Learner, kernel: str, code: str, patience: float = 300) -> str:
    """Run code in a kernel; return its output. `patience` has the same meaning as in `send`."""
    replies = send(learner, kernel, code, patience)
    return "".join(r["content"]["text"] for r in replies if r["msg_type"] == "stream")


def wait_until(condition: Callable[[], object], what: str, seconds: float = 90) -> float:
    """Wait until the condition is true; return the number of seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, (
            f"timed out after {seconds} s, waiting until {what}"
        )
        time.sleep(0.2)
    return time.monotonic() - began


# `free_ports` allocates ports in groups of five. Each pytest worker has its own range of ports. A
# worker uses its whole range before it repeats a group, because a test might not open its
# ports immediately.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST = 20000 + WORKER % 5 * 2000  # below the system's ephemeral ports
FIVES = itertools.cycle(random.sample(range(FIRST, FIRST + 2000, 5), 400))


def free_ports() -> int:
    """Return the first of five consecutive free ports."""
    while True:
        first = next(FIVES)
        with contextlib.ExitStack() as listeners:
            try:
                for number in range(first, first + 5):
                    listener = listeners.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", number))
            except OSError:
                continue
        return first

"""Test the proxy's refusals, limits and error pages against a stand-in for the hub and servers."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
import requests
from hubs import free_ports, wait_until

from tfcourse.hub.front import proxy

SENTENCE = "<h1>One moment, please</h1>"
LARGE = 64 * 2**20


class StandIn(BaseHTTPRequestHandler):
    """A stand-in for the hub and servers that responds with the request line.

    Words in the path, such as `slow` or `large`, change the response.
    """

    protocol_version = "HTTP/1.1"
    silent = threading.Event()  # while this event is set, the stand-in does not respond

    def do_GET(self) -> None:
        self.server.lines.append(self.requestline)
        time.sleep(12 if "slow" in self.path else 0)
        while StandIn.silent.is_set():
            time.sleep(0.2)
        body = bytes(LARGE) if "large" in self.path else self.requestline.encode()
        if self.path.endswith(".js") or self.path == "/user/eve":
            body = f"loaded = {self.path!r}".encode()
        try:
            self.send_response(101 if "switch" in self.path else 200)
            self.send_header("X-JupyterHub-Version", "5")
            for name in ("Service-Worker-Allowed", "service-worker-ALLOWED", "X-Kept"):
                self.send_header(name, "/")
            is_script = body.startswith(b"loaded")
            self.send_header("Content-Type", "text/javascript" if is_script else "text/html")
            if "chunked" not in self.path:
                missing = 100 if "broken" in self.path else 0
                self.send_header("Content-Length", str(len(body) + missing))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.server.lines.append("The proxy has given up.")
        self.close_connection = True

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 - the server asks for these names

    def log_message(self, *_: object) -> None:
        pass


class Proxy:
    """A proxy that forwards all requests to the stand-in."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, lines: list[str]):
        self.process, self.port, self.lines = process, port, lines
        self.url = f"http://127.0.0.1:{port}"

    def connect(self, path: str, *headers: str) -> socket.socket:
        """Send a request with exactly this path; return the connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        head = [f"GET {path} HTTP/1.1", "Host: x", *headers]
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        return connection

    def answer(self, path: str, *headers: str) -> str:
        """Send a request with exactly this path; return the complete response."""
        with self.connect(path, *headers, *(() if headers else CLOSE)) as connection:
            return b"".join(iter(lambda: connection.recv(2**16), b"")).decode()

    def memory(self) -> float:
        """Return the memory that the proxy uses, in MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


CLOSE = ("Connection: close",)
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
ROADS = pytest.mark.parametrize("road", [CLOSE, UPGRADE], ids=["page", "upgrade"])


@contextlib.contextmanager
def running(log) -> Iterator[Proxy]:
    port = free_ports()
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.lines = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = [f"--port={port}", f"--api-port={port + 1}", "--ip=127.0.0.1"]
        options += [f"--default-target=http://127.0.0.1:{server.server_port}", "--log-level=warn"]
        with (
            log.open("wb") as output,
            subprocess.Popen([*proxy.proxy_command(), *options], stdout=output) as process,
        ):
            try:
                wait_until(lambda: listens(port), "the proxy listens")
                yield Proxy(process, port, server.lines)
            finally:
                StandIn.silent.clear()
                process.terminate()
                server.shutdown()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def front(tmp_path_factory) -> Iterator[Proxy]:
    with running(tmp_path_factory.mktemp("proxy") / "log") as found:
        yield found


# --- Service workers


@ROADS
@pytest.mark.parametrize("path", ["/user/eve/worker.js", "/user/eve/", "/user/eve", "/hub/x.js"])
def test_no_browser_gets_the_script_of_a_service_worker(front, road, path):
    """A service worker could read other users' pages in the browser, and outlive its server."""
    before = len(front.lines)
    for name in ("Service-Worker", "service-WORKER"):
        assert front.answer(path, f"{name}: script", *road).startswith("HTTP/1.1 403 ")
    assert front.lines[before:] == []


def test_a_browser_does_not_register_a_service_worker(front, page):
    """This test fails if browsers stop sending the header that identifies worker scripts."""
    page.goto(f"{front.url}/user/eve/page")
    for script in ("/user/eve/worker.js", "/user/eve"):
        register = f"navigator.serviceWorker.register({script!r}).then(() => 'yes', String)"
        assert "bad HTTP response code (403)" in page.evaluate(register)
    page.add_script_tag(url="/user/eve/script.js")  # other scripts are loaded
    assert page.evaluate("loaded") == "/user/eve/script.js"


@ROADS
@pytest.mark.parametrize(
    "path", ["/user/eve", "/user/eve?x=1", "/.//user/eve", "/user%2Feve", "/%75ser/%65ve"]
)
def test_a_server_does_not_answer_outside_its_folder(front, road, path):
    """A worker script at /user/eve would control all of /user/, which includes others' servers."""
    before = len(front.lines)
    answer = front.answer(path, *road)
    assert answer.startswith("HTTP/1.1 307 ")
    assert front.lines[before:] == []
    if road is CLOSE:
        query = "?x=1" if "?" in path else ""
        assert re.search(r"^Location: (.*?)\r$", answer, re.M)[1] == f"/user/eve/{query}"


def test_no_redirect_leads_to_another_host(front):
    answer = front.answer("/.//user/..%2f%2fevil.example")
    assert "Location: /" not in answer or "Location: /user/" in answer


@ROADS
@pytest.mark.parametrize("path", ["/user/eve/worker.js", "/user/eve/chunked", "/user/eve/switch"])
def test_no_server_gets_a_service_worker_for_the_whole_host(front, road, path):
    if "switch" in path and road is CLOSE:
        return
    answer = front.answer(path, *road).lower()
    assert "x-kept: /" in answer
    assert "service-worker-allowed" not in answer


# --- Memory


@ROADS
@pytest.mark.parametrize("path", ["/user/eve/large", "/user/eve/large-chunked"])
def test_an_answer_that_nobody_reads_takes_no_memory(front, road, path):
    before = front.memory()
    with contextlib.ExitStack() as connections:
        for _ in range(4):
            connections.enter_context(front.connect(path, *road))
        time.sleep(3)
        assert front.memory() < before + 60


def test_a_large_answer_to_a_request_for_a_websocket_is_complete(front):
    with front.connect("/user/eve/large", *UPGRADE) as connection:
        size = 0
        while chunk := connection.recv(2**20):
            size += len(chunk)
            if size < 2**20:
                time.sleep(0.5)  # read slowly, so that the proxy must pause and resume
    assert size > LARGE


@ROADS
def test_a_server_need_not_send_an_answer_that_nobody_waits_for(front, road):
    before = len(front.lines)
    with front.connect("/user/eve/large", *road) as connection:
        connection.recv(1)
    wait_until(lambda: "The proxy has given up." in front.lines[before:], "it is told", 10)


def test_an_answer_that_breaks_off_ends(front):
    assert "/user/ada/broken" in front.answer("/user/ada/broken")


def test_the_proxy_limits_connections(tmp_path):
    """Connections that are already open, such as a learner's WebSocket, stay open."""
    with running(tmp_path / "log") as front, contextlib.ExitStack() as connections:
        first = connections.enter_context(front.connect("/user/eve/lab"))
        opened = [
            connections.enter_context(socket.create_connection(("127.0.0.1", front.port), 30))
            for _ in range(3050)
        ]
        assert opened[-1].recv(1) == b""  # closed
        assert first.recv(9) == b"HTTP/1.1 "
        assert front.memory() < 300


# --- The log


def test_strangers_cannot_wash_the_log_of_the_proxy_away(tmp_path):
    log = tmp_path / "log"
    with running(log) as front:
        for number in range(50):
            front.answer(f"/%ff{number}")
            front.answer("//")
            front.answer(f"/constructor/{number}")
            front.answer(f"/%ff{number}", *UPGRADE)
            with front.connect("/user/eve/large", *UPGRADE) as connection:  # leave at once
                connection.recv(1)
        assert front.answer("/constructor/x").startswith("HTTP/1.1 200 ")
        assert len(log.read_bytes().splitlines()) < 5
        # The proxy does log connection errors, but it limits their number and length.
        routes = f"http://127.0.0.1:{front.port + 1}/api/routes/user/gone"
        requests.post(routes, json={"target": "http://127.0.0.1:9"}, timeout=30)
        for number in range(500):
            front.answer(f"/user/gone/{number}{'x' * 8000}")
    entries = log.read_text().splitlines()
    assert 290 < len(entries) <= 310
    assert "[More entries are left out for a while.]" in entries[-1]
    assert max(map(len, entries)) < 2200


def test_a_learner_may_be_called_constructor(front):
    routes = f"http://127.0.0.1:{front.port + 1}/api/routes"
    target = {"target": "http://127.0.0.1:9"}
    requests.post(f"{routes}/user/somebody", json=target, timeout=30)
    assert front.answer("/user/constructor/lab").startswith("HTTP/1.1 200 ")  # from the hub
    own = f"{routes}/user/constructor"
    assert requests.post(own, json=target, timeout=30).status_code == 201
    assert front.answer("/user/constructor/lab").startswith("HTTP/1.1 503 ")
    assert "/user/constructor" in json.loads(requests.get(routes, timeout=30).text)
    assert requests.delete(own, timeout=30).status_code == 204
    assert requests.delete(own, timeout=30).status_code == 404
    assert front.answer("/user/constructor/lab").startswith("HTTP/1.1 200 ")


# --- A hub or a server that does not answer

PAGES = [
    ("GET", "/hub/login"),
    ("GET", "/hub/api/oauth2/authorize?client_id=x"),
    ("GET", "/user/ada/lab/tree/api/x.ipynb"),
    ("GET", "/user/ada/lab/tree/nbconvert/api/x.ipynb"),
    ("GET", "/user/api/lab"),
    ("GET", "/user/nbconvert/lab"),
    ("GET", "/user/ada/nbconvert/html/x.ipynb"),
    ("GET", "/user/ada/oauth_callback?code=x"),
    ("POST", "/hub/login"),
    ("POST", "/hub/spawn"),
    ("POST", "/hub/lti13/oauth_callback"),
]


# These requests can be slow, for example the first one if a whole class logs in at once.
OTHERS = [
    ("POST", "/hub/slow-login", "navigate"),
    ("GET", "/user/ada/nbconvert/pdf/slow.ipynb", "navigate"),
    ("GET", "/user/ada/api/contents/slow", ""),
    ("PUT", "/user/ada/api/contents/slow", "cors"),
    ("GET", "/user/ada/lab/api/slow", ""),
    ("GET", "/services/report/api/slow", ""),
    ("GET", "/hub/api/slow", ""),
]


def request_all(front: Proxy, wanted: list[tuple[str, str, str]]) -> list[tuple[bool, bool]]:
    """Send requests in parallel, each with a given value of the Sec-Fetch-Mode header.

    For each request, return whether the stand-in answered, and whether an error page arrived within
    ten seconds.
    """

    def request(method: str, path: str, mode: str) -> tuple[bool, bool]:
        began = time.monotonic()
        headers = {"Sec-Fetch-Mode": mode} if mode else {}
        try:
            answer = requests.request(method, front.url + path, headers=headers, timeout=30)
        except requests.RequestException:
            return False, False
        is_page = answer.status_code == 503 and SENTENCE in answer.text
        return answer.ok, is_page and time.monotonic() < began + 10

    with ThreadPoolExecutor(len(wanted)) as threads:
        return list(threads.map(lambda each: request(*each), wanted))


def test_no_page_waits_forever(front):
    """Browsers send `Sec-Fetch-Mode: navigate` when they open a page or submit a form."""
    wanted = [(*page, "navigate") for page in PAGES]
    StandIn.silent.set()
    threading.Timer(15, StandIn.silent.clear).start()
    answers = request_all(front, wanted)
    assert dict(zip(wanted, answers, strict=True)) == dict.fromkeys(wanted, (False, True))


def test_what_may_take_long_is_not_cut(front):
    answers = request_all(front, OTHERS)
    assert dict(zip(OTHERS, answers, strict=True)) == dict.fromkeys(OTHERS, (True, False))


def test_the_last_step_of_a_log_in_is_not_repeated(front, page):
    """The code in the URL is valid only once, so the error page continues at /hub/home."""
    StandIn.silent.set()
    try:
        page.goto(f"{front.url}/user/ada/oauth_callback?code=x")
        assert "check whether it arrived" in page.inner_text("main")
    finally:
        StandIn.silent.clear()
    page.wait_for_url(f"{front.url}/hub/home")


@ROADS
def test_a_visitor_with_too_many_cookies_is_told_what_to_do(front, road):
    answer = front.answer("/hub/login", f"Cookie: a={'x' * 20_000}", *road)
    assert answer.startswith("HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert answer.endswith("Delete this site's cookies, then open the page again.\n")
    assert "200 OK" in front.answer("/hub/login", "Cookie: a=x", *CLOSE)

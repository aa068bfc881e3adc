"""Test limits on what visitors can make the hub store: requests, log entries and tokens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import psutil
import pytest
import requests
from hubs import ROOT, Learner, post, wait_until
from jupyterhub import orm
from jupyterhub.metrics import REQUEST_DURATION_SECONDS
from tornado.web import Application, RequestHandler

from tfcourse.hub import limits
from tfcourse.hub.front import bounds


def test_after_a_limit_there_is_one_more_for_each_interval(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    limit = limits.Limit(3, seconds=60)
    for _ in range(3):
        assert limit.wait("a") == 0
        limit.count("a")
    assert (limit.wait("a"), limit.wait("b")) == (60, 0)
    now += 59
    assert limit.wait("a") == 1
    now += 1
    assert limit.wait("a") == 0
    limit.count("a")
    assert limit.wait("a") == 60
    now += 180
    limit.count("b")
    assert list(limit.paid_off) == ["b"]  # the limit eventually forgets `a`


COUNT = """
import asyncio
from pathlib import Path
from tornado.httpclient import AsyncHTTPClient

def count():
    Path({path!r}).write_text(str(len(AsyncHTTPClient()._curls)))

asyncio.get_running_loop().call_later(5, count)
"""


def test_slow_servers_do_not_use_up_the_connections_of_the_hub(make_hub, tmp_path):
    """With a lower limit on connections, log-ins would fail, as `make bench-load` has shown.

    JupyterHub chooses its HTTP client after it loads the settings. By default, that client opens
    only ten connections at the same time.
    """
    found = tmp_path / "connections"
    (tmp_path / "count.py").write_text(COUNT.format(path=str(found)))
    make_hub().start(COURSE_CONFIG=str(tmp_path))
    wait_until(found.exists, "the hub has written how many connections it may open")
    wait_until(found.read_text, "the number is complete")
    assert found.read_text() == "500"


FETCH = """
import asyncio, sys
from jupyterhub.app import JupyterHub
from tornado.httpclient import AsyncHTTPClient
from traitlets.config import Config
from tfcourse.hub.front import bounds

if sys.argv[2] == "without pycurl":
    sys.modules["pycurl"] = None
bounds.configure(Config())
JupyterHub().init_pycurl()

async def fetch():
    try:
        answer = await AsyncHTTPClient().fetch(sys.argv[1])
        print(type(AsyncHTTPClient()).__name__, len(answer.body))
    except Exception as error:
        print(type(AsyncHTTPClient()).__name__, "refused")

asyncio.run(fetch())
"""


class Talkative(BaseHTTPRequestHandler):
    """A server that sends as many bytes as the path requests, either at once or in chunks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, how, size = self.path.split("/")
        self.send_response(200)
        if how == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", size)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(int(size) // 2**16):
                self.wfile.write(b"10000\r\n" * (how == "chunks") + bytes(2**16))
                self.wfile.write(b"\r\n" * (how == "chunks"))
                self.server.sent += 2**16
            self.wfile.write(b"0\r\n\r\n" * (how == "chunks"))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("how", ["whole", "chunks"])
@pytest.mark.parametrize("client", ["with pycurl", "without pycurl"])
def test_a_server_cannot_fill_the_hub_with_its_answer(how, client):
    with ThreadingHTTPServer(("127.0.0.1", 0), Talkative) as server:
        server.sent = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = []
        for size in (2**20, 2**26):
            url = f"http://127.0.0.1:{server.server_port}/{how}/{size}"
            command = [sys.executable, "-c", FETCH, url, client]
            said.append(subprocess.check_output(command, cwd=ROOT, text=True).split())
        server.shutdown()
    name = "CurlAsyncHTTPClient" if client == "with pycurl" else "SimpleAsyncHTTPClient"
    assert said == [[name, str(2**20)], [name, "refused"]]
    assert server.sent < 2**24


def megabytes(hub) -> float:
    """Return the memory that the hub's process uses, in MiB."""
    return psutil.Process(hub.process.pid).memory_info().rss / 2**20


def send_body(port: int, size: int, chunked: bool) -> bytes:
    """Post a large body to the log-in page; return the response, or b'' if there is none."""
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /hub/login HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n")
        try:
            for _ in range(size // 2**20):
                start, end = (b"100000\r\n", b"\r\n") if chunked else (b"", b"")
                connection.sendall(start + bytes(2**20) + end)
            return connection.recv(100)
        except OSError:  # the hub has closed the connection
            return b""


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_take_no_memory_of_the_hub(hub, chunked):
    before = megabytes(hub)
    for port in (hub.port, hub.port + 1):  # first the proxy's port, then the hub's
        for _ in range(6):
            answer = send_body(port, 90 * 2**20, chunked)
            assert b" 403 " not in answer  # 403 would mean that the hub processed the form
    assert megabytes(hub) < before + 40


def test_a_long_note_on_a_token_is_cut(hub):
    learner = Learner(hub, "annie")
    response = learner.api("POST", "/hub/api/users/{name}/tokens", json={"note": "x" * 100_000})
    assert response.status_code == 201
    assert len(response.json()["note"]) == bounds.LONGEST_NOTE
    assert orm.APIToken(note=None).note is None


def test_the_oldest_tokens_make_room_for_new_ones(hub):
    learner = Learner(hub, "grace")  # grace already has one token
    learner.start_server()
    (of_server,) = [
        each.environ()["JUPYTERHUB_API_TOKEN"]
        for each in hub.processes()
        if any(word.endswith("/singleuser.py") for word in each.cmdline())
        and each.environ().get("JUPYTERHUB_USER") == "grace"
    ]
    tokens = f"{hub.url}/hub/api/users/grace/tokens"
    made = [
        post(learner.session, tokens, json={}).json()["token"] for _ in range(bounds.MOST_TOKENS)
    ]

    def user(token: str) -> requests.Response:
        headers = {"Authorization": f"token {token}"}
        return requests.get(f"{hub.url}/hub/api/user", headers=headers, timeout=30)

    assert user(learner.token).status_code == 403
    assert user(of_server).ok  # a server without a token would be stopped as idle
    assert user(made[0]).ok
    post(learner.session, tokens, json={})
    assert user(made[0]).ok  # this token was used more recently than the others
    assert user(made[1]).status_code == 403
    listed = learner.session.get(tokens, headers={"Referer": tokens}, timeout=30).json()
    assert len(listed["api_tokens"]) == bounds.MOST_TOKENS + 1  # and the server's
    learner.token = made[0]
    learner.stop_server()


@pytest.mark.parametrize("note", ["\ud800", "a\0b"])
def test_text_that_no_database_can_store_is_refused_or_stored(hub, note):
    learner = Learner(hub, "annie")
    response = learner.api("POST", "/hub/api/users/{name}/tokens", json={"note": note})
    assert response.status_code in (201, 400)
    assert learner.api("GET", "/hub/api/users/{name}?limit=" + "9" * 30).ok


def test_strangers_cannot_wash_the_log_away(hub):
    learner = Learner(hub, "radia")
    log = hub.state / "hub" / "jupyterhub.log"
    before = log.stat().st_size
    session = requests.Session()
    for number in range(600):
        forged = {"X-Real-Ip": "198.51.100.66"}
        session.get(f"{hub.url}/hub/api/nothing{number}", headers=forged, timeout=30)
    names = {"username": "x" * 100_000, "password": "wrong"}
    page = hub.session()
    xsrf = {"_xsrf": page.cookies.get("_xsrf", path="/hub/")}
    page.post(f"{hub.url}/hub/login", params=xsrf, data=names, timeout=30)
    assert learner.api("GET", "/hub/api/users/{name}?seen=1").ok
    wait_until(lambda: "?seen=1" in log.read_text(), "the learner's request is in the log")
    new = log.read_bytes()[before:]
    assert new.count(b"nothing") <= bounds.ENTRIES_AT_ONCE
    assert b"198.51.100.66" not in new
    assert b"x" * 2 * bounds.LONGEST_ENTRY not in new


def record(
    line: int, message: str, *arguments: object, level: int = logging.WARNING
) -> logging.LogRecord:
    return logging.LogRecord("hub", level, "place.py", line, message, arguments, None)


def test_one_place_in_the_code_cannot_fill_the_log(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    entries = bounds.Entries()
    kept = [each for each in [record(1, "no %s", n) for n in range(1000)] if entries.filter(each)]
    assert len(kept) == bounds.ENTRIES_AT_ONCE
    assert kept[0].getMessage() == "no 0"
    assert kept[-1].getMessage() == "no 299 [Similar entries are omitted for a while.]"
    assert entries.filter(record(2, "another place"))
    normal = [record(3, "started", level=logging.INFO) for _ in range(2000)]
    assert all(map(entries.filter, normal))  # two thousand learners might start servers at once
    now += bounds.SECONDS_PER_ENTRY
    assert entries.filter(record(1, "no %s", 1000))
    assert not entries.filter(record(1, "no %s", 1001))


def test_a_long_entry_is_cut():
    entry = record(1, "Failed login for %s", "x" * 1_000_000)
    assert bounds.Entries().filter(entry)
    assert entry.getMessage().endswith("x ... [1000017 characters]")
    assert len(entry.getMessage()) < bounds.LONGEST_ENTRY + 50


class Handler:
    """A stand-in for a Tornado handler that has answered a request."""

    SUPPORTED_METHODS = RequestHandler.SUPPORTED_METHODS

    def __init__(self, user: str = "", method: str = "GET", status: int = 200):
        self.get_status = lambda: status
        self.current_user = SimpleNamespace(name=user) if user else None
        self.request = SimpleNamespace(method=method, request_time=lambda: 0.1)


def test_an_invalid_list_of_proxies_ends_the_start(monkeypatch):
    monkeypatch.setenv("COURSE_TRUSTED_PROXIES", "ingress")
    with pytest.raises(SystemExit, match="COURSE_TRUSTED_PROXIES is 'ingress'"):
        bounds.configure(None)


def test_nobody_can_fill_the_log_with_requests(monkeypatch):
    """Each logged-in user has a separate limit, which other people cannot use up."""
    logged = []
    monkeypatch.setattr(bounds.addresses, "address_of", lambda request: "198.51.100.7")
    monkeypatch.setattr(bounds, "log_request", lambda handler: logged.append(handler.current_user))
    notes = []
    warning = SimpleNamespace(warning=lambda text, who: notes.append(text % who))
    monkeypatch.setattr(bounds, "get_logger", lambda: warning)
    log = bounds.Requests()
    eve, ada, stranger = Handler("eve"), Handler("ada"), Handler()
    for handler in (eve, stranger):
        for _ in range(1000):
            log(handler)
        assert logged.count(handler.current_user) == bounds.ENTRIES_AT_ONCE
    assert notes == [
        "Entries for requests from eve are omitted for a while.",
        "Entries for requests from strangers are omitted for a while.",
    ]
    log(ada)
    assert logged[-1].name == "ada"
    log(Handler("eve", status=500))  # server errors are always logged
    assert logged[-1].name == "eve"


def test_requests_that_are_not_logged_use_up_nothing(monkeypatch):
    """When a class opens the log-in page, browsers request hundreds of static files."""
    monkeypatch.setattr(bounds.addresses, "address_of", lambda request: "198.51.100.7")
    monkeypatch.setattr(bounds, "log_request", lambda handler: None)
    log = bounds.Requests()
    for _ in range(1000):
        log(Handler(status=304))
    assert not log.limit.paid_off


@pytest.mark.parametrize("user", ["", "eve"])
def test_the_metrics_do_not_grow_with_invented_methods(monkeypatch, user):
    monkeypatch.setattr(bounds.addresses, "address_of", lambda request: "198.51.100.7")
    monkeypatch.setattr(bounds, "log_request", bounds.prometheus_log_method)
    log = bounds.Requests()
    for number in range(500):
        log(Handler(user, f"{'A' * 50}{number}"))
    log(Handler(user, "GET"))
    samples = [sample for metric in REQUEST_DURATION_SECONDS.collect() for sample in metric.samples]
    methods = {sample.labels["method"] for sample in samples}
    assert {"GET", "UNKNOWN"} <= methods
    assert not any("A" * 50 in method for method in methods)


# --- Connections


@pytest.fixture
def server(monkeypatch) -> Iterator[int]:
    """Run a server with low connection limits; return its port."""
    monkeypatch.setattr(bounds, "MOST_CONNECTIONS", 8)
    monkeypatch.setattr(bounds, "MOST_CONNECTIONS_OF_A_SERVER", 3)
    monkeypatch.setattr(bounds, "RESERVED_CONNECTIONS", 2)
    loop, started = asyncio.new_event_loop(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    async def serve() -> None:
        server = bounds.Server(Application())
        server.add_socket(listener)
        started.set()
        await asyncio.Future()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    task = loop.create_task(serve())
    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    listener.setblocking(False)
    yield listener.getsockname()[1]
    loop.call_soon_threadsafe(task.cancel)
    thread.join()


def connect(port: int, source: str, number: int) -> list[socket.socket]:
    """Send requests from an IP address; return the connections on which the server responded."""
    opened = []
    for _ in range(number):
        each = socket.create_connection(("127.0.0.1", port), 30, source_address=(source, 0))
        with contextlib.suppress(OSError):
            each.sendall(b"GET /hub/health HTTP/1.1\r\nHost: x\r\n\r\n")
        if answers(each):
            opened.append(each)
        else:
            each.close()
    return opened


def test_one_machine_cannot_use_up_the_connections(server):
    mallory = connect(server, "127.0.0.2", 10)
    ada, of_proxy = connect(server, "127.0.0.3", 2), connect(server, "127.0.0.1", 10)
    assert [len(each) for each in (mallory, ada, of_proxy)] == [3, 2, 3]  # 8 in all
    for each in mallory + of_proxy:
        each.close()
    wait_until(lambda: connect(server, "127.0.0.2", 1), "there is room again")
    assert len(connect(server, "127.0.0.1", 4)) == 4


def test_visitors_cannot_use_up_the_connections_of_learners_servers(server):
    of_proxy = connect(server, "127.0.0.1", 10)
    assert len(of_proxy) == 6
    assert len(connect(server, "127.0.0.2", 3)) == 2


def test_the_hub_limits_connections_and_headers(hub):
    port = hub.port + 1  # the hub's own port, without the proxy
    opened = connect(port, "127.0.0.2", bounds.MOST_CONNECTIONS_OF_A_SERVER + 5)
    assert len(opened) == bounds.MOST_CONNECTIONS_OF_A_SERVER
    for each in opened:
        each.close()
    assert requests.get(f"{hub.url}/hub/health", timeout=30).ok
    for size, is_accepted in ((16_000, True), (60_000, False)):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET /hub/health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * size)
            connection.sendall(b"\r\n\r\n")
            assert answers(connection) == is_accepted


def answers(connection: socket.socket) -> bool:
    """Return whether the server responds instead of closing the connection."""
    try:
        return bool(connection.recv(1000))
    except OSError:
        return False

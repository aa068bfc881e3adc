"""Test a real hub that runs as local processes, including attempts to misuse it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import re
import runpy
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from urllib.parse import unquote, urljoin

import pytest
import requests
import websocket
from hubs import Learner, post, run_cell, wait_until
from jupyter_server.base.handlers import APIHandler, FileFindHandler
from jupyterlab_server.workspaces_handler import WorkspacesHandler
from requests.cookies import get_cookie_header
from tornado import web
from traitlets.config import Config

import tfcourse.hub.laptop.__main__ as hub_command
from tfcourse.hub.front import proxy
from tfcourse.hub.front.compression import is_current
from tfcourse.hub.front.proxy import proxy_command
from tfcourse.hub.spawners.lessons import FOLDER
from tfcourse.hub.state import ROOT

SINGLEUSER = ROOT / "tfcourse" / "hub" / "spawners" / "singleuser.py"


def accounts(hub) -> set[str]:
    with sqlite3.connect(f"file:{hub.state}/hub/jupyterhub.sqlite?mode=ro", uri=True) as database:
        return {name for (name,) in database.execute("select name from users")}


def folder(learner: Learner) -> Path:
    """Return the folder with the learner's copies of the lessons."""
    return learner.hub.state / "homes" / learner.name / FOLDER


def test_wrong_password_shows_the_log_in_page_and_makes_no_account(hub):
    for password in ("wrong", "pässword", ""):
        response = hub.login("mallory", password or " ")
        assert response.status_code == 403
        assert "Invalid username or password" in response.text
        assert 'name="password"' in response.text
    assert "mallory" not in accounts(hub)


@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "%2e%2e", "../x", "a/b", ".ssh", "{0}", "a" * 33, ""),
        *("Ada Lovelace", "ada@example.org", "Ärger", "ada+1", "o'brien", "~ada", "a\tb"),
    ],
)
def test_a_name_that_is_no_plain_folder_is_refused_with_a_sentence(hub, name):
    before = accounts(hub)
    response = hub.login(name)
    assert response.status_code == 403
    assert "A user name has at most 32 characters: lowercase letters, digits" in response.text
    assert "Invalid username or password" not in response.text
    assert 'name="password"' in response.text  # the form, to try again
    assert accounts(hub) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "tensorflow-9000"}, "There is no environment called"),
        ({"profile": "tensorflow-cpu", "image": "debian"}, "The option"),
    ],
)
def test_unknown_profile_or_field_is_a_400_with_a_sentence(hub, options, sentence):
    learner = Learner(hub, "grace")
    form = post(learner.session, f"{hub.url}/hub/spawn", data=options)
    link = learner.session.get(f"{hub.url}/hub/spawn", params=options, timeout=60)
    for page in (form, link):
        assert page.status_code == 400
        assert f"Error: {sentence}" in page.text
        assert "TensorFlow (CPU)" in page.text  # the page lets the learner choose again
    api = learner.api("POST", "/hub/api/users/{name}/server", json=options)
    assert api.status_code == 400
    assert api.json()["message"].startswith(sentence)
    assert learner.server() is None


def test_a_request_without_options_gets_the_default_even_after_a_refused_one(hub):
    learner = Learner(hub, "edsger")
    for options in (["tensorflow-cpu"], "tensorflow-cpu", 0, {"profile": "nope"}):
        refused = learner.api("POST", "/hub/api/users/{name}/server", json=options)
        assert refused.status_code == 400
    learner.start_server()
    learner.stop_server()


@pytest.fixture(scope="module")
def working(hub):
    """Return a learner who started a server through a link, and whose kernel is running."""
    learner = Learner(hub, "barbara")
    page = learner.session.get(f"{hub.url}/hub/spawn?profile=tensorflow-cpu", timeout=60)
    assert page.status_code == 200
    learner.wait_for_server()
    learner.start_kernel()
    return learner


def test_a_link_starts_the_profile_it_names(working):
    assert working.server()["user_options"] == {"profile": "tensorflow-cpu"}


def test_all_listens_on_this_machine_only(working):
    addresses = {
        connection.laddr.ip
        for process in working.hub.processes()
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    }
    assert addresses == {"127.0.0.1"}


def test_servers_get_no_more_of_the_environment_than_they_need(working):
    server, kernel = (
        p.environ()
        for p in working.hub.processes()
        if p.environ()["HOME"] == str(folder(working).parent)
    )
    for environment in (server, kernel):
        assert environment["KERAS_HOME"] == os.environ.get(
            "KERAS_HOME", str(ROOT / ".course/keras")
        )
        assert "SECRET_OF_THE_HUB" not in environment


def test_lessons_are_the_learners_own(hub):
    learner = Learner(hub, "ada")
    learner.start_server()
    lesson = folder(learner) / "00_start_here.ipynb"
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} <= {
        path.name for path in folder(learner).iterdir()
    }
    lesson.write_text("mine")
    removed = folder(learner) / "02_load_data.ipynb"
    removed.unlink()
    learner.stop_server()
    learner.start_server()
    assert lesson.read_text() == "mine"
    assert removed.exists()
    learner.stop_server()


def test_the_state_is_closed_to_others(hub):
    for name in ("hub", "homes", "hub/password", "hub/cookie_secret"):
        assert not (hub.state / name).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), name


def test_a_second_hub_with_the_same_state_gets_a_sentence(hub, make_hub):
    second = make_hub()
    second.state = hub.state
    said = second.launch().communicate(timeout=60)[0]
    assert second.process.returncode == 1
    assert "already running" in said
    assert hub.url in said
    assert requests.get(f"{hub.url}/hub/health", timeout=30).ok


def test_a_state_that_cannot_be_kept_gets_a_sentence(make_hub):
    hub = make_hub()
    hub.state = hub.state / "file"
    hub.state.touch()
    said = hub.launch().communicate(timeout=60)[0]
    assert hub.process.returncode == 1
    assert said.startswith(f"Accounts and work cannot be kept in {hub.state}: Not a directory.")
    assert "Traceback" not in said


def test_a_taken_port_gets_a_sentence(make_hub):
    hub = make_hub()
    with socket.create_server(("127.0.0.1", hub.port)):
        said = hub.launch().communicate(timeout=60)[0]
    assert hub.process.returncode == 1
    (line,) = said.splitlines()
    assert line.startswith(f"Port {hub.port} is in use by another program.")
    assert "make hub PORT=" in line


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_each_of_the_ports_is_checked(make_hub, monkeypatch, offset):
    monkeypatch.setattr(hub_command, "GRACE", 0)
    first = make_hub().port
    needed = (first, first + 1, first + 2)
    hub_command.check_ports(needed)
    with (
        socket.create_server(("127.0.0.1", needed[offset])),
        pytest.raises(SystemExit, match=f"Port {needed[offset]} is in use"),
    ):
        hub_command.check_ports(needed)


def test_a_backend_that_does_not_exist_gets_a_sentence(make_hub):
    hub = make_hub()
    said = hub.launch(COURSE_SPAWNER="swarm").communicate(timeout=60)[0]
    assert hub.process.returncode == 1
    assert said.splitlines()[-1].startswith("COURSE_SPAWNER is 'swarm', but")


@pytest.mark.parametrize("port", ["abc", "0", "65534", "-1"])
def test_a_port_that_is_none_gets_a_sentence(port):
    command = [sys.executable, "-m", "tfcourse.hub.laptop", f"--port={port}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == f"COURSE_PORT is '{port}', but it has to be a number from 1 to 65533.\n"


def test_a_hub_that_cannot_start_shows_the_end_of_its_log(make_hub):
    hub = make_hub()
    said = hub.launch(COURSE_ADMIN="../x").communicate(timeout=60)[0]
    assert hub.process.returncode == 1
    assert "JupyterHub ended because of an error." in said
    assert "'../x' is not valid" in said
    assert not hub.wait_until_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_can_be_stopped_while_it_starts(make_hub, number):
    hub = make_hub()
    assert hub.launch().stdout.readline().startswith("Starting JupyterHub")
    assert (
        hub.stop(number)
        == "JupyterHub has stopped. Accounts and work are kept for the next start.\n"
    )
    assert hub.process.returncode == 0
    assert not hub.wait_until_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_stop_it_as_ctrl_c_does(make_hub, number):
    hub = make_hub()
    hub.start()
    assert "JupyterHub has stopped." in hub.stop(number)
    assert hub.process.returncode == 0
    assert not hub.wait_until_gone()


def test_a_second_start_keeps_accounts_and_work(make_hub):
    hub = make_hub()
    said = hub.start()
    assert "JupyterHub is ready." in said
    assert f"Address    {hub.url}\n" in said
    assert ("You are root" in said) == (os.geteuid() == 0)
    password = hub.password
    learner = Learner(hub, "ada")
    learner.start_server()
    learner.start_kernel()
    (folder(learner) / "00_start_here.ipynb").write_text("mine")
    assert len(hub.processes()) == 4  # hub, proxy, server, kernel

    assert "JupyterHub has stopped." in hub.stop(signal.SIGINT)
    assert hub.process.returncode == 0
    assert not hub.wait_until_gone()

    hub.start()
    assert hub.password == password
    assert accounts(hub) == {"ada"}
    page = learner.session.get(f"{hub.url}/hub/spawn", timeout=60)  # still logged in
    assert "TensorFlow (CPU)" in page.text
    learner.start_server()
    assert (folder(learner) / "00_start_here.ipynb").read_text() == "mine"


def test_a_killed_hub_takes_all_with_it_and_can_be_started_at_once(make_hub):
    hub = make_hub()
    hub.start()
    learner = Learner(hub, "ada")
    learner.start_server()
    learner.start_kernel()
    hub.stop(signal.SIGKILL)
    # Before the next start, other processes might reuse the process IDs that the hub has stored.
    with subprocess.Popen(["/bin/sleep", "600"], start_new_session=True) as innocent:
        try:
            (hub.state / "hub" / "proxy.pid").write_text(str(innocent.pid))
            with sqlite3.connect(hub.state / "hub" / "jupyterhub.sqlite") as database:
                state = json.dumps({"pid": innocent.pid})
                assert database.execute("update spawners set state = ?", [state]).rowcount == 1
            hub.start()
            assert learner.server() is None
            learner.start_server()
            hub.stop()
            assert not hub.wait_until_gone()
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_a_missing_proxy_gets_a_sentence(monkeypatch, tmp_path):
    # Node.js expects the value of `--import` to be a URL.
    files = [unquote(word.removeprefix("--import=file://")) for word in proxy_command()]
    assert all(os.access(file, os.R_OK) for file in files)
    monkeypatch.setattr(proxy, "__file__", "/home/ada/100% course/proxy.py")
    assert "--import=file:///home/ada/100%25%20course/patience.mjs" in proxy_command()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(SystemExit, match="run `make environment`"):
        proxy_command()


def test_a_learners_session_does_not_become_the_administrators(make_hub):
    hub = make_hub()
    hub.start()
    session = hub.login("chief").session
    token = session.post(
        f"{hub.url}/hub/api/users/chief/tokens",
        headers={"X-XSRFToken": session.cookies["_xsrf"], "Referer": f"{hub.url}/hub/token"},
        timeout=30,
    ).json()["token"]
    hub.stop()

    hub.start(COURSE_ADMIN="chief")
    assert session.get(f"{hub.url}/hub/admin", timeout=30).url.startswith(f"{hub.url}/hub/login")
    header = {"Authorization": f"token {token}"}
    assert requests.get(f"{hub.url}/hub/api/users", headers=header, timeout=30).status_code == 403
    assert hub.login("chief").status_code == 403
    password = (hub.state / "hub" / "admin-password").read_text().strip()
    chief = hub.login("chief", password).session
    assert chief.get(f"{hub.url}/hub/admin", timeout=30).status_code == 200
    hub.stop()

    hub.start(COURSE_ADMIN="chief")  # chief was already an administrator and stays logged in
    assert chief.get(f"{hub.url}/hub/admin", timeout=30).url == f"{hub.url}/hub/admin"
    hub.stop()


# --- Access and disabled features


def test_a_log_out_ends_the_sessions_in_all_browsers(hub):
    learner = Learner(hub, "dorothy")
    learner.start_server()
    files = f"{hub.url}/user/dorothy/api/contents"
    assert learner.session.get(files, timeout=30).status_code == 403  # no session on the server yet
    assert learner.session.get(f"{hub.url}/user/dorothy/lab", timeout=60).ok
    assert learner.session.get(files, timeout=30).ok
    thief, elsewhere = requests.Session(), hub.login("dorothy").session
    thief.cookies.update(learner.session.cookies)
    assert elsewhere.get(f"{hub.url}/user/dorothy/lab", timeout=60).ok
    assert elsewhere.get(files, timeout=30).ok
    assert thief.get(files, timeout=30).ok
    learner.session.get(f"{hub.url}/hub/logout", timeout=30)
    for session in (thief, elsewhere):
        page = session.get(f"{hub.url}/hub/home", timeout=30)
        assert page.url.startswith(f"{hub.url}/hub/login")
        wait_until(lambda s=session: s.get(files, timeout=30).status_code == 403, "it asks", 20)
    # API tokens remain valid, including the token that the server uses to query the hub.
    assert learner.api("GET", "/user/{name}/api/contents").ok
    learner.stop_server()


def test_a_log_in_that_was_left_half_finished_ends_at_a_log_out(hub):
    learner = Learner(hub, "hedy")
    learner.start_server()
    page = f"{hub.url}/user/hedy/lab"
    while "/oauth_callback?code=" not in page:
        location = learner.session.get(page, timeout=60, allow_redirects=False).headers["Location"]
        page = urljoin(page, location)
    hub.login("hedy").session.get(f"{hub.url}/hub/logout", timeout=30)
    assert not learner.session.get(page, timeout=60).ok
    files = f"{hub.url}/user/hedy/api/contents"
    assert learner.session.get(files, timeout=30).status_code == 403
    learner.stop_server()


@pytest.mark.parametrize(
    ("site", "kind", "ends"),
    [
        ("same-origin", "document", True),
        ("none", "document", True),  # from the address bar
        ("cross-site", "document", False),
        ("same-site", "document", False),  # from a server with a separate host name
        ("same-origin", "image", False),  # in somebody's notebook
        ("cross-site", "image", False),
    ],
)
def test_other_pages_cannot_log_anybody_out(hub, site, kind, ends):
    learner, elsewhere = Learner(hub, "rosalind"), hub.login("rosalind").session
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": kind}
    page = learner.session.get(f"{hub.url}/hub/logout", headers=headers, timeout=30)
    assert ("Do you want to log out?" in page.text) != ends
    for session in (learner.session, elsewhere):
        home = session.get(f"{hub.url}/hub/home", timeout=30)
        assert (home.url == f"{hub.url}/hub/home") != ends


def connect(session: requests.Session, url: str, **headers: str) -> websocket.WebSocket:
    """Open a WebSocket as a browser with the session's cookies does."""
    cookie = get_cookie_header(session.cookies, requests.Request("GET", url))
    return websocket.create_connection(
        url.replace("http", "ws", 1), cookie=cookie, header=headers, timeout=60
    )


def is_open(channel: websocket.WebSocket) -> bool:
    """Return whether a WebSocket is still open, and discard what it has received."""
    channel.settimeout(0.2)
    try:
        while True:
            if channel.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_CLOSE:
                return False
    except websocket.WebSocketTimeoutException:
        return True


def test_a_log_out_closes_what_browsers_have_open_on_a_server(hub):
    learner, thief = Learner(hub, "emmy"), requests.Session()
    learner.start_server()
    assert learner.session.get(f"{hub.url}/user/emmy/lab", timeout=60).ok
    thief.cookies.update(learner.session.cookies)
    server = f"{hub.url}/user/emmy"
    kernel = f"{server}/api/kernels/{learner.start_kernel()}/channels"
    terminal = learner.api("POST", "/user/{name}/api/terminals").json()["name"]
    terminal = f"{server}/terminals/websocket/{terminal}"
    stolen = [
        connect(thief, url) for url in (kernel, terminal, f"{server}/api/events/subscribe", kernel)
    ]
    script = connect(requests.Session(), kernel, Authorization=f"token {learner.token}")
    learner.session.get(f"{hub.url}/hub/logout", timeout=30)
    for channel in stolen:
        wait_until(lambda c=channel: not is_open(c), "the connection is closed", 60)
    assert is_open(script)
    assert run_cell(learner, kernel.split("/")[-2], "print(1)") == "1\n"  # it lives on
    learner.stop_server()


class HubOfAda:
    """A stand-in for the object through which Ada's server queries the hub."""

    api_token = "the server's"
    access_scopes: ClassVar = {"access"}

    def __init__(self, *answers: dict[str, object]):
        """Set the hub's successive answers; each dictionary maps tokens to the hub's replies.

        If a reply is an exception, it is raised.
        """
        self.answers = list(answers)

    def get_token(self, socket: object, in_cookie: bool) -> str:
        return "outdated"

    def _get_token_cookie(self, socket: object) -> str:
        return "ada's"

    def get_session_id(self, socket: object) -> str:
        return ""

    def check_scopes(self, scopes: set[str], user: dict) -> set[str]:
        return scopes & set(user["scopes"])

    async def user_for_token(self, token: str, **_: object) -> dict | None:
        if token == "ada's" and len(self.answers) > 1:
            self.answers.pop(0)
        answer = self.answers[0][token]
        if isinstance(answer, Exception):
            raise answer
        return answer and {"scopes": [answer]}


HERE = {"ada's": "access", "the server's": "access"}
AWAY = {"ada's": web.HTTPError(500), "the server's": web.HTTPError(500)}
WITHOUT_DATABASE = {"ada's": None, "the server's": None}
BACK = {"ada's": web.HTTPError(502), "the server's": "access"}
OUT = {"ada's": None, "the server's": "access"}
UNSHARED = {"ada's": "other", "the server's": "access"}


def server_settings(monkeypatch) -> dict[str, object]:
    """Return the global variables that the learners' server settings define."""
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    for handler in (APIHandler, WorkspacesHandler):
        monkeypatch.setattr(handler, "_track_activity", handler._track_activity)
    for name in ("validate_absolute_path", "get_content_type"):
        monkeypatch.setattr(FileFindHandler, name, getattr(FileFindHandler, name))
    settings = ROOT / "tfcourse" / "prefix" / "etc" / "jupyter" / "jupyter_server_config.py"
    return runpy.run_path(str(settings), {"get_config": Config})


ADA = {"name": "ada"}
FAILS, FORBIDS = web.HTTPError(500), web.HTTPError(403)


@pytest.mark.parametrize(
    ("answers", "outcomes"),
    [
        ([ADA, FAILS, FAILS, ADA], [ADA] * 4),
        ([ADA, "silence", ADA], [ADA] * 3),
        ([ADA, None, FAILS], [ADA, None, 500]),  # the log-out remains in effect
        ([ADA, FAILS, None, FAILS], [ADA, ADA, None, 500]),
        ([ADA, FORBIDS], [ADA, 403]),
        ([FAILS, ADA], [500, ADA]),
        ([None, FAILS], [None, 500]),
    ],
)
def test_who_was_admitted_stays_so_while_the_hub_does_not_answer(monkeypatch, answers, outcomes):
    wrap = server_settings(monkeypatch)["admitted_while_the_hub_is_away"]
    monkeypatch.setitem(wrap.__globals__, "HUB_PATIENCE", 0.05)
    left = list(answers)

    async def ask(*_: object, **__: object) -> object:
        answer = left.pop(0)
        if answer == "silence":
            await asyncio.sleep(60)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def outcome(asked) -> object:
        try:
            return await asked(SimpleNamespace(cache={}), "url", "token", cache_key="ada's")
        except web.HTTPError as error:
            return error.status_code

    async def all_outcomes() -> list[object]:
        asked = wrap(ask)
        return [await outcome(asked) for _ in answers]

    assert asyncio.run(all_outcomes()) == outcomes


def test_nobody_stays_admitted_for_long_without_the_hub(monkeypatch):
    wrap = server_settings(monkeypatch)["admitted_while_the_hub_is_away"]
    monkeypatch.setitem(wrap.__globals__, "HUB_AWAY", -1)
    left = [ADA, FAILS]

    async def ask(*_: object, **__: object) -> object:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def twice() -> None:
        asked = wrap(ask)
        hub = SimpleNamespace(cache={})
        assert await asked(hub, "url", "token", cache_key="ada's") == ADA
        with pytest.raises(web.HTTPError):
            await asked(hub, "url", "token", cache_key="ada's")

    asyncio.run(twice())


@pytest.mark.parametrize(
    ("answers", "closes"),
    [
        ([HERE], False),
        ([HERE, AWAY, AWAY, HERE], False),
        ([HERE, *[WITHOUT_DATABASE] * 9, HERE], False),
        ([HERE, WITHOUT_DATABASE], True),  # as if a thief had deleted the server's token
        ([HERE, WITHOUT_DATABASE, BACK, HERE], False),
        ([HERE, OUT, HERE], False),  # the database recovered between the hub's two answers
        ([HERE, OUT], True),
        ([HERE, AWAY, WITHOUT_DATABASE, OUT], True),
        ([HERE, UNSHARED], True),
    ],
)
def test_connections_stay_open_unless_the_hub_refuses_their_owner(monkeypatch, answers, closes):
    watch = server_settings(monkeypatch)["close_after_log_out"]
    monkeypatch.setitem(watch.__globals__, "SOCKETS_ASK", 0.001)
    closed = []
    socket = SimpleNamespace(
        settings={"identity_provider": SimpleNamespace(hub_auth=HubOfAda(*answers))},
        close=lambda code, reason: closed.append(code),
    )

    async def wait() -> None:
        await asyncio.wait([asyncio.ensure_future(watch(socket))], timeout=0.3)

    asyncio.run(wait())
    assert closed == ([1008] if closes else [])


# Paths on a learner's server: pages, scripts, styles, API responses and the learner's own files.
OF_A_SERVER = [
    "lab",
    "static/lab/index.html",
    "static/style/style.min.css",
    "static/logo/logo.png",
    "lab/extensions/mine/static/own.js",
    "lab/api/themes/@jupyterlab/theme-light-extension/index.css",
    "custom/custom.css",
    "files/tensorflow-course/00_start_here.ipynb",
    "api/contents",
    "api/spec.yaml",
    "api/me",
    "metrics",
]


def test_a_server_answers_only_those_who_may_use_it(hub, working):
    """If a server responded to everyone, any web page could load scripts that a learner wrote."""
    extension = hub.state / "homes" / working.name / ".local/share/jupyter/labextensions/mine"
    (extension / "static").mkdir(parents=True)
    (extension / "static" / "own.js").write_text("alert(1)")
    stranger, classmate = requests.Session(), Learner(hub, "niklaus").session
    working.session.get(f"{hub.url}/user/{working.name}/lab", timeout=60)
    for path in OF_A_SERVER:
        url = f"{hub.url}/user/{working.name}/{path}"
        for outsider in (stranger, classmate):
            page = outsider.get(url, timeout=30)
            assert page.status_code == 403 or page.url.startswith(f"{hub.url}/hub/"), path
    own = working.session.get(f"{hub.url}/user/{working.name}/{OF_A_SERVER[4]}", timeout=30)
    assert own.text == "alert(1)"


@pytest.mark.parametrize(
    ("dest", "site", "status"),
    [("font", "same-origin", 200), ("font", "cross-site", 403), ("empty", "same-origin", 403)],
)
def test_only_a_servers_own_pages_load_its_fonts(hub, working, dest, site, status):
    """Without their fonts, formulas are hard to read."""
    font = next(Path(sys.prefix, "share/jupyter/lab/static").glob("*.woff")).name
    url = f"{hub.url}/user/{working.name}/static/lab/{font}"
    working.session.get(f"{hub.url}/user/{working.name}/lab", timeout=60)
    headers = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": dest, "Sec-Fetch-Site": site}
    assert working.session.get(url, headers=headers, timeout=30).status_code == status


def test_the_hubs_scripts_are_compressed_but_no_pages(hub):
    page = requests.get(f"{hub.url}/hub/login", timeout=30)
    assert "Content-Encoding" not in page.headers
    (script,) = re.findall(r'src="(/hub/static/components/bootstrap/[^"]+)"', page.text)
    script = requests.get(f"{hub.url}{script}", timeout=30)
    assert script.headers["Content-Encoding"] == "gzip"
    assert "max-age=" in script.headers["Cache-Control"]
    assert script.text.lstrip().startswith("/*!")
    large = "components/@fortawesome/fontawesome-free/js/all.min.js"
    script = requests.get(f"{hub.url}/hub/static/{large}", timeout=30)
    # Compressing this script for any visitor would burden the hub.
    assert "Content-Encoding" not in script.headers


def test_scripts_and_data_are_compressed_but_no_pages(hub, working):
    home = f"{hub.url}/user/{working.name}"
    page = working.session.get(f"{home}/lab", timeout=60)
    assert "Content-Encoding" not in page.headers  # its size could reveal its token
    name = next(Path(sys.prefix, "share/jupyter/lab/static").glob("main.*.js"))
    script = working.session.get(f"{home}/static/lab/{name.name}", timeout=60, stream=True)
    assert script.headers["Content-Encoding"] == "gzip"
    assert "max-age=31536000" in script.headers["Cache-Control"]
    sent = script.raw.read(decode_content=False)
    assert len(sent) < name.stat().st_size / 3
    assert gzip.decompress(sent) == name.read_bytes()
    lesson = working.api("GET", "/user/{name}/api/contents/tensorflow-course/05_loss.ipynb")
    assert lesson.headers["Content-Encoding"] == "gzip"
    large = next(Path(sys.prefix, "share/jupyter/lab/static").glob("jlab_core.*.js"))
    script = working.session.get(f"{home}/static/lab/{large.name}", timeout=60)
    assert "Content-Encoding" not in script.headers  # all other requests would wait
    plain = {"Accept-Encoding": "identity"}
    script = working.session.get(f"{home}/static/lab/{name.name}", timeout=60, headers=plain)
    assert "Content-Encoding" not in script.headers
    assert script.content == name.read_bytes()


def test_events_and_parts_of_files_are_not_compressed(hub, working):
    url = "/hub/api/users/{name}/server/progress"
    events = working.api("GET", url, stream=True)
    assert events.headers["Content-Type"] == "text/event-stream"
    assert "Content-Encoding" not in events.headers
    style = f"{hub.url}/hub/static/css/style.min.css"
    part = requests.get(style, headers={"Range": "bytes=0-9999"}, timeout=30)
    assert part.status_code == 206
    assert "Content-Encoding" not in part.headers
    assert part.content == requests.get(style, timeout=30).content[:10_000]


def test_a_copy_that_is_older_than_its_file_is_ignored(tmp_path):
    file, copy = tmp_path / "x.js", tmp_path / "x.js.gz"
    file.touch()
    assert not is_current(str(copy), str(file))
    copy.touch()
    os.utime(file, (1, 1))
    assert is_current(str(copy), str(file))
    os.utime(copy, (0, 0))
    assert not is_current(str(copy), str(file))


def test_a_server_has_nothing_of_the_hub_in_memory(hub, working):
    (server,) = [
        each
        for each in hub.processes()
        if each.environ().get("JUPYTERHUB_USER") == working.name
        and str(SINGLEUSER) in each.cmdline()
        and "die_with_parent" not in " ".join(each.cmdline())
    ]
    mapped = Path(f"/proc/{server.pid}/maps").read_text()
    assert "/zmq/" in mapped
    assert "/sqlalchemy/" not in mapped


def test_another_jupyterhub_that_needs_more_of_its_modules_runs_too(tmp_path):
    package = tmp_path / "packages" / "jupyterhub" / "singleuser"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    needs = "from sqlalchemy import text\n\ndef main():\n    print(text('Hello'), sys.argv[1:])\n"
    (package / "__init__.py").write_text(f"import sys\n{needs}")
    (package / "__main__.py").write_text("from . import main\n\nmain()\n")
    (tmp_path / "types.py").touch()  # a learner's file, in the working directory
    run = subprocess.run(
        [sys.executable, "-P", SINGLEUSER, "--debug"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "packages")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "Hello ['--debug']\n"
    assert "cannot import name 'text'" in run.stderr


EXTENSION = f"""
import runpy
runpy.run_path({str(SINGLEUSER)!r})["load"]()
from jupyterhub import scopes
assert scopes.orm.User.__tablename__ == "users"
import jupyterhub.orm, jupyterhub.roles, sqlalchemy.orm
assert scopes.orm.User is jupyterhub.orm.User
assert scopes.sa.text is sqlalchemy.text
print(jupyterhub.roles.get_default_roles()[0]["name"])
"""


def test_an_extension_of_a_server_can_use_the_hubs_modules():
    command = [sys.executable, "-P", "-c", EXTENSION]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"user\n"


def test_a_terminal_finds_the_courses_programs(hub, working):
    name = working.api("POST", "/user/{name}/api/terminals").json()["name"]
    url = f"{hub.url}/user/{working.name}/terminals/websocket/{name}".replace("http", "ws", 1)
    header = [f"Authorization: token {working.token}"]
    channel = websocket.create_connection(url, header=header, timeout=60)
    with contextlib.closing(channel):
        channel.send(json.dumps(["stdin", "command -v hand-in python; echo the-$((6 * 7))\r"]))
        said = ""
        while "the-42" not in said:
            kind, *content = json.loads(channel.recv())
            said += content[0] if kind == "stdout" else ""
    working.api("DELETE", f"/user/{{name}}/api/terminals/{name}")
    assert f"{sys.prefix}/bin/hand-in" in said
    assert f"{sys.prefix}/bin/python" in said


@pytest.mark.parametrize(
    "path",
    [
        "git-pull?repo=/tmp/x&targetpath=tensorflow-course",
        "git-pull/api?repo=/tmp/x&targetpath=tensorflow-course",
        "lsp/status",
    ],
)
def test_what_no_lesson_needs_is_off(hub, working, path):
    assert working.api("GET", f"/user/{{name}}/{path}").status_code == 404


def test_nobody_changes_what_jupyterlab_consists_of(working):
    assert working.api("GET", "/user/{name}/lab/api/build").status_code == 405
    assert working.api("POST", "/user/{name}/lab/api/build").status_code == 405
    request = {"cmd": "disable", "plugin_name": "@jupyterlab/notebook-extension:tracker"}
    response = working.api("POST", "/user/{name}/lab/api/plugins", json=request)
    assert response.json().get("status") != "ok", response.text
    page = working.session.get(f"{working.hub.url}/user/{working.name}/lab", timeout=60).text
    assert '"buildAvailable": false' in page  # so JupyterLab does not suggest a rebuild


def test_no_extension_is_installed_from_the_internet(working):
    request = {"cmd": "install", "extension_name": "jupyterlab-git"}
    response = working.api("POST", "/user/{name}/lab/api/extensions", json=request)
    assert response.json().get("status") != "ok", response.text

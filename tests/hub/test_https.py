"""Test HTTPS on a class hub, with real certificates from our own certificate authority."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from authority import DAY, Authority
from cryptography import x509
from docker.models.networks import Network
from hubs import ClassHub, ClassLearner, free_ports, post, run_cell, run_in, wait_until
from playwright.sync_api import BrowserContext, Page, sync_playwright
from requests.adapters import HTTPAdapter

from tfcourse.hub.front import https

HOST = "hub.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def address(engine) -> Iterator[str]:
    """Return a non-loopback address that only this machine can reach."""
    network: Network = engine.networks.create(f"course-test-https-{os.getpid()}", internal=True)
    network.reload()
    yield network.attrs["IPAM"]["Config"][0]["Gateway"]
    network.remove()


@pytest.fixture(scope="module")
def trusted(authority, address) -> Iterator[Path]:
    """Resolve the hub's names to `address` in this process; return the process's CA bundle."""
    found = socket.getaddrinfo

    def getaddrinfo(name, *rest, **options):
        ours = name == HOST or str(name).endswith(f".{HOST}")
        return found(address if ours else name, *rest, **options)

    bundle = authority.folder / "trusted.pem"
    shutil.copy(authority.root, bundle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        patch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        patch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", str(bundle))
        yield bundle


@pytest.fixture(scope="module")
def new_secure_hub(new_hub, address, trusted) -> Callable[..., ClassHub]:
    """Return a function that creates hubs with HTTPS."""

    def new(**environment: str) -> ClassHub:
        hub = new_hub()
        hub.https, hub.http = (free_ports() for _ in range(2))
        hub.url = f"https://{HOST}:{hub.https}"
        hub.environment |= {"COURSE_HOST": HOST, "COURSE_ADDRESS": address}
        hub.environment |= {"COURSE_HTTPS_PORT": str(hub.https), "COURSE_HTTP_PORT": str(hub.http)}
        hub.environment |= environment
        return hub

    return new


@pytest.fixture(scope="module")
def hub(engine, image, authority, address, trusted, new_secure_hub) -> Iterator[ClassHub]:
    """Return a hub that obtains its certificate through ACME, as it would from Let's Encrypt."""
    port = free_ports()
    hub = new_secure_hub(
        COURSE_ACME_DIRECTORY=f"https://127.0.0.1:{port}/dir",
        COURSE_ACME_ROOT=str(authority.root),
    )
    certificate, key = authority.issue("acme", "127.0.0.1")
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{port + 1}",
        "certificate": f"/srv/{certificate.name}",
        "privateKey": f"/srv/{key.name}",
        "httpPort": hub.http,
        "tlsPort": hub.https,
        "certificateValidityPeriod": 86400 * 90,
    }
    (authority.folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    acme = engine.containers.run(
        image("acme"),
        detach=True,
        network_mode="host",
        extra_hosts={HOST: address},
        environment={"PEBBLE_VA_NOSLEEP": "1"},
        volumes={str(authority.folder): {"bind": "/srv", "mode": "ro"}},
    )
    try:
        wait_until(lambda: b"Listening on" in acme.logs(), "the authority listens")
        root = requests.get(f"https://127.0.0.1:{port + 1}/roots/0", timeout=30).text
        trusted.write_text(trusted.read_text() + root)
        hub.said = hub.make("up")
        hub.admin_password = re.search(r"Password +(\S+)", hub.said)[1]
        yield hub
    finally:
        acme.remove(force=True)
        hub.remove()


@pytest.fixture(scope="module")
def ada(hub) -> ClassLearner:
    """Return a learner with a server."""
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    return ada


def served(hub: ClassHub, name: str = HOST) -> x509.Certificate:
    """Return the certificate that the hub presents to browsers."""
    context = ssl.create_default_context(cafile=os.environ["REQUESTS_CA_BUNDLE"])
    with (
        socket.create_connection((HOST, hub.https), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname=name) as secure,
    ):
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))


# --- An automatically obtained certificate


def test_the_hub_is_at_its_name_with_a_certificate(hub):
    assert f"Address   https://{HOST}:{hub.https}\n" in hub.said
    assert hub.is_healthy()
    assert "Pebble" in served(hub).issuer.rfc4514_string()
    page = hub.session().get(f"{hub.url}/hub/login", timeout=30)
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert not re.findall(r'(?:href|src|action)="http:', page.text)
    assert "ERROR" not in hub.log("https")


def test_http_leads_to_https(hub):
    page = requests.get(f"http://{HOST}:{hub.http}/hub/login?x=1", allow_redirects=False, timeout=9)
    assert page.status_code == 301
    assert page.headers["Location"] == f"{hub.url}/hub/login?x=1"


def test_only_caddy_is_open_to_others(hub, address):
    ports = (hub.port, hub.port + 2, hub.https, hub.http)
    sockets = psutil.net_connections("tcp")
    listening = {s.laddr.port: s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
    assert [listening[port] for port in ports] == ["127.0.0.1"] * 2 + [address] * 2


def test_caddy_may_listen_and_nothing_else(hub):
    caddy = hub.container("https")
    limits = caddy.attrs["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert not limits["Privileged"]
    status = run_in(caddy, "cat", "/proc/1/status")
    rights = {line.split(":\t")[0]: line.split(":\t")[1] for line in status.splitlines()}
    assert int(rights["CapBnd"], 16) == int(rights["CapEff"], 16) == 1 << 10  # NET_BIND_SERVICE
    assert rights["NoNewPrivs"] == "1"
    listen = "import socket; socket.create_server(('127.0.0.1', 7))"  # a privileged port, like 443
    assert caddy.exec_run(["python", "-c", listen]).exit_code == 0
    mounts = {mount["Destination"] for mount in caddy.attrs["Mounts"]}
    files = {"/srv/certificate.pem", "/srv/key.pem", "/srv/acme-root.pem"}
    assert mounts == {"/srv/certificates", *files}


def test_cookies_are_sent_over_https_alone(ada):
    page = ada.session.get(f"{ada.hub.url}/user/ada/lab", timeout=60)
    assert page.url.startswith(f"{ada.hub.url}/user/ada/lab")
    cookies = {cookie.name: cookie for cookie in ada.session.cookies}
    assert {"jupyterhub-hub-login", "jupyterhub-user-ada", "_xsrf"} <= set(cookies)
    assert [cookie.name for cookie in ada.session.cookies if not cookie.secure] == []
    assert cookies["jupyterhub-hub-login"].path == "/hub/"  # not sent to learners' servers


def test_a_kernel_runs_a_cell(ada):
    assert run_cell(ada, ada.start_kernel(), "print(6 * 7)") == "42\n"


def test_progress_is_told_while_a_server_starts(hub):
    grace = ClassLearner(hub, "grace")
    with ThreadPoolExecutor() as another:
        another.submit(grace.start_server)
        wait_until(grace.server, "the server is starting")
        events = grace.api("GET", "/hub/api/users/{name}/server/progress", stream=True)
        told = (json.loads(line[5:]) for line in events.iter_lines() if line.startswith(b"data:"))
        assert next(told)["progress"] < 100
        assert not grace.server()["ready"]  # the first event arrived before the server was ready
        assert list(told)[-1]["ready"]


def test_a_large_file_goes_through(ada):
    content = os.urandom(110 * 2**20)
    model = {"type": "file", "format": "base64", "content": b64encode(content).decode()}
    ada.api("PUT", "/user/{name}/api/contents/large.bin", json=model).raise_for_status()
    back = ada.api("GET", "/user/{name}/files/large.bin").content
    assert hashlib.sha256(back).digest() == hashlib.sha256(content).digest()


class From(HTTPAdapter):
    """An HTTP adapter that sends requests from a given local address."""

    def __init__(self, source: str):
        self.source = source
        super().__init__()

    def init_poolmanager(self, *rest, **options):
        super().init_poolmanager(*rest, source_address=(self.source, 0), **options)


def test_wrong_passwords_are_counted_for_the_learners_address(hub, address):
    hub.admit("guessed")
    network = hub.engine.networks.get(hub.name)

    def log_in(source: str, password: str, forged: str) -> requests.Response:
        session = requests.Session()
        session.mount("https://", From(source))
        session.headers["X-Forwarded-For"] = session.headers["X-Real-Ip"] = forged
        session.get(f"{hub.url}/hub/login", timeout=30)
        form = {"username": "guessed", "password": password}
        return post(session, f"{hub.url}/hub/login", data=form)

    codes = [log_in(address, "wrong", f"203.0.113.{n}").status_code for n in range(6)]
    assert codes == [200] * 5 + [429]
    elsewhere = network.attrs["IPAM"]["Config"][0]["Gateway"]
    page = log_in(elsewhere, hub.password, address)
    assert page.url == f"{hub.url}/hub/spawn", page.text
    assert f"(guessed@{elsewhere})" in hub.log("hub")


def test_the_log_has_no_tokens(hub, ada):
    proxy = hub.container("proxy")
    proxy.stop()
    secret = {"Authorization": "token s3cret", "Cookie": "a=s3cret", "Referer": "/?token=s3cret"}
    url = f"{hub.url}/user/ada/lab?token=s3cret"
    page = requests.get(url, headers=secret, timeout=30)
    proxy.start()
    assert page.status_code == 502
    assert '"uri": "/user/ada/lab"' in hub.log("https")
    assert "s3cret" not in hub.log("https")
    wait_until(lambda: ada.api("GET", "/user/{name}/api/status").ok, "the proxy is back")


def test_a_killed_caddy_comes_back_with_its_certificate(hub, ada):
    kernel = ada.start_kernel()
    assert run_cell(ada, kernel, "x = 6 * 7") == ""
    before = served(hub).serial_number
    caddy = hub.container("https")
    caddy.exec_run(["sh", "-c", "kill -9 -1"])
    began = caddy.attrs["State"]["StartedAt"]
    again = lambda: hub.container("https").attrs["State"]["StartedAt"] != began  # noqa: E731
    wait_until(again, "Caddy has restarted", seconds=10)

    def works() -> bool:
        try:
            return ada.api("GET", "/user/{name}/api/status").ok
        except requests.RequestException:
            return False

    wait_until(works, "Caddy works again", seconds=10)
    assert run_cell(ada, kernel, "print(x)") == "42\n"
    assert served(hub).serial_number == before


def test_down_and_up_keep_the_certificate_and_running_servers(hub, ada):
    before = served(hub).serial_number
    hub.make("down")
    hub.up()
    assert served(hub).serial_number == before
    wait_until(lambda: ada.api("GET", "/user/{name}/api/status").ok, "the server can be reached")


def test_a_name_that_does_not_lead_here_gets_a_sentence(hub, new_secure_hub):
    stray = new_secure_hub(COURSE_HOST=f"stray.{HOST}")
    stray.environment |= {k: v for k, v in hub.environment.items() if k.startswith("COURSE_ACME")}
    began = time.monotonic()
    with pytest.raises(
        AssertionError, match=r"There is no certificate for stray.hub.test: .*no such host"
    ):
        stray.make("up")
    assert time.monotonic() - began < 60  # `make up` fails without waiting for a time-out
    stray.remove()


# --- The operator's own certificate, and a separate host name for each learner's server


@pytest.fixture(scope="module")
def wildcard(authority, new_secure_hub) -> ClassHub:
    certificate, key = authority.issue("wildcard", HOST, f"*.{HOST}")
    hub = new_secure_hub(
        COURSE_CERTIFICATE=str(certificate), COURSE_KEY=str(key), COURSE_SUBDOMAINS="on"
    )
    hub.up()
    return hub


@pytest.fixture(scope="module")
def victim(wildcard) -> ClassLearner:
    victim = ClassLearner(wildcard, "bob")
    victim.start_server()
    return victim


@pytest.fixture
def browser(address, launch) -> Iterator[BrowserContext]:
    """Return a browser context in which the hub's host names resolve to `address`."""
    rules = f"MAP {HOST} {address}, MAP *.{HOST} {address}"
    with sync_playwright() as playwright:
        browser = launch(playwright, f"--host-resolver-rules={rules}")
        yield browser.new_context(ignore_https_errors=True)
        browser.close()


def lab(browser: BrowserContext, learner: ClassLearner) -> Page:
    """Log in through the hub's own host name; return a page with the learner's JupyterLab."""
    page = browser.new_page()
    page.goto(f"{learner.hub.url}/hub/login")
    page.fill("[name=username]", learner.name)
    page.fill("[name=password]", learner.hub.password)
    page.press("[name=password]", "Enter")
    page.wait_for_url(f"**/user/{learner.name}/lab**", wait_until="commit")
    return page


# This script runs a cell with the browser's cookies, as a notebook in a browser does.
RUN = """async (base) => {
    const xsrf = document.cookie.match(/_xsrf=([^;]*)/)[1];
    const options = {method: "POST", headers: {"X-XSRFToken": xsrf}, body: "{}"};
    const kernel = await (await fetch(base + "/api/kernels", options)).json();
    const path = `${base}/api/kernels/${kernel.id}/channels`;
    const channel = new WebSocket(`wss://${location.host}${path}`);
    await new Promise((opened, failed) => { channel.onopen = opened; channel.onerror = failed; });
    const header = {msg_id: "x", msg_type: "execute_request", session: "x", username: ""};
    const message = {header, parent_header: {}, metadata: {}, channel: "shell"};
    const printed = new Promise((found) => { channel.onmessage = (event) => {
        const reply = JSON.parse(event.data);
        if (reply.msg_type === "stream") found(reply.content.text);
    }; });
    channel.send(JSON.stringify({...message, content: {code: "print(6 * 7)", silent: false}}));
    return await printed;
}"""


def test_a_learners_server_has_a_name_of_its_own(wildcard, victim, browser):
    assert wildcard.is_healthy()
    page = lab(browser, victim)
    assert page.url.startswith(f"https://bob.{HOST}:{wildcard.https}/user/bob/lab")
    assert page.evaluate(RUN, "/user/bob") == "42\n"
    cookies = {cookie["name"]: cookie for cookie in browser.cookies()}
    assert "__Host-jupyterhub-hub-login" in cookies
    assert "__Host-jupyterhub-user-bob" in cookies
    assert [name for name, cookie in cookies.items() if not cookie["secure"]] == []


# These scripts do what a malicious learner's page could do in a visitor's browser.
OPEN = "url => { window.opened = window.open(url); }"
READ = """() => {
    try { return opened.document.body.innerText; } catch (error) { return error.name; }
}"""


def spy(browser: BrowserContext, origin: str, url: str) -> tuple[str, str]:
    """Return what a visitor sees at `url`, and what a script from `origin` can read there."""
    page = browser.new_page()
    page.route("**/mallory.html", lambda route: route.fulfill(body="", content_type="text/html"))
    page.goto(f"{origin}/user/mallory/mallory.html")
    with page.expect_popup() as popup:
        page.evaluate(OPEN, url)
    # If a Docker network appears or disappears while the page loads, Chromium shows an error and
    # retries.
    popup.value.wait_for_url(url)
    return popup.value.inner_text("body"), page.evaluate(READ)


def test_nobody_logs_in_where_a_learners_script_runs(wildcard, victim):
    url = f"https://bob.{HOST}:{wildcard.https}/hub/login?next=x"
    page = requests.get(url, allow_redirects=False, timeout=30)
    assert page.status_code == 302
    assert page.headers["Location"] == f"{wildcard.url}/hub/login?next=x"


def test_services_have_the_hubs_name():
    assert https.name_of("grafana", HOST, "service") == HOST
    assert https.name_of("bob", HOST, "user") == f"bob.{HOST}"


def test_a_learners_script_reads_nothing_of_the_hub_or_of_others(wildcard, victim, browser):
    lab(browser, victim)
    mallory = f"https://mallory.{HOST}:{wildcard.https}"
    bob = f"https://bob.{HOST}:{wildcard.https}/user/bob/api/contents"
    for own, url, secret in (
        (f"https://bob.{HOST}:{wildcard.https}", bob, "tensorflow-course"),
        (wildcard.url, f"{wildcard.url}/hub/home", "bob"),
    ):
        # A page with the same origin can read the secret.
        shown, read = spy(browser, own, url)
        assert secret in shown
        assert read == shown
        shown, read = spy(browser, mallory, url)
        assert secret in shown
        assert read == "SecurityError"


def test_without_names_of_their_own_it_reads_both(hub, ada, browser):
    """The README and the operator's guide warn of this risk; if this test fails, update them."""
    lab(browser, ada)
    assert "ada" in spy(browser, hub.url, f"{hub.url}/hub/home")[1]
    assert "tensorflow-course" in spy(browser, hub.url, f"{hub.url}/user/ada/api/contents")[1]


def connect(hub: ClassHub, request: bytes) -> ssl.SSLSocket:
    """Send a complete or incomplete request; return the connection."""
    context = ssl.create_default_context(cafile=os.environ["REQUESTS_CA_BUNDLE"])
    connection = socket.create_connection((HOST, hub.https), timeout=60)
    secure = context.wrap_socket(connection, server_hostname=HOST)
    secure.sendall(request)
    return secure


def test_strangers_cannot_fill_the_memory_or_the_log_of_caddy(wildcard):
    begin = b"GET /hub/health HTTP/1.1\r\nHost: %s\r\nX: " % f"{HOST}:{wildcard.https}".encode()
    with connect(wildcard, begin + b"x" * 100_000) as large, connect(wildcard, begin) as slow:
        assert b" 431 " in large.recv(100)
        began = time.monotonic()
        assert b" 408 " in slow.recv(100) or not slow.recv(100)
        assert 20 < time.monotonic() - began < 50
    with connect(wildcard, begin + b"x" * 15_000 + b"\r\n\r\n") as usual:
        assert b" 200 " in usual.recv(100)
    # This is the largest file that visitors can download without logging in.
    icons = "/hub/static/components/@fortawesome/fontawesome-free/metadata/icon-families.json"
    request = begin.replace(b"/hub/health", icons.encode()) + b"x\r\n\r\n"
    for _ in range(5):
        with connect(wildcard, request) as connection:
            assert b" 200 " in connection.recv(100)
    time.sleep(1)
    assert "ERROR" not in wildcard.log("https")


def test_up_takes_a_new_certificate_and_leaves_the_rest_alone(authority, wildcard):
    before = served(wildcard).serial_number
    others = [wildcard.container(service).id for service in ("hub", "proxy")]
    authority.issue("wildcard", HOST, f"*.{HOST}")
    wildcard.up()
    assert served(wildcard).serial_number != before
    assert [wildcard.container(service).id for service in ("hub", "proxy")] == others


def test_a_port_that_is_in_use_gets_a_sentence(hub, address, new_secure_hub):
    second = new_secure_hub()
    sentence = f"Port {second.https} cannot be used: Address already in use. Stop the program"
    with (
        socket.create_server((address, second.https)),
        pytest.raises(AssertionError, match=sentence) as end,
    ):
        second.make("up")
    assert "The service `https` exits as soon as it starts." in str(end.value)
    second.remove()


def test_without_a_host_name_there_is_no_caddy_any_more(wildcard):
    said = wildcard.make("up", COURSE_HOST="", COURSE_SUBDOMAINS="", COURSE_ADDRESS="")
    assert f"Address   http://127.0.0.1:{wildcard.port}\n" in said
    with pytest.raises(ValueError, match="not enough values"):
        wildcard.container("https")


# --- Invalid settings


@pytest.mark.parametrize("path", ["/nowhere/certificate.pem", "certificate.pem", "/srv"])
def test_a_file_that_is_not_there_gets_a_sentence(new_secure_hub, path):
    hub = new_secure_hub(COURSE_CERTIFICATE=path, COURSE_KEY=path)
    with pytest.raises(AssertionError, match=f"there is no file {path}. Give an absolute path"):
        hub.make("up")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"COURSE_HOST": "https://hub.example.org"}, "has to be just a host name"),
        ({"COURSE_HOST": "198.51.100.7"}, "has to be just a host name"),
        ({"COURSE_HOST": "hub..org"}, "has to be just a host name"),
        ({"COURSE_HOST": "hub.example.org:443"}, "has to be just a host name"),
        ({"COURSE_HOST": "-hub.org"}, "has to be just a host name"),
        ({"COURSE_SUBDOMAINS": "on"}, "COURSE_SUBDOMAINS is on, but that needs COURSE_HOST"),
        ({"COURSE_HOST": HOST, "COURSE_SUBDOMAINS": "on"}, "certificate for its subdomains"),
        ({"COURSE_HOST": HOST, "COURSE_SUBDOMAINS": "yes"}, "it has to be 'off' or 'on'."),
        ({"COURSE_HOST": HOST, "COURSE_CERTIFICATE": "/a.pem"}, "set both or neither."),
        ({"COURSE_HOST": HOST, "COURSE_KEY": "/a.pem"}, "set both or neither."),
        (
            {"COURSE_HOST": HOST, "COURSE_HTTPS_PORT": "https"},
            "has to be a number from 1 to 65535.",
        ),
    ],
)
def test_a_setting_that_cannot_be_gets_a_sentence(monkeypatch, environment, sentence):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        https.main()


@pytest.mark.parametrize("name", [HOST, "HUB.Example.org", "localhost", "hub.3d-lab.org", "1.2.x"])
def test_a_host_name_is_taken(monkeypatch, name):
    monkeypatch.setenv("COURSE_HOST", name)
    assert https.host() == name.lower()


def test_a_certificate_that_cannot_be_used_gets_a_sentence(authority):
    good = authority.issue("good", HOST, f"*.{HOST}")
    other = authority.issue("other", "www.hub.test")
    old = authority.issue("old", HOST, valid=(-3 * DAY, -DAY))
    new = authority.issue("new", HOST, valid=(DAY, 3 * DAY))
    https.check_certificate(*good, [HOST, f"*.{HOST}"])
    https.check_certificate(*good, [f"ada.{HOST}"])
    for certificate, key, names, sentence in [
        (*other, [HOST], "is for www.hub.test, but it has to be for hub.test."),
        (*other, [f"*.{HOST}"], r"but it has to be for \*.hub.test."),
        (good[0], other[1], [HOST], "COURSE_KEY does not match COURSE_CERTIFICATE"),
        (*old, [HOST], "but this server's clock says 2"),
        (*new, [HOST], "Renew it, or set the clock. Then run `make up`."),
        (good[1], good[0], [HOST], "COURSE_CERTIFICATE is not a certificate in PEM format."),
        (good[0], good[0], [HOST], "COURSE_KEY is not an unencrypted private key in PEM format"),
        (good[0], authority.folder, [HOST], "COURSE_KEY cannot be read: Is a directory."),
    ]:
        with pytest.raises(SystemExit, match=sentence):
            https.check_certificate(certificate, key, names)

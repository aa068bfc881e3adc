"""Test a class hub that `make up` starts in real containers, including misuse and crashes."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
import requests
from hubs import IMAGE, ClassHub, ClassLearner, post, run_cell, wait_until

from tfcourse.hub import settings
from tfcourse.hub.front import addresses, proxy
from tfcourse.hub.operations import __main__ as operations
from tfcourse.hub.spawners import containers, network
from tfcourse.hub.spawners.names import LABEL


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    """Return a running hub for tests that do not stop it."""
    hub = new_hub()
    hub.up()
    return hub


@pytest.fixture(scope="module")
def ada(hub) -> ClassLearner:
    """Return a learner with a server."""
    ada = ClassLearner(hub, "ada")
    ada.start_server(json={"profile": "tensorflow-cpu"})
    return ada


@pytest.fixture(scope="module")
def grace(hub) -> ClassLearner:
    """Return a learner without a server."""
    return ClassLearner(hub, "grace")


@pytest.fixture(scope="module")
def bob(hub) -> ClassLearner:
    """Return another learner with a server."""
    bob = ClassLearner(hub, "bob")
    bob.start_server()
    return bob


# --- Accounts


def test_who_signs_up_waits_for_the_instructor(hub):
    assert "once your instructor lets you in" in hub.sign_up("eve")
    assert "Your instructor has to let eve in first." in hub.login("eve").text
    assert "Invalid username or password" in hub.login("eve", "wrong").text
    # If two instructors approve the same learner, the second approval must change nothing.
    hub.authorize("eve")
    hub.authorize("eve")
    assert hub.login("eve").url == f"{hub.url}/hub/spawn"
    with pytest.raises(requests.HTTPError, match="400"):
        hub.authorize("eve", "")


@pytest.mark.parametrize("name", ["instructor", "Instructor", "INSTRUCTOR"])
def test_nobody_signs_up_as_the_administrator(hub, name):
    assert "already in use" in hub.sign_up(name)
    page = hub.login("instructor", hub.admin_password)
    assert 'href="/hub/authorize"' in page.text
    assert page.session.get(f"{hub.url}/hub/admin", timeout=30).status_code == 200


def test_who_is_shut_out_is_logged_out(hub):
    learner = ClassLearner(hub, "leaving")
    learner.start_server()
    assert "leaving" in hub.authorize("leaving", "no").text
    assert "Your instructor has to let" in hub.login("leaving").text

    def refused() -> bool:
        page = learner.session.get(f"{hub.url}/hub/home", timeout=30)
        return page.url.startswith(f"{hub.url}/hub/login")

    wait_until(refused, "the session has ended")
    assert learner.api("GET", "/hub/api/users/{name}").status_code == 403
    wait_until(lambda: not hub.servers("leaving"), "the server is stopped")
    hub.authorize("leaving")
    assert refused(), "the old session is back"
    assert learner.api("GET", "/hub/api/users/{name}").status_code == 403
    assert hub.login("leaving").url == f"{hub.url}/hub/spawn"


def test_a_link_changes_no_account(hub):
    hub.sign_up("patient")
    admin = hub.login("instructor", hub.admin_password).session
    let_in = {"let_in": "yes"}
    for action in ("authorize", "discard"):
        page = admin.get(f"{hub.url}/hub/{action}/patient", params=let_in, timeout=30)
        assert page.url == f"{hub.url}/hub/authorize"
        forged = admin.post(f"{hub.url}/hub/{action}/patient", data=let_in, timeout=30)
        assert forged.status_code == 403
        assert "Your instructor has to let" in hub.login("patient").text
    grace = ClassLearner(hub, "hopeful").session
    assert post(grace, f"{hub.url}/hub/authorize/patient", data=let_in).status_code == 403
    for name in ("instructor", "Instructor"):
        page = post(admin, f"{hub.url}/hub/authorize/{name}", data={"let_in": "no"})
        assert page.status_code == 400
    assert post(admin, f"{hub.url}/hub/authorize/nobody", data=let_in).status_code == 404
    post(admin, f"{hub.url}/hub/discard/patient").raise_for_status()
    assert "Invalid username" in hub.login("patient").text


def test_log_in_attempts_are_limited(hub):
    ClassLearner(hub, "guessed")
    for _ in range(5):
        assert "Invalid username or password" in hub.login("guessed", "wrong").text
    page = hub.login("guessed")  # even the correct password is refused during the lockout
    assert page.status_code == 429
    assert re.search(r"too many wrong passwords\. Try again in \d+ seconds\.", page.text)


def test_the_administrators_name_is_refused_if_it_could_be_taken(new_hub):
    hub = new_hub()
    with pytest.raises(
        AssertionError, match="COURSE_ADMIN is 'Teacher', which is not a valid user name"
    ):
        hub.up(COURSE_ADMIN="Teacher")  # log-in names are lower-cased, so this could never match


@pytest.mark.parametrize(
    ("read", "variable", "value", "sentence"),
    [
        (settings.CPUS, "COURSE_CPUS", "two", "more than 0."),
        (settings.CPUS, "COURSE_CPUS", "0", "more than 0."),
        (settings.IDLE_MINUTES, "COURSE_IDLE_MINUTES", "nan", "a number, 0 or more."),
        (settings.MEMORY, "COURSE_MEMORY", "3GB", "like 3G or 1500M."),
        (proxy.main, "COURSE_PORT", "443", "choose a higher one."),
    ],
)
def test_a_setting_that_cannot_be_gets_a_sentence(monkeypatch, read, variable, value, sentence):
    """Read the settings as the containers do, but without starting any containers."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as end:
        read()
    assert value in str(end.value)
    assert str(end.value).endswith(sentence)


def test_the_limit_does_not_believe_what_a_request_says_of_itself(hub):
    ClassLearner(hub, "named")
    for attempt in range(6):
        session = requests.Session()
        session.headers["X-Real-Ip"] = f"203.0.113.{attempt}"
        session.get(f"{hub.url}/hub/login", timeout=30)
        form = {"username": "named", "password": "wrong"}
        page = post(session, f"{hub.url}/hub/login", data=form)
    assert page.status_code == 429


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("172.18.0.1", "198.51.100.7", "198.51.100.7"),
        ("172.18.0.1", "6.6.6.6, 198.51.100.7", "198.51.100.7"),  # The first address is forged.
        ("172.18.0.1", "6.6.6.6, 198.51.100.7, ::ffff:127.0.0.1", "198.51.100.7"),  # Behind HTTPS.
        ("172.18.0.1", "127.0.0.1", "172.18.0.1"),
        ("172.18.0.1", "", "172.18.0.1"),
        ("172.18.0.9", "198.51.100.7", "172.18.0.9"),  # A learner's server bypasses the proxy.
        ("172.18.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("172.18.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),  # One person's /64.
        ("172.18.0.1", "6.6.6.6, 198.51.100.7, 10.1.2.3", "198.51.100.7"),  # A trusted proxy.
        ("172.18.0.1", "198.51.100.7, ::ffff:10.1.2.3, ::1", "198.51.100.7"),
        ("172.18.0.1", "198.51.100.7, 11.1.2.3", "11.1.2.3"),  # An untrusted proxy.
        ("172.18.0.1", "198.51.100.7, unknown", "unknown"),
        ("172.18.0.9", "198.51.100.7, 10.1.2.3", "172.18.0.9"),
    ],
)
def test_an_address_is_what_the_proxies_say(monkeypatch, peer, forwarded, address):
    monkeypatch.setenv("COURSE_TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8:9::/48")
    assert addresses.address_of(request(peer, forwarded)) == address


def test_a_proxy_on_another_machine_is_one_that_the_hub_knows(monkeypatch):
    """The hub trusts headers from the proxy's pod, but not from learners' pods."""
    monkeypatch.setenv("COURSE_TRUSTED_PROXIES", "10.0.0.0/8")
    monkeypatch.setattr(addresses, "own_proxies", {"10.244.2.9"})
    forwarded = "198.51.100.7, 10.244.7.3"
    assert addresses.address_of(request("10.244.2.9", forwarded)) == "198.51.100.7"
    assert addresses.address_of(request("10.244.2.10", forwarded)) == "10.244.2.10"


def request(peer: str, forwarded: str) -> SimpleNamespace:
    """Return a stand-in for a Tornado request object on a hub with the address 172.18.0.1."""
    here = SimpleNamespace(getsockname=lambda: ("172.18.0.1", 8001))
    stream = SimpleNamespace(socket=here, closed=lambda: False)
    context = SimpleNamespace(_orig_remote_ip=peer)
    return SimpleNamespace(
        headers={"X-Forwarded-For": forwarded},
        connection=SimpleNamespace(context=context, stream=stream),
    )


def test_a_log_in_form_that_is_too_old_or_not_complete_gets_a_page(hub):
    session = hub.session()
    page = session.post(f"{hub.url}/hub/login", data={"username": "x", "password": "y"}, timeout=30)
    assert page.status_code == 403
    assert "403 Forbidden" in page.text
    assert "Open the log-in page again." in page.text
    for form, says in (
        ({"username": "instructor"}, "Invalid username or password"),
        ({"password": "x"}, "A user name has at most 32 characters"),
        ({"username": "a", "password": ""}, "Invalid username or password"),
    ):
        page = post(session, f"{hub.url}/hub/login", data=form)
        assert says in page.text


def test_a_deleted_learners_name_and_home_are_not_for_the_next_one(hub):
    zoe = ClassLearner(hub, "zoe")
    admin = hub.login("instructor", hub.admin_password).session
    token = post(admin, f"{hub.url}/hub/api/users/instructor/tokens", json={}).json()["token"]
    headers = {"Authorization": f"token {token}"}
    url = f"{hub.url}/hub/api/users/zoe"
    requests.delete(url, headers=headers, timeout=30).raise_for_status()
    assert zoe.api("GET", "/hub/api/user").status_code == 403
    assert "already in use" in hub.sign_up("zoe", "another horse 9")
    assert "Invalid username" in hub.login("zoe").text
    # A sign-up cannot claim a user name that the administrator has added manually.
    made = requests.post(f"{hub.url}/hub/api/users/boss", headers=headers, timeout=30)
    made.raise_for_status()
    assert "This user name is reserved." in hub.sign_up("boss")


def test_a_password_longer_than_can_be_checked_is_a_wrong_one(hub):
    page = hub.login("instructor", "x" * 1000)
    assert page.status_code == 200
    assert "Invalid username or password" in page.text


def test_status_counts_the_learners_servers(hub, ada):
    (running,) = re.findall(r"^Learners' servers running: (\d+)$", hub.make("status"), re.M)
    assert int(running) == len(hub.servers()) > 0


def test_open_sign_up_lets_in_at_once(new_hub):
    hub = new_hub()
    hub.up(COURSE_SIGNUP="open")
    assert "You can log in now." in hub.sign_up("eve")
    assert hub.login("eve").url == f"{hub.url}/hub/spawn"


# --- A learner's server


def test_the_picker_says_why_there_is_no_gpu(ada):
    if "nvidia" in ada.hub.engine.info()["Runtimes"]:
        pytest.skip("this machine may have a GPU")
    assert re.search(r'value="tensorflow-gpu"[^>]*disabled', ada.response.text)
    assert "this server has no NVIDIA GPU that Docker can use" in ada.response.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "tensorflow-gpu"}, "TensorFlow (GPU): Not available"),
        ({"profile": "nope"}, "There is no environment called 'nope'"),
        ({"image": "debian:trixie-slim"}, "The option 'image' does not exist"),
        ({"device_requests": [{}]}, "The option 'device_requests' does not exist"),
        (["tensorflow-cpu"], "The options are"),
    ],
)
def test_nothing_else_can_be_had_through_the_api(grace, options, sentence):
    response = grace.api("POST", "/hub/api/users/{name}/server", json=options)
    assert response.status_code == 400
    assert response.json()["message"].startswith(sentence)
    assert grace.server() is None


def test_lessons_and_data_are_there(ada):
    assert "05_loss.ipynb" in ada.run("ls", "/home/jovyan/tensorflow-course").split()
    load = "import keras; print(keras.datasets.mnist.load_data()[0][0].shape)"
    assert run_cell(ada, ada.start_kernel(), load).endswith("(60000, 28, 28)\n")


def test_limits_are_the_engines(ada):
    limits = ada.container.attrs["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == 3 * 2**30
    assert limits["CpuQuota"] == 2 * limits["CpuPeriod"]
    assert limits["PidsLimit"] == 1024
    assert limits["ShmSize"] == 256 * 2**20
    assert int(ada.run("cat", "/proc/1/oom_score_adj")) == 500
    assert limits["LogConfig"] == {"Type": "local", "Config": {"max-file": "2", "max-size": "5m"}}
    assert "cpu" in ada.container.image.tags[0]
    kernel = ada.start_kernel()
    threads = "import os; print(os.environ['TF_NUM_INTRAOP_THREADS'])"
    assert run_cell(ada, kernel, threads) == "2\n"


def test_a_fork_bomb_ends_at_the_limit_and_hurts_nobody(ada, bob):
    bomb = """
import os, time
children = []
try:
    while len(children) < 3000:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
except OSError as error:
    print(len(children), error.strerror)
for pid in children:
    os.kill(pid, 9)
"""
    said = ada.run("python", "-c", bomb)  # prints nothing if all 3000 processes can start
    count, reason = said.split(" ", 1)
    assert int(count) < 1024
    assert reason == "Resource temporarily unavailable\n"
    assert bob.api("GET", "/user/{name}/api/status").ok


# --- Isolation


def test_a_learner_cannot_fill_the_systems_disk(ada):
    """Docker's files and the hub's accounts are usually on the same disk."""
    everywhere = "find / ! -type l ! -path '/proc/*' ! -path '/sys/*' -writable -print 2>/dev/null"
    found = ada.run("sh", "-c", f"{everywhere} || true").splitlines()
    folders = {"/home/jovyan", "/tmp", "/dev"}
    assert {each for each in found if not each.startswith(tuple(folders))} == set()
    sizes = ada.run("df", "--output=target,fstype,size", "--block-size=1M", "/tmp", "/dev/shm")
    assert [line.split() for line in sizes.splitlines()[1:]] == [
        ["/tmp", "tmpfs", "1024"],
        ["/dev/shm", "tmpfs", "256"],
    ]
    # In /dev, which belongs to root, the learner can write only to /dev/shm and /dev/mqueue.
    owned = ada.run("find", "/dev", "-type", "d", "-writable").splitlines()
    assert {each for each in owned if not each.startswith("/dev/shm")} <= {"/dev/mqueue"}
    for fill in ("fallocate -l 2G /tmp/x", "fallocate -l 2G /dev/shm/x", "fallocate -l 1M /opt/x"):
        assert ada.container.exec_run(["sh", "-c", fill]).exit_code


def test_a_flood_past_jupyter_into_the_containers_log_ends_at_its_limit(ada):
    if not (folder := Path(ada.container.attrs["GraphDriver"]["Data"]["UpperDir"])).exists():
        pytest.skip("the engine's files are not on this machine")
    logs = folder.parents[2] / "containers" / ada.container.id / "local-logs"
    ada.run("sh", "-c", "yes 0123456789 | head -c 60000000 >/proc/1/fd/1")

    def size() -> int:
        return sum(path.stat().st_size for path in logs.iterdir() if path.exists())

    # The engine continues to write, rotate and compress the log after the command has finished.
    wait_until(lambda: size() > 2**20, "the log holds the flood")
    assert size() < 11 * 2**20
    assert ada.api("GET", "/user/{name}/api/status").ok


def test_a_link_out_of_the_home_shows_the_learners_own_container(ada):
    for name, target in [("root", "/proc/1/root"), ("up", "/home/jovyan/../.."), ("abs", "/")]:
        ada.run("ln", "-sfn", target, f"/home/jovyan/{name}")
        url = f"/user/{{name}}/api/contents/{name}/etc/hostname"
        found = ada.api("GET", url).json()["content"]
        assert found == f"{ada.container.id[:12]}\n"
        assert not ada.api("GET", f"/user/{{name}}/api/contents/{name}/srv/secrets").ok
        ada.run("rm", f"/home/jovyan/{name}")


def test_the_proxy_obeys_the_hub_alone(hub):
    """Any user of the host can reach the proxy's API, so the API requires a token."""
    url = f"http://127.0.0.1:{hub.port + 2}/api/routes"
    assert requests.get(url, timeout=30).status_code == 403
    forged = {"Authorization": "token forged"}
    route = {"target": "http://127.0.0.1:9"}
    assert requests.post(f"{url}/x", json=route, headers=forged, timeout=30).status_code == 403


def test_the_learner_has_no_rights_to_gain(ada):
    status = dict(line.split(":\t") for line in ada.run("cat", "/proc/self/status").splitlines())
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == ["1000"] * 4
    assert ada.container.attrs["HostConfig"]["Privileged"] is False
    mounts = {mount["Destination"]: mount["Source"] for mount in ada.container.attrs["Mounts"]}
    home, shared = f"{ada.hub.homes}/homes/ada", f"{ada.hub.homes}/shared"
    assert mounts == {"/home/jovyan": home, "/home/jovyan/shared": shared}


CONNECT = """
import json, socket, sys
reached = []
for host, port in json.loads(sys.argv[1]):
    with socket.socket() as attempt:
        attempt.settimeout(3)
        try:
            attempt.connect((host, port))
            reached.append([host, port])
        except OSError:
            pass
print(json.dumps(reached))
"""


def test_a_server_reaches_the_hub_and_neither_the_internet_nor_others(ada, bob):
    def address(learner: ClassLearner) -> str:
        return learner.container.attrs["NetworkSettings"]["Networks"][ada.hub.name]["IPAddress"]

    own_network = ada.hub.engine.networks.get(ada.hub.name)
    gateway = own_network.attrs["IPAM"]["Config"][0]["Gateway"]
    hub = [gateway, ada.hub.port + 1]
    elsewhere = [["169.254.169.254", 80], ["1.1.1.1", 443]]  # Cloud metadata and the internet.
    with socket.create_server(("127.0.0.1", 0)) as service:  # A local service.
        here = [["127.0.0.1", service.getsockname()[1]], ["127.0.0.1", ada.hub.port + 2]]
        # The test can connect to all of these targets, so they are listening.
        for target in (hub, [address(bob), 8888], *here):
            socket.create_connection(target, timeout=10).close()
        targets = [hub, [address(bob), 8888], *([gateway, port] for _, port in here), *elsewhere]
        assert json.loads(ada.run("python", "-c", CONNECT, json.dumps(targets))) == [hub]


def test_docker_is_out_of_reach(ada):
    assert ada.run("sh", "-c", "ls /var/run/docker.sock 2>&1 || true").startswith("ls: cannot")


@pytest.mark.parametrize(
    "path",
    [
        "/user/bob/api/contents",
        "/user/bob/api/kernels",
        "/user/bob/files/tensorflow-course/05_loss.ipynb",
        "/hub/api/users/bob",
        "/hub/api/users",
        "/hub/api/users/bob/tokens",
        "/hub/api/proxy",
    ],
)
def test_one_learner_does_not_get_at_another(ada, bob, path):
    with_token = ada.api("GET", path)
    with_cookie = ada.session.get(ada.hub.url + path, timeout=30)
    for response in (with_token, with_cookie):
        assert response.status_code in (403, 404), response.text
    # Ada's kernels can read her server's token, but the token gives her no additional access.
    token = ada.run("printenv", "JUPYTERHUB_API_TOKEN").strip()
    headers = {"Authorization": f"token {token}"}
    response = requests.get(ada.hub.url + path, headers=headers, timeout=30)
    assert response.status_code in (403, 404), response.text


@pytest.mark.parametrize("dots", ["..", "%2e%2e", "%2E.", "..%2f..%2f", "..%5c.."])
def test_dots_in_an_address_lead_nowhere(ada, bob, dots):
    """`http.client` sends the path unchanged, whereas other clients would normalise it first."""
    connection = http.client.HTTPConnection("127.0.0.1", ada.hub.port, timeout=30)
    path = f"/user/ada/{dots}/bob/api/contents"
    connection.request("GET", path, headers={"Authorization": f"token {ada.token}"})
    response = connection.getresponse()
    assert response.status in (302, 400, 403, 404), response.read()
    if response.status == 302:  # a redirect to a page that checks permissions
        page = ada.api("GET", response.headers["Location"])
        assert page.status_code in (403, 404), page.text


@pytest.mark.parametrize("path", ["/hub/spawn", "/hub/api/users/ada/tokens", "/hub/signup"])
def test_a_forged_form_is_refused(ada, path):
    url = ada.hub.url + path
    another = ada.hub.session().cookies.get("_xsrf", path="/hub/")
    for xsrf in ({}, {"_xsrf": another}):
        response = ada.session.post(url, params=xsrf, data={}, timeout=30)
        assert response.status_code == 403
        assert "XSRF" in response.text or "_xsrf" in response.text


# --- The class's folder


def test_instructors_write_and_let_in_and_learners_read(hub, ada):
    boss = ClassLearner(hub, "instructor", hub.admin_password)
    boss.start_server()
    boss.run("sh", "-c", "echo read this > ~/shared/notes.txt")
    contents = "/user/{name}/api/contents/shared"
    assert ada.api("GET", f"{contents}/notes.txt").json()["content"] == "read this\n"
    file = {"type": "file", "format": "text", "content": "mine"}
    for path in ("notes.txt", "new.txt"):
        assert ada.api("PUT", f"{contents}/{path}", json=file).status_code >= 400
    assert ada.api("DELETE", f"{contents}/notes.txt").status_code >= 400

    # A learner who is promoted to instructor can write to the folder after restarting the server.
    teacher = ClassLearner(hub, "teacher")
    group = "/hub/api/groups/instructors/users"
    assert teacher.api("POST", group, json={"users": ["teacher"]}).status_code == 403
    boss.api("POST", group, json={"users": ["teacher"]}).raise_for_status()
    teacher.start_server()
    assert teacher.api("PUT", f"{contents}/new.txt", json=file).status_code == 201
    assert ada.run("cat", "/home/jovyan/shared/new.txt") == "mine"

    # An instructor can also approve learners, but cannot change administrators or passwords.
    page = teacher.session.get(f"{hub.url}/hub/authorize", timeout=30)
    assert 'aria-label="Shut out ada"' in page.text
    assert 'aria-label="Shut out instructor"' not in page.text
    assert "New password" not in page.text
    hub.sign_up("guest")
    assert "Your instructor has to let" in hub.login("guest").text
    let_in = {"data": {"let_in": "yes"}}
    assert post(teacher.session, f"{hub.url}/hub/authorize/guest", **let_in).status_code == 200
    guest = hub.login("guest").session
    assert "Who may come in" not in guest.get(f"{hub.url}/hub/home", timeout=30).text
    assert post(guest, f"{hub.url}/hub/authorize/ada", **let_in).status_code == 403
    for action in ("authorize/instructor", "discard/instructor", "change-password/ada"):
        shut_out = {"data": {"let_in": "no"}}
        assert post(teacher.session, f"{hub.url}/hub/{action}", **shut_out).status_code == 403
    assert hub.login("instructor", hub.admin_password).ok
    post(teacher.session, f"{hub.url}/hub/announcement", data={"text": "Room 3 today"})
    assert "Room 3 today" in guest.get(f"{hub.url}/hub/home", timeout=30).text
    post(teacher.session, f"{hub.url}/hub/announcement")

    boss.api("DELETE", group, json={"users": ["teacher"]}).raise_for_status()
    assert teacher.session.get(f"{hub.url}/hub/authorize", timeout=30).status_code == 403
    teacher.stop_server()
    wait_until(lambda: not hub.servers("teacher", all=True), "the server is gone")
    teacher.start_server()
    assert teacher.api("PUT", f"{contents}/newer.txt", json=file).status_code >= 400


def test_the_hubs_health_is_checked(hub):
    assert hub.is_healthy()
    assert not hub.is_healthy(COURSE_PORT="1")


# --- What is kept


def test_stop_and_start_keep_the_work_and_nothing_of_the_container(bob):
    bob.run("sh", "-c", "echo mine > ~/mine; touch /tmp/scratch")
    bob.stop_server()
    hub = bob.hub
    wait_until(lambda: not hub.servers("bob", all=True), "the container is removed")
    bob.start_server()
    assert bob.run("cat", "/home/jovyan/mine") == "mine\n"
    assert "scratch" not in bob.run("ls", "/tmp")


@pytest.mark.parametrize("service", ["hub", "proxy"])
def test_a_killed_service_comes_back_and_kernels_work_on(hub, ada, service):
    kernel = ada.start_kernel()
    assert run_cell(ada, kernel, "x = 6 * 7; print(x)") == "42\n"
    ada.run("sh", "-c", "echo saved > ~/saved")
    before = ada.container.id
    began = hub.container(service).attrs["State"]["StartedAt"]
    # Kill all processes except process 1, which then exits. Docker then restarts the container.
    hub.container(service).exec_run(["sh", "-c", "kill -9 -1"])

    def works() -> bool:
        try:
            return ada.session.get(f"{hub.url}/hub/home", timeout=5).ok and bool(
                ada.api("GET", "/user/{name}/api/status").ok
            )
        except requests.RequestException:
            return False

    wait_until(
        lambda: hub.container(service).attrs["State"]["StartedAt"] != began,
        "the container has restarted",
    )
    wait_until(works, f"the {service} works again")
    assert ada.container.id == before
    assert run_cell(ada, kernel, "print(x)") == "42\n"
    assert ada.run("cat", "/home/jovyan/saved") == "saved\n"


def test_who_idles_is_stopped_and_who_computes_is_not(new_hub):
    hub = new_hub()
    hub.up(COURSE_IDLE_MINUTES="0.2")
    idle, busy = ClassLearner(hub, "idle"), ClassLearner(hub, "busy")
    unknown = hub.engine.containers.run(
        f"{IMAGE}:cpu", ["sleep", "600"], detach=True, labels={LABEL: hub.name}
    )
    # Use each server as soon as it is ready. On a slow host, the next server might take so long to
    # start that the hub stops the first one for being idle.
    idle.start_server()
    idle.run("sh", "-c", "echo saved > ~/saved")
    busy.start_server()
    kernel = busy.start_kernel()
    # The cell runs for five times the idle limit and prints nothing until it finishes.
    began = time.monotonic()
    assert run_cell(busy, kernel, "import time; time.sleep(60); print('done')") == "done\n"
    assert time.monotonic() - began >= 60
    assert busy.api("GET", "/user/{name}/api/kernels").json()[0]["id"] == kernel
    assert idle.server() is None
    with pytest.raises(docker.errors.NotFound):  # nobody's server in the hub's database
        unknown.reload()
    wait_until(lambda: not busy.server(), "the server is stopped after its cell has ended")
    idle.start_server()
    assert idle.run("cat", "/home/jovyan/saved") == "saved\n"


def test_a_port_that_is_taken_is_named_and_then_used(new_hub):
    hub = new_hub()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", hub.port))
        other.listen()
        with pytest.raises(AssertionError, match=f"Port {hub.port} of 127.0.0.1 cannot be used"):
            hub.up()
    hub.up()  # `make up` restarts the hub without waiting for Docker's restart delay


def test_make_up_restarts_a_service_that_fails_again_and_again(engine, image, monkeypatch):
    """It does so even while Docker runs the service once more; it leaves other services alone."""
    name = f"course-test-loop-{os.getpid()}"
    monkeypatch.setenv("COURSE_NAME", name)
    restarted = []
    monkeypatch.setattr(operations, "compose", lambda *command: restarted.append(command))
    labels = {"com.docker.compose.project": name}
    options = {"labels": labels, "detach": True, "restart_policy": {"Name": "always"}}
    failing, steady = [
        engine.containers.run(image("hub"), ["sleep", seconds], **options)
        for seconds in ("4", "600")
    ]

    def runs_again() -> bool:
        failing.reload()
        return failing.attrs["RestartCount"] > 0 and failing.status == "running"

    try:
        operations.restart_what_waits()
        assert restarted == []
        wait_until(runs_again, "Docker has restarted the service")
        steady.reload()
        since = steady.attrs["State"]["StartedAt"]
        operations.restart_what_waits()
        assert restarted == [("restart", "hub")]
        failing.reload()
        steady.reload()
        assert failing.attrs["RestartCount"] == 0  # Docker counts only its own restarts
        assert steady.attrs["State"]["StartedAt"] == since
    finally:
        for each in (failing, steady):
            each.remove(force=True)


@pytest.mark.parametrize("walls", [{}, {"internal": True}], ids=["none", "half"])
def test_a_network_without_walls_ends_the_start(engine, walls):
    name = f"course-no-walls-{os.getpid()}"
    without_walls = engine.networks.create(name, driver="bridge", **walls)
    try:
        with pytest.raises(SystemExit, match=rf"{name}', learners' servers could reach each other"):
            network.ensure(engine, name)
    finally:
        without_walls.remove()


def test_an_engine_that_cannot_keep_learners_apart_ends_the_start(engine, monkeypatch):
    assert containers.engine().info()["BridgeNfIptables"]
    monkeypatch.setattr(docker.DockerClient, "info", lambda self: {"BridgeNfIptables": False})
    with pytest.raises(SystemExit, match=r"(?s)could reach each other: .* `modprobe"):
        containers.engine()


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_the_network_that_is_pruned_comes_back(new_hub, taken):
    """If Docker prunes the hub's network, another network can use the same addresses."""
    hub = new_hub()
    hub.up()
    networks = hub.engine.networks
    before = networks.get(hub.name).attrs["IPAM"]
    hub.container("hub").pause()  # otherwise, it could be the first to use the addresses again
    networks.get(hub.name).remove()
    other = None
    if taken:
        pool = docker.types.IPAMPool(before["Config"][0]["Subnet"])
        ipam = docker.types.IPAMConfig(pool_configs=[pool])
        other = networks.create(f"{hub.name}-taken", driver="bridge", ipam=ipam)
    hub.container("hub").unpause()
    try:
        wait_until(lambda: networks.list(names=[f"^{hub.name}$"]), "the network exists again")
        wait_until(lambda: hub.answers(), "the hub can be reached")
        assert (networks.get(hub.name).attrs["IPAM"] == before) is not taken
        ClassLearner(hub, "ada").start_server()
    finally:
        if other:
            other.remove()


def test_down_and_up_keep_accounts_work_and_running_servers(hub, ada):
    before = ada.container.id
    password = hub.admin_password
    hub.make("down")
    hub.up()
    assert hub.admin_password == password
    wait_until(lambda: ada.api("GET", "/user/{name}/api/status").ok, "the server can be reached")
    assert ada.container.id == before
    assert ada.session.get(f"{hub.url}/hub/home", timeout=30).ok  # still logged in

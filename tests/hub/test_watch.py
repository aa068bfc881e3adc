"""Test a class hub's daily operation: memory, idle servers, announcements and monitoring."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
from hubs import IMAGE, ROOT, ClassHub, ClassLearner, Learner, post, run_cell, send, wait_until
from lab import wait_for_kernel
from playwright.sync_api import Page, expect

from tfcourse.hub import settings

MEMORY = 700  # a learner's memory limit in MB: enough for a kernel, but easy to exhaust


@pytest.fixture(scope="module")
def class_hub(new_hub) -> ClassHub:
    """Return a running hub for tests that do not stop it."""
    hub = new_hub()
    hub.up(COURSE_MEMORY=f"{MEMORY}M")
    return hub


@pytest.fixture(scope="module")
def ada(class_hub) -> ClassLearner:
    """Return a learner with a server."""
    ada = ClassLearner(class_hub, "ada")
    ada.start_server()
    return ada


@pytest.fixture(scope="module")
def bob(class_hub) -> ClassLearner:
    """Return another learner with a server."""
    bob = ClassLearner(class_hub, "bob")
    bob.start_server()
    return bob


def open_lab(page: Page, learner: ClassLearner) -> None:
    """Log in and open lesson 00."""
    page.goto(f"{learner.hub.url}/hub/login")
    page.get_by_label("Username").fill(learner.name)
    page.get_by_label("Password").fill(learner.hub.password)
    page.keyboard.press("Enter")
    page.wait_for_url("**/lab/tree/tensorflow-course/00_start_here.ipynb*", timeout=120_000)
    expect(page.get_by_text("Mem:")).to_be_visible(timeout=120_000)


# --- Memory


def test_lab_shows_the_servers_memory_and_warns_near_the_limit(page, ada):
    open_lab(page, ada)
    shown = page.get_by_text(re.compile(rf"^Mem:\s+\d+\.\d\d / {MEMORY}\.00 MB$"))
    expect(shown).to_be_visible()
    light_red = "rgb(255, 210, 210)"
    expect(shown).not_to_have_css("background-color", light_red)
    wait_for_kernel(page)  # the lesson's kernel also uses memory
    kernel = ada.start_kernel()
    run_cell(ada, kernel, f"fill = bytes([1]) * int({0.62 * MEMORY * 2**20})")
    expect(shown).to_have_css("background-color", light_red)
    # JupyterLab must show only one memory indicator, because a second one would also poll the
    # server.
    expect(page.get_by_text("Mem:")).to_have_count(1)
    ada.api("DELETE", f"/user/{{name}}/api/kernels/{kernel}").raise_for_status()


def test_a_server_without_a_limit_shows_none(hub):
    learner = Learner(hub, "unlimited")
    learner.start_server()
    usage = learner.api("GET", "/user/{name}/api/metrics/v1").json()
    assert usage["rss"] > 20 * 2**20
    assert usage["limits"] == {"memory": {"rss": 0, "pss": 0}}


def test_who_runs_out_of_memory_loses_the_kernel_and_nothing_else(ada, bob):
    kernel, other = ada.start_kernel(), bob.start_kernel()
    run_cell(bob, other, "x = 6 * 7")
    run_cell(ada, kernel, "open('/home/jovyan/saved', 'w').write('saved')")
    before = ada.container.id
    replies = list(send(ada, kernel, f"bytes([1]) * int({2 * MEMORY * 2**20})"))
    assert replies[-1]["content"]["execution_state"] in ("restarting", "autorestarting")
    assert ada.api("GET", "/user/{name}/api/status").ok
    # The server might report the restart more than once, and each report makes `run_cell` return
    # early.
    read = "print(open('/home/jovyan/saved').read())"

    def is_back() -> bool:
        return run_cell(ada, kernel, read, patience=10) == "saved\n"

    wait_until(is_back, "the kernel is back", seconds=60)
    assert ada.container.id == before
    assert run_cell(bob, other, "print(x)") == "42\n"


def test_lab_says_that_the_kernel_has_died(page, ada):
    open_lab(page, ada)
    sessions = ada.api("GET", "/user/{name}/api/sessions").json
    wait_until(sessions, "the lesson has a kernel")
    wait_for_kernel(page)
    kernel = sessions()[0]["kernel"]["id"]
    list(send(ada, kernel, f"bytes([1]) * int({2 * MEMORY * 2**20})"))
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("appears to have died. It will restart automatically.")


# --- Idleness


def test_a_tab_that_is_left_open_does_not_keep_a_server(page, new_hub):
    hub = new_hub()
    hub.up(COURSE_IDLE_MINUTES="1")
    away, saves = ClassLearner(hub, "away"), ClassLearner(hub, "saves")
    away.start_server()
    saves.start_server()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.split("?")[0]))
    open_lab(page, away)
    began = time.monotonic()

    def stopped() -> bool:
        """Save a file on one server; return whether the idle tab's server has stopped."""
        content = {"type": "file", "format": "text", "content": str(time.monotonic())}
        saves.api("PUT", "/user/{name}/api/contents/notes.txt", json=content).raise_for_status()
        page.wait_for_timeout(1000)  # meanwhile, the open tab sends requests
        return not away.server()

    wait_until(stopped, "the tab's server is stopped", seconds=300)
    for what in ("metrics/v1", "kernels", "contents/tensorflow-course"):
        assert asked.count(f"{hub.url}/user/away/api/{what}") > 1, "the tab was inactive"
    # Each request costs server time, so the page must not send more requests than one indicator
    # needs.
    seconds = time.monotonic() - began
    assert asked.count(f"{hub.url}/user/away/api/metrics/v1") < seconds / 5 + 5
    assert saves.server()


# --- Announcements


def announce(hub: ClassHub, session: requests.Session, text: str) -> requests.Response:
    return post(session, f"{hub.url}/hub/announcement", data={"text": text})


def test_everybody_sees_an_announcement_until_it_is_taken_away(class_hub, ada):
    admin = class_hub.login("instructor", class_hub.admin_password).session
    began = class_hub.container("hub").attrs["State"]["StartedAt"]
    announce(class_hub, admin, "Restart at 18:00 <b>& save</b>").raise_for_status()
    said = "<strong>Restart at 18:00 &lt;b&gt;&amp; save&lt;/b&gt;</strong>"
    login = requests.get(f"{class_hub.url}/hub/login", timeout=30).text
    assert said in login
    assert re.search(r">20\d\d-\d\d-\d\d, \d\d:\d\d UTC<", login)
    assert "<small><time" in login  # omits the author's name, which is half of the credentials
    for path in ("home", "token"):
        page = ada.session.get(f"{class_hub.url}/hub/{path}", timeout=30).text
        assert said in page
        assert "<small>instructor, <time" in page
    announce(class_hub, admin, "").raise_for_status()
    assert "18:00" not in requests.get(f"{class_hub.url}/hub/login", timeout=30).text
    assert class_hub.container("hub").attrs["State"]["StartedAt"] == began


def test_nobody_else_announces_anything(class_hub, ada):
    assert announce(class_hub, ada.session, "I am the teacher").status_code == 403
    url = f"{class_hub.url}/hub/announcement"
    assert ada.session.get(url, timeout=30).status_code == 403
    admin = class_hub.login("instructor", class_hub.admin_password).session
    forged = admin.post(url, data={"text": "forged"}, timeout=30)
    assert forged.status_code == 403
    too_long = announce(class_hub, admin, "x" * 301)
    assert too_long.status_code == 400
    assert "An announcement can have at most 300 characters." in too_long.text
    # None of the refused announcements appears on the page.
    login = requests.get(f"{class_hub.url}/hub/login", timeout=30).text
    for text in ("I am the teacher", "forged", "xxx"):
        assert text not in login
    assert "UTC</time>" not in login
    assert "Announcement" in admin.get(f"{class_hub.url}/hub/home", timeout=30).text


# --- Monitoring

MONITORING = ROOT / "docker" / "monitoring"


def program(name: str) -> str:
    """Return the path of a Prometheus executable; skip the test if it is not installed."""
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed; on Debian, run `apt install prometheus`")
    return path


@pytest.fixture(scope="module")
def registry(engine, image, tmp_path_factory) -> str:
    """Build images of Debian's Prometheus and a Grafana stand-in; return their registry's name.

    Both images are based on the hub's image and named as in compose.yaml, so nothing is pulled.
    """
    hub_image = image("hub")
    folder = tmp_path_factory.mktemp("images")
    shutil.copy(program("prometheus"), folder)
    shutil.copy(Path(__file__).with_name("stand_in_grafana.py"), folder)
    steps = {
        "prometheus": "RUN install --directory --owner=nobody /prometheus\nUSER nobody\n"
        'COPY prometheus /bin/\nENTRYPOINT ["/bin/prometheus"]\n',
        "grafana": "USER 472\nCOPY stand_in_grafana.py /\n"
        'ENTRYPOINT ["python", "/stand_in_grafana.py"]\n',
    }
    compose = (ROOT / "docker" / "compose.yaml").read_text()
    for name in re.findall(r"COURSE_REGISTRY:-docker.io}/(\S+)", compose):
        kind = re.search(r"/(\w+):", name)[1]
        (folder / "Dockerfile").write_text(f"FROM {hub_image}\nUSER root\n{steps[kind]}")
        engine.images.build(path=str(folder), tag=f"{IMAGE}/{name}", rm=True)
    return IMAGE


@pytest.fixture(scope="module")
def monitored(new_hub, registry) -> ClassHub:
    """Return a hub with COURSE_MONITOR=on whose metrics Prometheus is already scraping."""
    hub = new_hub()
    said = hub.up(COURSE_MONITOR="on", COURSE_REGISTRY=registry)
    assert f"Metrics   {hub.url}/services/grafana/\n" in said
    wait_until(lambda: ask(hub, 'up{job="hub"} == 1'), "Prometheus queries the hub")
    return hub


def ask(hub: ClassHub, query: str) -> list[dict]:
    """Query Prometheus; return the results, or an empty list while Prometheus is starting."""
    url = f"http://127.0.0.1:{hub.port + 3}/api/v1/query"
    try:
        answer = requests.get(url, params={"query": query}, timeout=10).json()
    except requests.RequestException:  # Prometheus is still starting
        return []
    assert answer["status"] == "success", f"{query}: {answer['error']}"
    return answer["data"]["result"]


def queries() -> list[str]:
    """Return all of the dashboard's queries."""
    dashboard = json.loads((MONITORING / "dashboards" / "course.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [query.replace("$__rate_interval", "1m") for query in found]


def test_every_query_of_the_dashboard_has_an_answer(monitored):
    learner = ClassLearner(monitored, "an.other_learner")
    learner.start_server()
    waiting = {query for query in queries() if "ALERTS" not in query}
    assert len(waiting) > 20

    def answered() -> bool:
        for query in list(waiting):
            if any(series["value"][1] != "NaN" for series in ask(monitored, query)):
                waiting.discard(query)
        return not waiting

    try:
        wait_until(answered, "every query has an answer", seconds=150)
    except AssertionError:
        pytest.fail(f"Prometheus has no answer to {waiting}")
    # Nothing needs attention, so no alert fires.
    assert ask(monitored, 'ALERTS{alertstate="firing"}') == []
    (memory,) = ask(monitored, "course_server_memory_bytes")
    assert memory["metric"]["learner"] == "an.other_learner"
    assert 50 * 2**20 < int(memory["value"][1]) < 1000 * 2**20
    (limit,) = ask(monitored, "course_server_memory_limit_bytes")
    assert int(limit["value"][1]) == 3 * 2**30
    (running,) = ask(monitored, "jupyterhub_running_servers")
    assert running["value"][1] == "1"


def test_a_log_out_reaches_grafana_within_ten_minutes():
    """Grafana uses separate sessions, and contacts the hub only when a session starts."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "docker" / "monitoring" / "grafana.ini")
    assert settings["auth"]["login_maximum_lifetime_duration"] == "10m"
    assert settings["auth.generic_oauth"]["auto_login"] == "true"


def test_metrics_are_for_prometheus_and_the_dashboard_for_administrators(monitored):
    learner = ClassLearner(monitored, "curious")
    assert learner.api("GET", "/hub/metrics").status_code == 403
    assert requests.get(f"{monitored.url}/hub/metrics", timeout=30).status_code == 403
    grafana = f"{monitored.url}/services/grafana/"
    wait_until(lambda: requests.get(grafana, timeout=30).status_code != 503, "Grafana answers")
    refused = learner.session.get(grafana, timeout=30)
    assert refused.status_code == 403, refused.text
    assert "grafana" not in learner.session.get(f"{monitored.url}/hub/home", timeout=30).text
    admin = monitored.login("instructor", monitored.admin_password).session
    assert admin.get(grafana, timeout=30).text == "Hello instructor, provisioned: True"
    assert "/services/grafana/" in admin.get(f"{monitored.url}/hub/home", timeout=30).text
    network = monitored.engine.networks.get(monitored.name)
    gateway = network.attrs["IPAM"]["Config"][0]["Gateway"]
    for port in (monitored.port + 3, monitored.port + 4):
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        with pytest.raises(ConnectionRefusedError):  # the address that learners' programs would use
            socket.create_connection((gateway, port), timeout=10)


def test_without_the_setting_neither_runs(class_hub):
    project = f"com.docker.compose.project={class_hub.name}"
    running = class_hub.engine.containers.list(filters={"label": project})
    services = {container.labels["com.docker.compose.service"] for container in running}
    assert services == {"hub", "proxy"}


def test_the_rules_fire_when_they_should(tmp_path):
    for path in (MONITORING / "rules.yml", Path(__file__).with_name("rules_test.yml")):
        shutil.copy(path, tmp_path)
    command = [program("promtool"), "test", "rules", "rules_test.yml"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    rules = re.findall(r"alert: (.*)", (MONITORING / "rules.yml").read_text())
    tested = (tmp_path / "rules_test.yml").read_text()
    assert all(tested.count(f"alertname: {rule}") == 2 for rule in rules)


def test_a_switch_is_on_or_off(monkeypatch):
    monkeypatch.setenv("COURSE_MONITOR", "1")
    with pytest.raises(SystemExit, match="COURSE_MONITOR is '1', but it has to be 'off' or 'on'"):
        settings.MONITOR()

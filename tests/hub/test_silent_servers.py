"""Test the page that appears if a server accepts requests but does not respond."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import docker
import pytest
import requests
from hubs import PASSWORD, ClassHub, ClassLearner, post, run_cell, wait_until

SENTENCE = "<h1>One moment, please</h1>"


@pytest.fixture(scope="module")
def hub(new_hub: Callable[..., ClassHub]) -> ClassHub:
    hub = new_hub()
    hub.up(COURSE_SIGNUP="open")
    hub.admit = hub.sign_up
    return hub


@pytest.fixture(scope="module")
def ada(hub) -> ClassLearner:
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    assert ada.session.get(f"{hub.url}/user/ada/lab", timeout=60).ok  # log in to the server itself
    return ada


@contextlib.contextmanager
def paused(container) -> Iterator[None]:
    # With cgroups v1, runc cannot always freeze a busy container.
    wait_until(lambda: is_paused(container), "the container is paused")
    try:
        yield
    finally:
        container.unpause()


def is_paused(container) -> bool:
    with contextlib.suppress(docker.errors.APIError):
        container.pause()
    container.reload()
    return container.status == "paused"


@contextlib.contextmanager
def server_stopped(learner: ClassLearner) -> Iterator[None]:
    """Suspend only the server's process; the container keeps running."""
    # The command spares process 1, which keeps the container running. The brackets prevent grep
    # from matching the shell that runs it.
    server = "kill -$0 $(grep -l '[s]ingleuser' /proc/[0-9]*/cmdline | cut -d/ -f3 | grep -vx 1)"
    learner.run("sh", "-c", server, "STOP")
    try:
        yield
    finally:
        learner.run("sh", "-c", server, "CONT")


def page(session: requests.Session, url: str, **headers: str) -> requests.Response:
    """Open a page as a browser does; fail if there is no response within ten seconds."""
    began = time.monotonic()
    response = session.get(url, headers=headers, timeout=10)
    assert time.monotonic() < began + 10
    return response


@pytest.mark.parametrize("how", ["paused", "stopped"])
def test_the_page_of_a_silent_server_says_so_within_ten_seconds(hub, ada, how):
    url = f"{hub.url}/user/ada/lab"
    kernel = ada.start_kernel()
    run_cell(ada, kernel, "x = 7")
    with paused(ada.container) if how == "paused" else server_stopped(ada):
        for headers in ({}, {"Sec-Fetch-Mode": "navigate"}):
            response = page(ada.session, url, **headers)
            assert response.status_code == 503
            assert SENTENCE in response.text
            assert "X-JupyterHub-Version" not in response.headers
        assert page(ada.session, f"{hub.url}/hub/home").ok  # the hub still answers
        began = time.monotonic()
        head = ada.session.head(url, timeout=10)  # the page polls like this until it succeeds
        assert (head.status_code, head.text) == (503, "")
        assert time.monotonic() < began + 10
    # Nothing is lost.
    wait_until(lambda: page(ada.session, url).ok, "the page is back", 20)
    assert run_cell(ada, kernel, "print(x)") == "7\n"
    assert ada.server()["ready"]


def test_the_page_of_a_silent_hub_says_so_and_work_goes_on(hub, ada):
    kernel = ada.start_kernel()
    with paused(hub.container("hub")):
        assert SENTENCE in page(requests.Session(), f"{hub.url}/hub/login").text
        assert run_cell(ada, kernel, "print(1)") == "1\n"
        time.sleep(12)  # the server has forgotten the hub's last answer
        content = {"type": "file", "format": "text", "content": "kept"}
        files = "/user/{name}/api/contents/while_away.txt"
        assert ada.api("PUT", files, json=content).status_code in (200, 201)
    wait_until(hub.answers, "the hub is back")


def test_what_may_take_long_is_not_cut(hub, ada):
    """Long-running cells and stalled requests to the server's API must be able to finish."""
    kernel = ada.start_kernel()
    said: dict[str, object] = {}

    def cell() -> None:
        said["cell"] = run_cell(ada, kernel, "import time; time.sleep(25); print('done')")

    def save() -> None:
        content = {"type": "file", "format": "text", "content": "mine"}
        path = "/user/{name}/api/contents/saved.txt"
        said["save"] = ada.api("PUT", path, json=content).status_code

    running = threading.Thread(target=cell)
    running.start()
    time.sleep(2)
    saving = threading.Thread(target=save)
    with paused(ada.container):
        saving.start()
        time.sleep(12)
    saving.join()
    running.join()
    assert said == {"cell": "done\n", "save": 201}


def test_jupyterlab_learns_that_its_server_is_silent(hub, ada):
    """JupyterLab polls the list of kernels every ten seconds."""
    headers = {"Sec-Fetch-Mode": "cors"}
    with paused(ada.container):
        response = ada.session.get(f"{hub.url}/user/ada/api/kernels", headers=headers, timeout=25)
        assert response.status_code == 503
    wait_until(lambda: page(ada.session, f"{hub.url}/user/ada/lab").ok, "it is back", 20)


def test_a_server_that_is_starting_ends_when_its_owner_is_shut_out(hub):
    late = ClassLearner(hub, "late")
    hub.authorize("late")  # log the administrator in
    start = threading.Thread(target=late.api, args=("POST", "/hub/api/users/{name}/server"))
    start.start()
    wait_until(lambda: hub.servers("late"), "the container runs")
    with paused(late.container):
        assert late.server()["pending"] == "spawn"
        assert hub.authorize("late", "no").ok
        assert "has to let late in" in hub.login("late").text
        discard = post(hub.admin, f"{hub.url}/hub/discard/late")
        xsrf = {"_xsrf": hub.admin.cookies.get("_xsrf", path="/hub/")}
        user = f"{hub.url}/hub/api/users/late"
        for refused in (discard, hub.admin.delete(user, params=xsrf, timeout=30)):
            assert refused.status_code == 409
        assert "The server of late has not stopped yet." in discard.text
        start.join()
    wait_until(lambda: not hub.servers("late", all=True), "the server is gone")
    hub.authorize("late")
    late = ClassLearner(hub, "late", PASSWORD)
    late.start_server()
    hub.authorize("late", "no")
    wait_until(lambda: not hub.servers("late", all=True), "the server is gone")
    assert post(hub.admin, f"{hub.url}/hub/discard/late").ok

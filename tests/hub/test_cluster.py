"""Our own hub in a cluster: a real hub and proxy, KubeSpawner, and a stand-in for the cluster."""

import http.client
import re
import subprocess
import time

import pytest
import requests
from cluster import NAMESPACE, Cluster, ClusterHub, write_kubeconfig
from hubs import PASSWORD, ROOT, Learner, post, run_cell, wait_until

from tfcourse.hub.spawners import profiles

QUOTA = "exceeded quota: course, requested: pods=1, used: pods=50, limited: pods=50"


class Hub(ClusterHub):
    """One with accounts of its own, which lets in whoever signs up."""

    password = PASSWORD

    def admit(self, name):
        assert "You can log in" in self.sign_up(name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def hub(cluster, tmp_path_factory):
    more = "c.KubeSpawner.start_timeout = 20; c.KubeSpawner.poll_interval = 5"
    hub = Hub(tmp_path_factory.mktemp("hub"), cluster.url, more, COURSE_SIGNUP="open")
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def learner(hub):
    return Learner(hub, "ada")


@pytest.fixture
def ada(learner):
    """One with a server."""
    if not learner.server():
        learner.start_server()
    return learner


@pytest.fixture(scope="module")
def kubectl(cluster, tmp_path_factory):
    """Return a function that runs kubectl, and returns what it prints."""
    path = tmp_path_factory.mktemp("kubectl") / "config"
    write_kubeconfig(path, cluster.url)

    def run(*arguments):
        command = ["kubectl", "--kubeconfig", path, "--namespace", NAMESPACE, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_learner_works_in_a_pod_and_finds_it_again(ada, cluster):
    said = run_cell(ada, ada.start_kernel(), "open('work', 'w').write('mine'); print(6 * 7)")
    assert said == "42\n"
    (pod,) = cluster.all("pods").values()
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "registry.example.org/tensorflow-course/1.0:cpu"
    assert container["resources"]["limits"]["memory"] == profiles.PROFILES[0].memory

    ada.stop_server()
    wait_until(lambda: not cluster.all("pods"), "the pod is gone")
    assert list(cluster.all("persistentvolumeclaims")) == ["claim-ada"]
    ada.start_server()
    assert run_cell(ada, ada.start_kernel(), "print(open('work').read())") == "mine\n"


def test_servers_outlive_the_hub(hub, ada):
    kernel = ada.start_kernel()
    run_cell(ada, kernel, "state = 6")
    hub.kill_hub()
    assert run_cell(ada, kernel, "print(state * 7)") == "42\n"
    hub.start_hub()
    assert ada.server()["ready"]
    assert run_cell(ada, kernel, "print(state * 8)") == "48\n"


def test_a_connection_is_kept_for_longer_than_an_ingress_keeps_it(hub):
    """It would send a form on it, and the form would be lost. The proxy's default is 5 seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
    connection.auto_open = 0  # not a new one
    connection.connect()
    for pause in (0, 8):
        time.sleep(pause)
        connection.request("GET", "/hub/health")
        assert connection.getresponse().read() == b""
    connection.close()


def test_a_pod_that_a_drained_node_takes_along_is_started_again(ada, cluster, kubectl):
    kubectl("delete", "pod", *cluster.all("pods"))
    wait_until(lambda: not ada.server(), "the hub knows")
    ada.start_server()
    assert run_cell(ada, ada.start_kernel(), "print(6 * 7)") == "42\n"


def test_a_quota_that_is_used_up_is_told_to_the_learner(hub, cluster):
    bob = Learner(hub, "bob")
    cluster.api.refusals["create", "pods"] = QUOTA
    try:
        assert f"tell your instructor what it says: {QUOTA}" in failure(bob)
    finally:
        cluster.api.refusals.clear()
    bob.start_server()


def test_without_room_a_learner_is_told_and_nothing_is_left(hub, cluster):
    cluster.has_room = False
    eve = Learner(hub, "eve")
    said = failure(eve)
    assert "If your cluster can, it is adding a machine" in said
    assert "There was no room for your server, or its image could not be fetched." in said
    assert "nodes are available" not in said
    wait_until(lambda: "jupyter-eve" not in cluster.all("pods"), "the pod is gone")
    cluster.has_room = True
    eve.start_server()


def failure(learner):
    """Start a server, which fails; return what its learner reads meanwhile."""
    page = post(learner.session, f"{learner.hub.url}/hub/spawn", data={"profile": "tensorflow-cpu"})
    url = f"{learner.hub.url}/hub/api/users/{learner.name}/server/progress"
    return page.text + learner.session.get(url, timeout=60).text


def test_an_account_is_deleted_and_its_work_is_kept(hub, cluster):
    zoe = Learner(hub, "zoe")
    zoe.start_server()
    zoe.stop_server()
    password = (hub.folder / "hub/first-password-of-instructor").read_text().strip()
    admin = hub.login("instructor", password)
    tokens = f"{hub.url}/hub/api/users/instructor/tokens"
    token = post(admin.session, tokens, json={}).json()["token"]
    url, headers = f"{hub.url}/hub/api/users/zoe", {"Authorization": f"token {token}"}
    requests.delete(url, headers=headers, timeout=30).raise_for_status()
    assert "claim-zoe" in cluster.all("persistentvolumeclaims")
    assert "already in use" in hub.sign_up("zoe")


class NamedHub(Hub):
    """One whose learners' servers have host names of their own, without the ingress in front."""

    more = """
c.JupyterHub.services.append({"name": "test", "api_token": "of-the-test"})
scopes = ["admin:users", "admin:servers", "access:servers"]
c.JupyterHub.load_roles.append({"name": "test", "services": ["test"], "scopes": scopes})
"""

    def ask(self, host, path, method="GET", **content):
        headers = {"Host": host, "Authorization": "token of-the-test"}
        return requests.request(
            method, self.url + path, headers=headers, allow_redirects=False, timeout=60, **content
        )


@pytest.fixture
def named(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.start()
    names = {"COURSE_HOST": "hub.test", "COURSE_SUBDOMAINS": "on"}
    hub = NamedHub(tmp_path, cluster.url, NamedHub.more, **names)
    hub.start()
    yield hub
    hub.stop()
    cluster.stop()


def test_a_server_with_a_name_of_its_own_is_reached_by_that_alone(named):
    user = "/hub/api/users/ada"
    named.ask("hub.test", user, "POST").raise_for_status()
    chosen = {"profile": "tensorflow-cpu"}
    named.ask("hub.test", f"{user}/server", "POST", json=chosen).raise_for_status()
    wait_until(lambda: named.ask("ada.hub.test", "/user/ada/api").ok, "the server answers")
    assert "version" in named.ask("ada.hub.test", "/user/ada/api").json()
    # By any other name the hub answers.
    for other in ("hub.test", "bob.hub.test"):
        reply = named.ask(other, "/user/ada/api")
        assert reply.headers["Location"] == "https://hub.test/hub/user/ada/api"


def test_what_the_guide_looks_for_in_the_hubs_volume_is_there(hub):
    paths = set(
        re.findall(r"/srv/state/([\w/-]*\w)", (ROOT / "docs" / "kubernetes.md").read_text())
    )
    assert len(paths) > 2
    assert [path for path in sorted(paths) if not (hub.folder / path).exists()] == []


def test_the_hub_asks_for_nothing_that_its_role_does_not_allow(ada, cluster):
    """By all that was done above, too."""
    ada.stop_server()
    assert cluster.api.asked >= {("create", "pods"), ("delete", "pods"), ("watch", "events")}
    assert cluster.api.asked <= cluster.api.allowed

"""Test servers' addresses and names, and recovery when the hub or the Docker engine hangs."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
from docker.models.containers import Container
from hubs import IMAGE, ROOT, ClassHub, ClassLearner, wait_until
from tornado.web import HTTPError

from tfcourse.hub import pools
from tfcourse.hub.spawners import containers, gpus, network
from tfcourse.hub.spawners.containers import ContainerSpawner
from tfcourse.hub.spawners.names import LABEL, USER, container_name, rename_others

ADDRESSES = {"Subnet": "172.31.255.0/29", "Gateway": "172.31.255.1"}  # five for learners


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    hub = new_hub()
    hub.up()
    return hub


@pytest.fixture(scope="module")
def ada(hub) -> ClassLearner:
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    return ada


@pytest.fixture(scope="module")
def bob(hub) -> ClassLearner:
    bob = ClassLearner(hub, "bob")
    bob.start_server()
    return bob


def address(learner: ClassLearner) -> str:
    """Return the IP address of a learner's server."""
    return learner.container.attrs["NetworkSettings"]["Networks"][learner.hub.name]["IPAddress"]


# --- Addresses


def test_docker_tells_the_hub_that_a_container_has_died(hub, bob):
    """The hub learns from a Docker event that a container has died, before the hub polls again.

    The hub polls only every ten seconds; without the event, requests would go to the dead
    container until the next poll.
    """
    bob.container.kill()
    wait_until(lambda: not bob.server(), "the hub has noticed")
    log = hub.container("hub").logs().decode()
    assert log.index("The container of bob has died.") < log.index("User bob server stopped")
    bob.start_server()


def test_an_address_is_not_given_to_the_next_server(hub, ada, bob):
    """If an address were reused, requests for a dead server could reach another server."""
    of_ada, of_bob = address(ada), address(bob)
    bob.container.kill()
    wait_until(lambda: not bob.server(), "the hub has noticed")
    bob.start_server()
    assert address(bob) not in (of_ada, of_bob)
    assert ipaddress.ip_address(address(bob)) in ipaddress.ip_network(subnet(hub))


def subnet(hub: ClassHub) -> str:
    return hub.engine.networks.get(hub.name).attrs["IPAM"]["Config"][0]["Subnet"]


def test_addresses_are_taken_in_turn():
    addresses = network.Addresses(ADDRESSES)
    given = [addresses.free(()) for _ in range(10)]
    assert len(set(given[:5])) == 5
    assert given[5:] == given[:5]
    assert ADDRESSES["Gateway"] not in given


def test_starts_at_the_same_time_get_different_addresses():
    addresses = network.Addresses({"Subnet": "172.30.0.0/16", "Gateway": "172.30.0.1"})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            given = list(pool.map(lambda _: addresses.free(()), range(5000)))
    finally:
        sys.setswitchinterval(interval)
    assert len(set(given)) == 5000


def address_for_a_start(
    monkeypatch: pytest.MonkeyPatch, taken: list[str], routes: list[str], labels: dict | None
) -> dict[str, Any]:
    """Return the Docker options that set a new server's address.

    Containers have the addresses in `taken`, and the proxy has routes to those in `routes`.
    """

    async def all_routes() -> dict[str, dict[str, str]]:
        return {ip: {"target": f"http://{ip}:8888"} for ip in routes}

    async def inspect(*_: str) -> dict[str, Any]:
        ends = {ip: {"IPv4Address": f"{ip}/29"} for ip in taken}
        return {"Labels": labels, "Containers": ends}

    hub = SimpleNamespace(proxy=SimpleNamespace(get_all_routes=all_routes))
    monkeypatch.setattr(containers, "JupyterHub", SimpleNamespace(instance=lambda: hub))
    spawner = SimpleNamespace(
        addresses=network.Addresses(ADDRESSES),
        client=docker.APIClient("http://127.0.0.1:9", version="1.44"),  # asked for nothing
        docker=inspect,
        log=SimpleNamespace(error=lambda *_: None),
        network_name="x",
    )
    return asyncio.run(ContainerSpawner.address(spawner))


OURS = {network.LABEL: "yes"}
IPS = [f"172.31.255.{number}" for number in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("free", IPS)
@pytest.mark.parametrize("containers_have", range(5))
def test_an_address_with_a_route_or_a_container_is_left_out(monkeypatch, free, containers_have):
    others = [ip for ip in IPS if ip != free]
    taken, routes = others[:containers_have], others[containers_have:]
    options = address_for_a_start(monkeypatch, taken, routes, OURS)
    (endpoint,) = options["networking_config"]["EndpointsConfig"].values()
    assert endpoint["IPAMConfig"]["IPv4Address"] == free


@pytest.mark.parametrize("containers_have", range(6))
def test_without_a_free_address_a_start_is_refused(monkeypatch, containers_have):
    """Docker might choose a dead server's address, to which the proxy still sends requests."""
    taken, routes = IPS[:containers_have], IPS[containers_have:]
    with pytest.raises(HTTPError, match="All addresses for servers are in use") as refused:
        address_for_a_start(monkeypatch, taken, routes, OURS)
    assert refused.value.status_code == 503
    assert refused.value.jupyterhub_message


def test_docker_chooses_in_a_network_of_an_earlier_version(monkeypatch):
    assert address_for_a_start(monkeypatch, IPS, [], labels=None) == {}


def test_an_empty_network_of_an_earlier_version_is_replaced(engine: docker.DockerClient):
    name = f"course-earlier-{os.getpid()}"
    earlier = engine.networks.create(name, driver="bridge", **network.WALLS)
    try:
        earlier.reload()
        found = network.ensure(engine, name)
        replaced = engine.networks.get(name)
        assert replaced.id != earlier.id
        assert found["Subnet"] == earlier.attrs["IPAM"]["Config"][0]["Subnet"]
        assert network.LABEL in replaced.attrs["Labels"]
        assert network.ensure(engine, name) == found
        assert engine.networks.get(name).id == replaced.id
    finally:
        engine.networks.get(name).remove()


# --- Names

LOOK_UP = """
import socket, sys
for asked in sys.argv[1:]:
    try:
        print(socket.gethostbyaddr(asked) if asked[0].isdigit() else socket.gethostbyname(asked))
    except OSError:
        pass
"""


def test_nothing_that_a_server_can_ask_tells_the_names_of_others(hub, ada, bob):
    guesses = ["bob", f"{hub.name}-bob", f"{hub.name}-bob.{hub.name}"]
    found = ada.run("python", "-c", LOOK_UP, address(bob), *guesses)
    assert bob.container.name in found  # Docker's DNS reveals container names
    assert "bob" not in found
    everything = ada.run("sh", "-c", "cat /proc/self/mountinfo /proc/net/arp /etc/hosts; env")
    assert "bob" not in everything


def test_the_name_of_a_container_cannot_be_guessed():
    names = {container_name("course", key, "ada") for key in ("one", "another")}
    assert len(names) == 2
    assert all(re.fullmatch(r"course_[0-9a-f]{16}", name) for name in names)


def test_containers_of_an_earlier_version_are_renamed_while_they_run(engine: docker.DockerClient):
    hub = f"course-earlier-{os.getpid()}"
    image, alone = f"{IMAGE}:cpu", {"network_mode": "none"}

    def make(end: str, **labels: str) -> Container:
        return engine.containers.create(image, name=hub + end, labels=labels, **alone)

    made = [
        make("-ada-40example-2eorg", **{LABEL: hub}),
        make("_0123456789abcdef", **{LABEL: hub, USER: "bob"}),  # named with an earlier key
        make("-other"),
    ]
    try:
        rename_others(engine, hub, "key")
        rename_others(engine, hub, "key")
        for container in made:
            container.reload()
        assert [container.name for container in made] == [
            container_name(hub, "key", "ada@example.org"),
            container_name(hub, "key", "bob"),
            f"{hub}-other",
        ]
    finally:
        for container in made:
            container.remove(force=True)


# --- Slow calls


class Slow:
    """A stand-in for a Docker engine that takes a minute to stop a container."""

    def __init__(self) -> None:
        self.answer = threading.Event()

    def stop(self, _: str) -> None:
        self.answer.wait(60)

    def start(self, _: str) -> str:
        return "started"


def test_servers_that_are_slow_to_stop_keep_nobody_waiting(spawner, monkeypatch):
    """In an earlier version, three servers that ignored SIGTERM made each start take 30 seconds."""
    slow = Slow()
    monkeypatch.setattr(ContainerSpawner, "_client", slow)

    async def start() -> str:
        stops = [spawner.docker("stop", "x") for _ in range(100)]
        try:
            return await asyncio.wait_for(spawner.docker("start", "x"), 20)
        finally:
            assert not any(stop.done() for stop in stops)
            slow.answer.set()

    assert asyncio.run(start()) == "started"


@pytest.mark.parametrize("blocked", ["HOMES", "PLATFORM", "DOCKER", "DOCKER_STOP", "PASSWORDS"])
def test_slow_calls_of_one_kind_do_not_delay_others(blocked):
    """In an earlier version, nobody could log in while six home directories were on a hung disk."""
    kinds = {name: pool for name, pool in vars(pools).items() if isinstance(pool, Executor)}
    answer = threading.Event()
    for _ in range(100):
        kinds[blocked].submit(answer.wait, 60)
    try:
        for name in kinds.keys() - {blocked}:
            asyncio.run(asyncio.wait_for(pools.run(kinds[name], str), 20))
    finally:
        answer.set()


def test_nothing_uses_the_few_threads_that_everything_would_share():
    for path in (ROOT / "tfcourse" / "hub").rglob("*.py"):
        if path.name != "pools.py":
            assert not re.findall(r"to_thread\(|run_in_executor\(", path.read_text()), path


# --- An engine with temporary failures


@pytest.fixture
def spawner() -> ContainerSpawner:
    spawner = ContainerSpawner(user=SimpleNamespace(name="ada"))
    spawner.name_key = "key"
    return spawner


def error(status: int) -> docker.errors.APIError:
    """Return the error that Docker's client raises if the engine responds with this status."""
    response = requests.Response()
    response.status_code = status
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind("the engine says no", response=response, explanation="context deadline exceeded")


# --- Servers that the hub does not know


@pytest.fixture
def returning(spawner, monkeypatch) -> tuple[ContainerSpawner, dict]:
    """Return a spawner, and Docker's description of a container that it could have started."""
    environment = {"JUPYTERHUB_API_TOKEN": "new", "JPY_API_TOKEN": "new", "MEM_LIMIT": "2"}
    monkeypatch.setattr(spawner, "get_env", lambda: environment)
    spawner.image = "tensorflow-course:cpu"
    spawner.volumes = {
        "/srv/homes/ada": "/home/jovyan",
        "/srv/shared": {"bind": "/home/jovyan/shared", "mode": "ro"},
    }
    container = {
        "Id": "0123456789",
        "State": {"Running": True, "Paused": False},
        "Config": {
            "Image": spawner.image,
            "Labels": {},
            "Env": ["PATH=/bin", "MEM_LIMIT=2", "JUPYTERHUB_API_TOKEN=old", "JPY_API_TOKEN=old"],
        },
        "Mounts": [
            {"Source": "/srv/homes/ada", "Destination": "/home/jovyan", "RW": True},
            {"Source": "/srv/shared", "Destination": "/home/jovyan/shared", "RW": False},
        ],
    }
    return spawner, container


CHANGES = {
    "nothing": lambda spawner, container: None,
    "it has ended": lambda spawner, container: container["State"].update(Running=False),
    "it is paused": lambda spawner, container: container["State"].update(Paused=True),
    "it is being removed": lambda spawner, container: spawner.ending.add(container["Id"]),
    "another environment": lambda spawner, container: setattr(spawner, "image", "x:gpu"),
    "a GPU is wanted": lambda spawner, container: setattr(spawner, "gpu", True),
    "it has a GPU": lambda spawner, container: container["Config"]["Labels"].update(
        {gpus.LABEL: "0"}
    ),
    "other limits": lambda spawner, container: spawner.get_env().update(MEM_LIMIT="4"),
    "another hub's address": lambda spawner, container: spawner.get_env().update(
        JUPYTERHUB_API_URL="http://172.18.0.1:9001/hub/api"
    ),
    "another place of homes": lambda spawner, container: container["Mounts"][0].update(
        Source="/mnt/homes/ada"
    ),
    "who is no instructor any more": lambda spawner, container: container["Mounts"][1].update(
        RW=True
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_learner_returns_to_a_running_server_only_if_it_is_as_a_new_one(
    returning, change, monkeypatch
):
    spawner, container = returning
    monkeypatch.setattr(ContainerSpawner, "ending", set())
    CHANGES[change](spawner, container)
    assert spawner.is_current(container) is (change == "nothing")


@pytest.mark.parametrize(
    ("seconds", "known", "fails", "removed"),
    [
        (100, False, None, True),
        (100, True, None, False),
        (10, False, None, False),  # their owners still have time to return
        (100, False, error(404), True),  # it has just ended
    ],
)
def test_servers_that_nobody_returns_to_are_stopped(monkeypatch, seconds, known, fails, removed):
    asked = []

    def remove(force: bool) -> None:
        asked.append(force)
        if fails:
            raise fails

    container = SimpleNamespace(id="0123456789", name="hub_ada", labels={}, remove=remove)
    client = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: [container]))
    spawner = SimpleNamespace(active=True)
    monkeypatch.setattr(ContainerSpawner, "known", {"hub_ada": spawner} if known else {})
    monkeypatch.setattr(ContainerSpawner, "ending", set())
    monkeypatch.setattr(containers, "STARTED", time.monotonic() - seconds)
    asyncio.run(containers.stop_unknown(None, client, "hub", 60))
    assert asked == [True] * removed
    assert ContainerSpawner.ending == ({container.id} if removed else set())


def test_an_engine_that_fails_stops_no_server(monkeypatch):
    def fails(**_: object) -> None:
        raise docker.errors.DockerException

    monkeypatch.setattr(containers, "STARTED", time.monotonic() - 100)
    client = SimpleNamespace(containers=SimpleNamespace(list=fails))
    asyncio.run(containers.stop_unknown(None, client, "hub", 60))


MOMENTARY = [
    error(500),
    error(503),
    error(409),
    requests.ConnectionError("the engine is restarting"),
    requests.ReadTimeout("Read timed out."),
]


def answers(answer: Any, *_: Any) -> Any:
    """Return the answer, or raise it if it is an exception."""
    if isinstance(answer, Exception):
        raise answer
    return answer


class Asked(SimpleNamespace):
    """A stand-in for Docker's API that always returns the same answer about a container."""

    def inspect_container(self, _: str) -> Any:
        return answers(self.answer)


@pytest.mark.parametrize("answer", MOMENTARY, ids=repr)
def test_a_server_does_not_end_because_the_engine_fails_for_a_moment(spawner, monkeypatch, answer):
    """DockerSpawner itself would take HTTP 500 to mean that the running server is missing."""
    monkeypatch.setattr(ContainerSpawner, "_client", Asked(answer=answer))
    assert asyncio.run(spawner.poll()) is None


def test_a_server_has_ended_when_the_engine_says_so(spawner, monkeypatch):
    monkeypatch.setattr(ContainerSpawner, "_client", Asked(answer=error(404)))
    assert asyncio.run(spawner.poll()) == 0
    state = {"Running": False, "ExitCode": 137, "Error": "", "FinishedAt": "now"}
    spawner._client.answer = {"Id": "0123456789", "State": state}
    assert "137" in asyncio.run(spawner.poll())
    state["Running"] = True
    assert asyncio.run(spawner.poll()) is None


@pytest.mark.parametrize(
    ("found", "created", "restarts"),
    [
        *((each, None, False) for each in MOMENTARY),
        (error(404), error(500), False),
        (error(404), requests.ReadTimeout(), False),
        (error(404), error(403), True),  # another network has taken the addresses
    ],
    ids=repr,
)
def test_only_a_lost_network_restarts_the_hub(monkeypatch, found, created, restarts):
    killed = []
    monkeypatch.setattr(network.os, "kill", lambda *arguments: killed.append(arguments))
    networks = SimpleNamespace(
        get=partial(answers, found), create=lambda *_, **__: answers(created)
    )
    network.keep(SimpleNamespace(networks=networks), "x", ADDRESSES)
    assert killed == [(os.getpid(), signal.SIGTERM)] * restarts


@pytest.mark.parametrize("failure", [error(500), MOMENTARY[-1]], ids=repr)
def test_a_quota_that_is_not_set_in_time_gets_a_sentence(tmp_path, monkeypatch, failure):
    def from_env() -> SimpleNamespace:
        return SimpleNamespace(containers=SimpleNamespace(run=lambda *_, **__: answers(failure)))

    monkeypatch.setattr(docker, "from_env", from_env)
    with pytest.raises(HTTPError, match="its quota could not be set"):
        containers.limit_home("/srv", 10**9, "homes/.ada.part")


class Starting(SimpleNamespace):
    """A server whose container has died while the server is still starting."""

    pending = "spawn"
    user, log = SimpleNamespace(name="ada"), SimpleNamespace(info=lambda *_: None)
    poll_once_ready = ContainerSpawner.poll_once_ready

    @property
    def ready(self) -> bool:
        return not self.pending

    async def poll_and_notify(self) -> None:
        self.noticed = self.pending


def test_a_container_that_dies_during_the_start_is_noticed_at_its_end(monkeypatch):
    monkeypatch.setattr(containers, "PENDING_SECONDS", 0.01)
    server = Starting(noticed="nothing")
    monkeypatch.setitem(ContainerSpawner.known, "course_1", server)

    async def start() -> None:
        ContainerSpawner.died("course_1")
        await asyncio.sleep(0.1)
        assert server.noticed == "nothing"
        server.pending = None
        await asyncio.sleep(0.1)

    asyncio.run(start())
    assert server.noticed is None


def test_a_container_that_is_stopped_does_not_end_the_next_start(monkeypatch):
    """Polling between the stop and the start would find no container and end the new server."""
    monkeypatch.setattr(containers, "PENDING_SECONDS", 0.01)
    server = Starting(noticed="nothing")
    monkeypatch.setitem(ContainerSpawner.known, "course_1", server)

    async def stop_and_start() -> None:
        server.pending = "stop"
        ContainerSpawner.died("course_1")
        for server.pending in ("stop", None, "spawn", None):
            await asyncio.sleep(0.1)

    asyncio.run(stop_and_start())
    assert server.noticed == "nothing"


# --- A hub that hangs, and resource limits


HANG = """
import asyncio, time
from pathlib import Path
from tfcourse.hub import watchdog

once = Path("/srv/state/hung")
if not once.exists():
    once.touch()
    watchdog.TIMEOUT, watchdog.INTERVAL = 3, 1
    asyncio.get_running_loop().call_later(10, time.sleep, 1_000_000)
"""


HANGING_START = """
import asyncio, time
from tfcourse.hub import watchdog

async def main():
    watchdog.START_TIMEOUT = 1
    watchdog.start()
    time.sleep(1_000_000)

asyncio.run(main())
"""


# Python waits for the thread before it exits.
HANGING_END = """
import asyncio, time
from tfcourse.hub import pools, watchdog

async def hang():
    watchdog.TIMEOUT, watchdog.INTERVAL = 1, 0.1
    watchdog.start()
    await asyncio.sleep(1)
    pools.HOMES.submit(time.sleep, 1_000_000)

asyncio.run(hang())
"""


@pytest.mark.parametrize("script", [HANGING_START, HANGING_END], ids=["start", "end"])
def test_a_hub_that_hangs_while_it_starts_or_ends_is_killed(script):
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 70
    assert "The hub did not respond for 1 seconds and exits." in run.stderr
    assert re.search(r"in (main|_worker)", run.stderr)  # the traceback shows what hangs


def test_threads_create_one_client_of_docker(monkeypatch):
    """With two threads that made clients at the same time, Python once crashed."""
    made, pauses = [], threading.Event()

    class Spawner(ContainerSpawner):
        made_client = None

        @property
        def client(self) -> object:
            if not Spawner.made_client:
                pauses.wait(0.2)
                made.append(1)
                Spawner.made_client = SimpleNamespace(ping=lambda: "pong")
            return Spawner.made_client

    spawner = Spawner(user=SimpleNamespace(name="ada"))
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(spawner._docker, "ping") for _ in range(8)]
    assert [call.result() for call in calls] == ["pong"] * 8
    assert len(made) == 1


def test_a_hub_that_hangs_is_started_again(new_hub, tmp_path):
    (tmp_path / "hang.py").write_text(HANG)
    tmp_path.chmod(0o755)
    hub = new_hub()
    hub.up(COURSE_CONFIG=str(tmp_path))
    wait_until(lambda: hub.container("hub").attrs["RestartCount"], "Docker starts it again")
    wait_until(hub.answers, "the hub answers again")
    log = hub.container("hub").logs().decode()
    assert "The hub did not respond for 3 seconds" in log
    assert "in configure" in log or "call_later" in log or "Thread" in log


def test_each_service_has_limits_and_nobody_writes_core_files(hub, ada):
    for container in (hub.container("hub"), hub.container("proxy")):
        limits = container.attrs["HostConfig"]
        assert limits["Memory"] == limits["MemorySwap"] == 2**30
        assert limits["PidsLimit"] == 512
        assert {"Name": "core", "Soft": 0, "Hard": 0} in limits["Ulimits"]
    assert ada.run("sh", "-c", "ulimit -c; ulimit -H -c").split() == ["0", "0"]

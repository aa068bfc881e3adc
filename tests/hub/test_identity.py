"""Test the addresses and names of servers, and recovery when a server or the hub hangs."""

from __future__ import annotations

import ipaddress
import os
import re
import threading

import docker
import pytest
from docker.models.containers import Container
from hubs import IMAGE, ClassHub, ClassLearner, wait_until

from tfcourse.hub.spawners import containers, network
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
    """Docker's event tells the hub about a dead container before the hub's next poll.

    The hub polls only every ten seconds. In the meantime, requests would go to the dead container.
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


class Engine:
    """A stand-in for a Docker engine with one network."""

    def __init__(self, *taken: str, labels: dict[str, str] | None = None):
        ends = {address: {"IPv4Address": f"{address}/29"} for address in taken}
        self.network = {"Labels": labels, "Containers": ends}

    def inspect_network(self, name: str) -> dict:
        return self.network


def test_addresses_are_taken_in_turn():
    addresses = network.Addresses(ADDRESSES)
    engine = Engine(labels={network.LABEL: "yes"})
    given = [addresses.free(engine, "x", ()) for _ in range(10)]
    assert len(set(given[:5])) == 5
    assert given[5:] == given[:5]
    assert ADDRESSES["Gateway"] not in given


def test_an_address_with_a_route_or_a_container_is_left_out():
    addresses = network.Addresses(ADDRESSES)
    engine = Engine("172.31.255.2", labels={network.LABEL: "yes"})
    routes = {f"172.31.255.{number}" for number in (3, 4, 6)}
    assert [addresses.free(engine, "x", routes) for _ in range(3)] == ["172.31.255.5"] * 3
    assert addresses.free(engine, "x", {*routes, "172.31.255.5"}) is None


def test_docker_chooses_in_a_network_of_an_earlier_version():
    assert network.Addresses(ADDRESSES).free(Engine(), "x", ()) is None


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


# --- Slow calls, a hanging hub and resource limits


def test_docker_calls_that_take_long_keep_nobody_waiting():
    """Three servers that ignored SIGTERM once delayed every other start by half a minute."""
    answer = threading.Event()
    calls = containers.ContainerSpawner._executor
    slow = [calls.submit(answer.wait, 60) for _ in range(8)]
    try:
        assert calls.submit(lambda: "started").result(timeout=20) == "started"
        assert not any(call.done() for call in slow)
    finally:
        answer.set()


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

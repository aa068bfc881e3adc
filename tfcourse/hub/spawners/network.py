"""Manage the learners' Docker network, and assign addresses to the servers in it."""

from __future__ import annotations

import ipaddress
import itertools
import os
import secrets
import signal
import sys
from collections.abc import Collection
from typing import Any

import docker
import requests
from docker.models.networks import Network
from traitlets.log import get_logger

# Servers in the network can reach only the host, where the hub runs. They cannot reach the
# internet, a cloud's metadata service, or other learners' servers.
WALLS = {"internal": True, "options": {"com.docker.network.bridge.enable_icc": "false"}}

# The label of networks in which the hub assigns the servers' addresses. Docker allows fixed
# addresses only in networks that were created with an explicit address range.
LABEL = "tensorflow-course.addresses"


def ensure(
    client: docker.DockerClient, name: str, addresses: dict[str, str] | None = None
) -> dict[str, str]:
    """Create the learners' network if it is missing; return its subnet and gateway.

    Exit with a message if an existing network of that name lets learners reach each other or the
    internet, or if another network has taken the addresses.
    """
    try:
        network = client.networks.get(name)
    except docker.errors.NotFound:
        network = create(client, name, addresses)
    found = {"internal": network.attrs["Internal"], "options": network.attrs["Options"]}
    if not found["internal"] or not WALLS["options"].items() <= found["options"].items():
        sys.exit(
            f"In the Docker network {name!r}, learners' servers could reach each other or the\n"
            f"internet. Remove it (docker network rm {name}), then start the hub again."
        )
    if LABEL not in (network.attrs["Labels"] or {}) and not network.attrs["Containers"]:
        # An earlier version of the course created the network.
        addresses = network.attrs["IPAM"]["Config"][0]
        network.remove()
        network = create(client, name, addresses)
    return network.attrs["IPAM"]["Config"][0]


def create(client: docker.DockerClient, name: str, addresses: dict[str, str] | None) -> Network:
    """Create the learners' network with these addresses, or with a range that Docker chooses."""
    if addresses is None:
        network = client.networks.create(name, driver="bridge", **WALLS)
        network.reload()
        addresses = network.attrs["IPAM"]["Config"][0]
        network.remove()
    pool = docker.types.IPAMPool(addresses["Subnet"], gateway=addresses["Gateway"])
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    try:
        network = client.networks.create(
            name, driver="bridge", ipam=ipam, labels={LABEL: "yes"}, **WALLS
        )
    except docker.errors.APIError as error:
        if error.is_client_error():
            sys.exit(f"Docker refuses the network {name!r}: {error.explanation}")
        raise
    network.reload()
    return network


def keep(client: docker.DockerClient, name: str, addresses: dict[str, str]) -> None:
    """Recreate the learners' network with the same addresses if it was removed.

    If another network has taken these addresses, stop the hub. Docker then restarts the hub, which
    chooses new addresses. If the Docker engine returns an error, do nothing, because the hub
    repeats this check regularly.
    """
    try:
        found = ensure(client, name, addresses)
    except SystemExit as end:
        get_logger().error(end.code)
        found = None
    except (docker.errors.DockerException, requests.RequestException) as error:
        get_logger().warning("Docker could not report on the learners' network: %s", error)
        return
    if found != addresses:
        get_logger().error("The learners' network has changed, so the hub restarts.")
        os.kill(os.getpid(), signal.SIGTERM)


class Addresses:
    """A network's addresses, which are assigned in turn.

    The proxy identifies a server by its address. Docker would reuse a free address immediately, so
    requests for a server that has just died could reach another learner's server. This class reuses
    an address only after assigning all others, and never while the proxy still has a route to it.
    """

    def __init__(self, addresses: dict[str, str]):
        self.subnet = ipaddress.ip_network(addresses["Subnet"])
        self.count = self.subnet.num_addresses - 2  # without the network and broadcast addresses
        self.gateway = addresses["Gateway"]
        # Start at a random address, so that a restarted hub does not immediately reuse the
        # addresses that it assigned last.
        self.turns = itertools.count(secrets.randbelow(self.count))

    def free(self, taken: Collection[str]) -> str | None:
        """Return the next address that is not taken, or None if all addresses are taken.

        Parameters
        ----------
        taken
            The addresses of containers, and those to which the proxy may still send requests.
        """
        in_use = {self.gateway, *taken}
        turns = itertools.islice(self.turns, self.count)
        hosts = (str(self.subnet[1 + number % self.count]) for number in turns)
        return next((host for host in hosts if host not in in_use), None)


def addresses_of(network: dict[str, Any]) -> set[str]:
    """Return the addresses of a network's containers; `network` is Docker's description of it."""
    return {each["IPv4Address"].partition("/")[0] for each in network["Containers"].values()}

"""The learners' Docker network and its servers' addresses."""

from __future__ import annotations

import ipaddress
import itertools
import os
import secrets
import signal
import sys
from collections.abc import Collection, Iterator

import docker
import requests
from docker.models.networks import Network
from traitlets.log import get_logger

# Servers in the network can reach only the host, where the hub runs. They cannot reach the
# internet, a cloud's metadata service, or other learners' servers.
WALLS = {"internal": True, "options": {"com.docker.network.bridge.enable_icc": "false"}}

# The label of networks in which the hub assigns the servers' addresses. Docker allows that only in
# networks that were created with an explicit address range.
LABEL = "tensorflow-course.addresses"


def ensure(
    client: docker.DockerClient, name: str, addresses: dict[str, str] | None = None
) -> dict[str, str]:
    """Create the learners' network if it is missing; return its subnet and gateway.

    Exit with a message if an existing network lets learners reach each other or the internet.
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
    network = client.networks.create(
        name, driver="bridge", ipam=ipam, labels={LABEL: "yes"}, **WALLS
    )
    network.reload()
    return network


def keep(client: docker.DockerClient, name: str, addresses: dict[str, str]) -> None:
    """Recreate the learners' network with the same addresses if it was removed.

    If another network has taken the hub's address, stop the hub. Docker then restarts the hub with
    a new address.
    """
    try:
        found = ensure(client, name, addresses)
    except (docker.errors.APIError, SystemExit) as error:
        get_logger().error("%s", getattr(error, "explanation", error))
        found = None
    except (docker.errors.DockerException, requests.RequestException):
        return  # the engine is restarting
    if found != addresses:
        get_logger().error("The learners' network has changed, so the hub restarts.")
        os.kill(os.getpid(), signal.SIGTERM)


class Addresses:
    """A network's addresses, which are assigned in turn.

    The proxy identifies a server by its address. Docker would reuse a free address immediately, so
    requests for a server that has just died could reach another learner's server. This class reuses
    an address only after all others, and never while the proxy still has a route to the address.
    """

    def __init__(self, addresses: dict[str, str]):
        subnet = ipaddress.ip_network(addresses["Subnet"])
        self.count = subnet.num_addresses - 2  # excluding the network and broadcast addresses
        self.gateway = addresses["Gateway"]
        self.turns = turns(subnet)

    def free(self, client: docker.APIClient, name: str, with_routes: Collection[str]) -> str | None:
        """Return the next free address, or None if Docker has to choose an address.

        Docker has to choose an address if an earlier version of the course created the network and
        learners' servers are still connected to it.

        Parameters
        ----------
        client
            The client for Docker's API.
        name
            The network's name.
        with_routes
            The addresses to which the proxy may still send requests.
        """
        network = client.inspect_network(name)
        if LABEL not in (network["Labels"] or {}):
            return None
        taken = {each["IPv4Address"].partition("/")[0] for each in network["Containers"].values()}
        in_use = {self.gateway, *taken, *with_routes}
        return next((a for a in itertools.islice(self.turns, self.count) if a not in in_use), None)


def turns(subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Iterator[str]:
    """Cycle through a subnet's host addresses forever, starting at a random address.

    A restarted hub is therefore unlikely to assign recently used addresses first.
    """
    size = subnet.num_addresses - 2
    for number in itertools.count(secrets.randbelow(size)):
        yield str(subnet[1 + number % size])

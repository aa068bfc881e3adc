"""A hub for a class: each learner's server is a Docker container, with walls around it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import docker
import requests
import traitlets
from dockerspawner import DockerSpawner
from jupyterhub.proxy import ConfigurableHTTPProxy
from tornado import web
from traitlets.log import get_logger

from tfcourse.hub import gpus, pages

# Nothing leads out of the learners' network but to this machine itself, where the hub is: neither
# to the internet, nor to a cloud's metadata service, nor from one learner's server to another's.
WALLS = {"internal": True, "options": {"com.docker.network.bridge.enable_icc": "false"}}

# The hub's group of those who may write to the folder that all learners read.
INSTRUCTORS = "instructors"
# The volume with a learner's work. `make backup` finds it by this name (backup.py).
HOME = "{prefix}-home-{username}"


def engine() -> docker.DockerClient:
    """Return a client of the Docker engine; exit with a sentence if none answers."""
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        sys.exit(
            f"The hub cannot use Docker: {error}.\n"
            "Is the engine running, and may this user write to /var/run/docker.sock?"
        )
    return client


def learners_network(
    client: docker.DockerClient, name: str, addresses: dict[str, str] | None = None
) -> dict[str, str]:
    """Make the learners' network unless it is there; return its subnet, and this machine's address.

    A network of that name that lets learners reach each other, or the internet, ends the start.
    """
    try:
        network = client.networks.get(name)
    except docker.errors.NotFound:
        pool = addresses and docker.types.IPAMPool(
            addresses["Subnet"], gateway=addresses["Gateway"]
        )
        ipam = pool and docker.types.IPAMConfig(pool_configs=[pool])
        network = client.networks.create(name, driver="bridge", ipam=ipam, **WALLS)
        network.reload()
    found = {"internal": network.attrs["Internal"], "options": network.attrs["Options"]}
    if not found["internal"] or not WALLS["options"].items() <= found["options"].items():
        sys.exit(
            f"In the Docker network {name!r} learners' servers could reach each other or the\n"
            f"internet. Remove it (docker network rm {name}), and start the hub again."
        )
    return network.attrs["IPAM"]["Config"][0]


def keep_network(client: docker.DockerClient, name: str, addresses: dict[str, str]) -> None:
    """Make the learners' network again if it was removed, with the address that the hub listens on.

    If that is another network's by now, the hub ends, and Docker starts it with a new one.
    """
    try:
        found = learners_network(client, name, addresses)
    except (docker.errors.APIError, SystemExit) as error:
        get_logger().error("%s", getattr(error, "explanation", error))
        found = None
    except (docker.errors.DockerException, requests.RequestException):
        return  # the engine is being restarted
    if found != addresses:
        get_logger().error("The learners' network is not what it was: the hub starts again.")
        os.kill(os.getpid(), signal.SIGTERM)


def homes(client: docker.DockerClient, name: str) -> list[str]:
    """Return the volumes with learners' work."""
    begin = HOME.format(prefix=name, username="")
    volumes = client.volumes.list(filters={"name": begin})
    return [volume.name for volume in volumes if volume.name.startswith(begin)]


def has_home(client: docker.DockerClient, name: str, username: str) -> bool:
    """Tell whether there is work under this user name."""
    escaped = DockerSpawner._escape(username)
    return HOME.format(prefix=name, username=escaped) in homes(client, name)


def mount_shared_folder(spawner: DockerSpawner) -> None:
    """Mount the folder of the whole class: instructors may write to it, learners may read.

    The hub calls it before each start (as `c.Spawner.pre_spawn_hook`).
    """
    groups = [group.name for group in spawner.user.groups]
    mode = "rw" if spawner.user.admin or INSTRUCTORS in groups else "ro"
    shared = {"{prefix}-shared": {"bind": "/home/jovyan/shared", "mode": mode}}
    spawner.volumes = {**spawner.volumes, **shared}


class Proxy(ConfigurableHTTPProxy):
    """JupyterHub's proxy, which does not say when somebody was active.

    It would count every request, and a tab that is left open sends one every few seconds. What a
    learner does is known to the learner's server, which tells the hub.
    """

    async def get_all_routes(self, client: Any = None) -> dict[str, Any]:
        """Return where each address leads."""
        routes = await super().get_all_routes(client=client)
        for route in routes.values():
            route["data"].pop("last_activity", None)
        return routes


class ContainerSpawner(DockerSpawner):
    """A container for each learner, with what the course's hub needs beyond DockerSpawner."""

    # As in `local.LocalSpawner`: a REST request may bring any JSON, `apply_user_options` refuses.
    user_options = traitlets.Any({})

    progress = pages.progress

    gpu = traitlets.Bool(False, help="Whether the container gets a GPU for itself.")
    gpu_ids = traitlets.List(traitlets.Unicode(), help="The GPUs to give away.", config=True)

    def load_state(self, state: dict[str, Any]) -> None:
        """Look for the server under this hub's name.

        The one in a database that was restored may be the container of another hub on this machine.
        """
        super().load_state({**state, "object_name": ""})

    async def create_object(self) -> dict[str, Any]:
        """Create the container; one with a GPU gets one that no other learner's has.

        Raises
        ------
        HTTPError
            503, with a sentence for the learner, if all GPUs are in use.
        """
        if not self.gpu:
            return await super().create_object()
        async with gpus.lock():
            free = await asyncio.to_thread(gpus.free, self.gpu_ids, self.prefix)
            if not free:
                raise refusal(
                    f"All GPUs are in use ({len(self.gpu_ids)} of {len(self.gpu_ids)}). "
                    "Start TensorFlow (CPU), which runs every lesson, or try again later."
                )
            before = self.extra_host_config, self.extra_create_kwargs
            self.extra_host_config = {**before[0], **gpus.host_config(free[0])}
            self.extra_create_kwargs = {**before[1], "labels": gpus.label(free[0], self.prefix)}
            try:
                return await super().create_object()
            finally:
                self.extra_host_config, self.extra_create_kwargs = before

    async def start(self) -> tuple[str, int]:
        """Start the container; what Docker refuses becomes a sentence for the learner."""
        try:
            return await super().start()
        except docker.errors.ImageNotFound as error:
            self.log.error("%s", error)
            raise refusal(
                f"The image {self.image} is not on this server. Please tell your instructor; "
                "`make images` builds it."
            ) from None
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.log.error("Docker did not start %s: %s", self.container_name, error)
            raise refusal(
                "Docker could not start your server. Try again; if that does not help, tell your "
                f"instructor what it says: {getattr(error, 'explanation', error)}"
            ) from None


def refusal(sentence: str) -> web.HTTPError:
    """Return an error that shows the learner this sentence, on pages and in the REST API."""
    error = web.HTTPError(503, sentence)
    error.jupyterhub_message = sentence
    return error

"""A hub for a class: each learner's server is a Docker container, with walls around it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import docker
import requests
import traitlets
from dockerspawner import DockerSpawner
from tornado import web

from tfcourse.hub import gpus

# Nothing leads out of the learners' network but to this machine itself, where the hub is: neither
# to the internet, nor to a cloud's metadata service, nor from one learner's server to another's.
WALLS = {"internal": True, "options": {"com.docker.network.bridge.enable_icc": "false"}}


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


def learners_network(client: docker.DockerClient, name: str) -> str:
    """Make the learners' network unless it is there; return this machine's IP address in it.

    A network of that name that lets learners reach each other, or the internet, ends the start.
    """
    try:
        network = client.networks.get(name)
    except docker.errors.NotFound:
        network = client.networks.create(name, driver="bridge", **WALLS)
        network.reload()
    found = {"internal": network.attrs["Internal"], "options": network.attrs["Options"]}
    if not found["internal"] or not WALLS["options"].items() <= found["options"].items():
        sys.exit(
            f"In the Docker network {name!r} learners' servers could reach each other or the\n"
            f"internet. Remove it (docker network rm {name}), and start the hub again."
        )
    return network.attrs["IPAM"]["Config"][0]["Gateway"]


class ContainerSpawner(DockerSpawner):
    """A container for each learner, with what the course's hub needs beyond DockerSpawner."""

    # As in `local.LocalSpawner`: a REST request may bring any JSON, `apply_user_options` refuses.
    user_options = traitlets.Any({})

    gpu = traitlets.Bool(False, help="Whether the container gets a GPU for itself.")
    gpu_ids = traitlets.List(traitlets.Unicode(), help="The GPUs to give away.", config=True)

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

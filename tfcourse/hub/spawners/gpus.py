"""Find this machine's GPUs, and determine which of them are free.

A label on each container records which GPU the container uses. A GPU therefore becomes free
whenever its container stops for any reason, and a restarted hub still knows which GPUs are in use.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any

import docker
import requests

TIMEOUT = 60  # seconds for the driver to list its GPUs

LABEL = "tensorflow-course.gpu"
# The states of containers that have stopped but have not been removed yet.
ENDED = {"exited", "removing", "dead"}


def probe(client: docker.DockerClient, image: str) -> tuple[list[str], str]:
    """Return the IDs of this machine's GPUs, or [] and a message that explains why there are none.

    A temporary container queries the driver, which takes a second or two.
    """
    container = None
    try:
        client.images.get(image)  # otherwise, Docker would search a registry
        container = client.containers.create(
            image,
            ["--query-gpu=uuid", "--format=csv,noheader"],
            entrypoint=["nvidia-smi"],
            network_mode="none",
            read_only=True,  # as learners' containers
            device_requests=[docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])],
            log_config={"Type": "json-file"},  # Docker can always read logs of this type
        )
        container.start()
        failed = container.wait(timeout=TIMEOUT)["StatusCode"]
        ids = container.logs(stderr=False).decode().split()
    except docker.errors.ImageNotFound:
        return [], "Not available: the image for GPUs is not on this server."
    except (docker.errors.DockerException, requests.RequestException):
        return [], "Not available: this server has no NVIDIA GPU that Docker can use."
    finally:
        if container:
            container.remove(force=True)
    return ([], "Not available: this server's driver finds no GPU.") if failed else (ids, "")


@functools.cache
def lock() -> asyncio.Lock:
    """Return the lock to hold while choosing a free GPU and creating a container that uses it."""
    return asyncio.Lock()


def free(ids: Iterable[str]) -> list[str]:
    """Return the GPUs that are not used by a container of any hub on this machine."""
    client = docker.from_env()
    try:
        having = {"label": LABEL}
        containers = client.containers.list(all=True, filters=having, ignore_removed=True)
        taken = {c.labels[LABEL] for c in containers if c.status not in ENDED}
    finally:
        client.close()
    return [identifier for identifier in ids if identifier not in taken]


def host_config(identifier: str) -> dict[str, Any]:
    """Return the host configuration that gives a container access to only this GPU."""
    request = {"driver": "nvidia", "device_ids": [identifier], "capabilities": [["gpu"]]}
    return {"device_requests": [request]}

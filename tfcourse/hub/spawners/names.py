"""Name and label learners' containers."""

from __future__ import annotations

import hashlib
import hmac

import docker
from escapism import unescape

# The label on each learner's container. Its value names the hub that the container belongs to.
LABEL = "tensorflow-course.hub"

# Another label, with the learner's user name, which the container's own name does not tell.
USER = "tensorflow-course.user"


def container_name(hub: str, key: str, user: str) -> str:
    """Return the name of a learner's container, which does not tell who the learner is.

    Docker's name server tells each container the names of the others, and some user names are
    e-mail addresses. Without the key, nobody can find out whether a certain learner has a
    container.
    """
    digest = hmac.new(key.encode(), user.encode(), hashlib.sha256).hexdigest()
    return f"{hub}_{digest[:16]}"


def rename_others(client: docker.DockerClient, hub: str, key: str) -> None:
    """Rename this hub's containers that have other names, while they run.

    They are from an earlier version of the course, or from before the key was lost. Without their
    new names, the hub would not find them.
    """
    mine = {"label": f"{LABEL}={hub}"}
    for container in client.containers.list(all=True, filters=mine, ignore_removed=True):
        user = container.labels.get(USER)
        if user is None and container.name.startswith(f"{hub}-"):
            # Earlier versions had no such label, and put the escaped user name into the name.
            user = unescape(container.name.removeprefix(f"{hub}-"), "-")
        if user and container.name != (name := container_name(hub, key, user)):
            container.rename(name)

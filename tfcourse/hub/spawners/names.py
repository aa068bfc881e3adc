"""Name and label learners' containers."""

from __future__ import annotations

import hashlib
import hmac

import docker
from escapism import unescape

# The label on each learner's container. Its value names the hub that the container belongs to.
LABEL = "tensorflow-course.hub"

# The label with the learner's user name, which the container's own name does not reveal.
USER = "tensorflow-course.user"


def container_name(hub: str, key: str, user: str) -> str:
    """Return a name for a learner's container that does not reveal who the learner is.

    Docker's DNS server tells each container the names of the others, and some user names are e-mail
    addresses. Without the key, nobody can find out whether a certain learner has a container.
    """
    digest = hmac.new(key.encode(), user.encode(), hashlib.sha256).hexdigest()
    return f"{hub}_{digest[:16]}"


def rename_others(client: docker.DockerClient, hub: str, key: str) -> None:
    """Rename this hub's containers that have outdated names, even while they run.

    Such containers are from an earlier version of the course, or from before the key was lost.
    Without new names, the hub would not find them.
    """
    mine = {"label": f"{LABEL}={hub}"}
    for container in client.containers.list(all=True, filters=mine, ignore_removed=True):
        user = container.labels.get(USER)
        if user is None and container.name.startswith(f"{hub}-"):
            # Earlier versions had no label for the user, and put the escaped user name into the
            # container's name.
            user = unescape(container.name.removeprefix(f"{hub}-"), "-")
        if user and container.name != (name := container_name(hub, key, user)):
            container.rename(name)

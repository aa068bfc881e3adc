"""Name and label learners' containers."""

from __future__ import annotations

import hashlib
import hmac

import docker
from escapism import unescape

# The label on each learner's container. Its value is the name of the hub that owns the container.
LABEL = "tensorflow-course.hub"

# The label that contains the learner's user name, which the container's name does not reveal.
USER = "tensorflow-course.user"


def container_name(hub: str, key: str, user: str) -> str:
    """Return a name for a learner's container that does not reveal who the learner is.

    Through Docker's DNS server, each container can discover the names of all others, and some user
    names are e-mail addresses. Without the key, nobody can determine whether a particular learner
    has a container.
    """
    digest = hmac.new(key.encode(), user.encode(), hashlib.sha256).hexdigest()
    return f"{hub}_{digest[:16]}"


def rename_others(client: docker.DockerClient, hub: str, key: str) -> None:
    """Rename this hub's containers that have outdated names, including running containers.

    Such containers were created by an earlier version of the course, or before the key was lost.
    The hub could not find them by their old names.
    """
    mine = {"label": f"{LABEL}={hub}"}
    for container in client.containers.list(all=True, filters=mine, ignore_removed=True):
        user = container.labels.get(USER)
        if user is None and container.name.startswith(f"{hub}-"):
            # Earlier versions stored the escaped user name in the container's name instead of in a
            # label.
            user = unescape(container.name.removeprefix(f"{hub}-"), "-")
        if user and container.name != (name := container_name(hub, key, user)):
            container.rename(name)

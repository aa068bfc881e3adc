"""A hub for a class: each learner's server runs in its own isolated Docker container."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import docker
import requests
import traitlets
from dockerspawner import DockerSpawner
from traitlets.log import get_logger

from tfcourse.hub import database, rounds, settings
from tfcourse.hub.accounts import setup as accounts
from tfcourse.hub.classroom import instructors
from tfcourse.hub.front import https, pages, proxy
from tfcourse.hub.spawners import gpus, homes, idle, profiles

# The learners' network leads only to this machine, where the hub is: not to the internet, not to a
# cloud's metadata service, and not from one learner's server to another's.
WALLS = {"internal": True, "options": {"com.docker.network.bridge.enable_icc": "false"}}

# The label on each learner's container. Its value is the hub that the container belongs to.
LABEL = "tensorflow-course.hub"

# The options of every learner's container.
HOST = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    # When the machine runs short of memory, the kernel kills a learner's program, not the hub.
    "oom_score_adj": 500,
    "log_config": {"Type": "local", "Config": {"max-size": "5m", "max-file": "2"}},
}


def configure(c: Any, hub: Path) -> None:
    """Set up a hub for a class on one machine; `hub` is the folder with the hub's own files."""
    name = settings.NAME()  # names the hub's objects in Docker
    client = engine()
    work = homes.path_on_server()
    database.configure(c, hub, homes.names())

    # --- Addresses. The proxy and the hub are in the host's network: see WALLS

    port, hub_port, _ = settings.ports()
    network = learners_network(client, name)
    c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
    c.JupyterHub.hub_bind_url = f"http://{network['Gateway']}:{hub_port}"

    # Nobody can reach the hub without this network, and `docker network prune` removes it when no
    # learner's server is running.
    rounds.regularly(partial(keep_network, client, name, network), seconds=5)

    https.configure(c)

    proxy.configure(c)

    accounts.configure(c, hub, has_home)

    # --- A learner's container

    c.JupyterHub.spawner_class = ContainerSpawner
    c.DockerSpawner.extra_create_kwargs = {"labels": {LABEL: name}}
    remove_unstarted(client, name)
    gpu_ids, reason = gpus.probe(client, f"{profiles.IMAGE}:gpu")
    c.ContainerSpawner.gpu_ids = gpu_ids
    unavailable = {} if gpu_ids else {p.slug: reason for p in profiles.PROFILES if p.gpu}
    profiles.configure(c, traits_of, profiles.PROFILES, unavailable)
    c.DockerSpawner.prefix = name
    c.DockerSpawner.network_name = name
    c.DockerSpawner.use_internal_ip = True
    c.DockerSpawner.cmd = ["jupyterhub-singleuser"]

    # The hub notices within this time that a container is gone.
    c.Spawner.poll_interval = 10  # seconds

    # Each start creates a new container, so a new image takes effect at once. The learner's work is
    # in a folder outside.
    c.DockerSpawner.remove = True
    c.Spawner.pre_spawn_hook = partial(mount_folders, work)
    c.ContainerSpawner.home_quota = settings.HOME_QUOTA() or 0

    # By default, the spawner would look on Docker Hub for an image that is missing here.
    c.DockerSpawner.pull_policy = "ifnotpresent" if settings.IMAGE.is_set else "never"

    idle.configure(c)

    if settings.MONITOR():
        from tfcourse.hub.spawners import monitoring  # slow to import

        monitoring.configure(c, hub, name, network["Gateway"], gpu_ids)


def traits_of(profile: profiles.Profile) -> dict[str, Any]:
    """Return the spawner's traits that the profile sets."""
    return {
        "image": profile.image,
        "gpu": profile.gpu,
        "mem_limit": profile.memory,
        "cpu_limit": profile.cpus,
        "extra_host_config": {
            **HOST,
            # No swap: a learner short of memory must not slow down the others.
            "memswap_limit": profile.memory,
            "pids_limit": profile.processes,
            "shm_size": profile.shared_memory,
        },
    }


def engine() -> docker.DockerClient:
    """Return a client for the Docker engine; exit with a message if it cannot be used."""
    try:
        client = docker.from_env()
        facts = client.info()
    except docker.errors.DockerException as error:
        sys.exit(
            f"The hub cannot use Docker: {error}.\n"
            "Is the engine running, and may this user write to /var/run/docker.sock?"
        )
    # Newer engines do not report this; they take care of it themselves.
    if not facts.get("BridgeNfIptables", True):
        sys.exit(
            "On this server, learners' servers could reach each other: the kernel does not pass\n"
            "bridged traffic to the firewall. Run `modprobe br_netfilter` as root, add a line to\n"
            "/etc/modules so that it is loaded at boot, too, then start the hub again."
        )
    return client


def learners_network(
    client: docker.DockerClient, name: str, addresses: dict[str, str] | None = None
) -> dict[str, str]:
    """Create the learners' network if it is missing; return its subnet and this machine's address.

    Exit with a message if a network of that name lets learners reach each other or the internet.
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
            f"In the Docker network {name!r}, learners' servers could reach each other or the\n"
            f"internet. Remove it (docker network rm {name}), then start the hub again."
        )
    return network.attrs["IPAM"]["Config"][0]


def keep_network(client: docker.DockerClient, name: str, addresses: dict[str, str]) -> None:
    """Recreate the learners' network if it was removed, with the address that the hub listens on.

    If another network has taken that address, stop the hub; Docker restarts it with a new address.
    """
    try:
        found = learners_network(client, name, addresses)
    except (docker.errors.APIError, SystemExit) as error:
        get_logger().error("%s", getattr(error, "explanation", error))
        found = None
    except (docker.errors.DockerException, requests.RequestException):
        return  # the engine is restarting
    if found != addresses:
        get_logger().error("The learners' network has changed: the hub restarts.")
        os.kill(os.getpid(), signal.SIGTERM)


def remove_unstarted(client: docker.DockerClient, name: str) -> None:
    """Remove containers that a hub created but did not start, because it was killed.

    Such a container may hold a GPU.
    """
    left = {"label": f"{LABEL}={name}", "status": "created"}
    for container in client.containers.list(all=True, filters=left, ignore_removed=True):
        container.remove(force=True)


def has_home(username: str) -> bool:
    """Return whether there is work under this user name."""
    return DockerSpawner._escape(username) in homes.names()


async def mount_folders(work: str, spawner: DockerSpawner) -> None:
    """Mount the learner's home, and the folder that instructors write to and learners read.

    The hub calls this function before each start (as `c.Spawner.pre_spawn_hook`). `work` is the
    path on the server of the folder that contains both.
    """
    name = DockerSpawner._escape(spawner.user.name)
    limit = partial(limit_home, work, spawner.home_quota) if spawner.home_quota else None
    if problem := await asyncio.to_thread(homes.ready, name, limit):
        raise pages.refusal(problem)
    mode = "rw" if instructors.is_instructor(spawner.user) else "ro"
    spawner.volumes = {
        f"{work}/homes/{name}": "/home/jovyan",
        f"{work}/shared": {"bind": "/home/jovyan/shared", "mode": mode},
    }


def limit_home(work: str, size: int, home: str) -> None:
    """Limit how much a new home may hold; raise HTTP 503 with a message if that fails.

    The hub lacks the rights for it, so a temporary container does it.
    """
    command = ["python", "-m", "tfcourse.hub.spawners.homes", "limit", str(size), home]
    try:
        docker.from_env().containers.run(
            f"{profiles.IMAGE}:hub",
            command,
            user="root",
            cap_drop=["ALL"],
            cap_add=["SYS_ADMIN", "FOWNER", "DAC_READ_SEARCH"],
            # The seccomp profiles of older engines do not know quotactl_fd(2).
            security_opt=["no-new-privileges", "seccomp=unconfined"],
            network_mode="none",
            volumes=[f"{work}:{homes.FOLDER}"],
            remove=True,
        )
    except docker.errors.DockerException as error:
        get_logger().error("The quota of %s was not set: %s", home, error)
        raise pages.refusal(
            "Your home could not be created, because its limit could not be set. Please tell your "
            "instructor."
        ) from None


class ContainerSpawner(DockerSpawner):
    """A container for each learner: DockerSpawner, plus what the course's hub needs."""

    # As in `processes.LocalSpawner`: a REST request may contain any JSON, and `apply_user_options`
    # refuses what is wrong.
    user_options = traitlets.Any({})

    progress = pages.progress

    home_quota = traitlets.Int(0, help="The most that a new home may hold, in bytes.", config=True)
    gpu = traitlets.Bool(False, help="Whether the container gets a GPU for itself.")
    gpu_ids = traitlets.List(traitlets.Unicode(), help="The GPUs for learners.", config=True)

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the state, but look for the container under this hub's name.

        The name in a restored database may belong to another hub's container on this machine.
        """
        super().load_state({**state, "object_name": ""})

    async def get_url(self) -> str:
        """Return the server's address.

        A hub that was killed while the server was starting did not store it, so ask Docker then.
        """
        if self.server.ip:
            return self.server.url
        ip, port = await self.get_ip_and_port()
        return f"http://{ip}:{port}{self.server.base_url}"

    async def create_object(self) -> dict[str, Any]:
        """Create the container; if it needs a GPU, give it one that no other container holds.

        Raises
        ------
        HTTPError
            503, with a message for the learner, if all GPUs are in use.
        """
        if not self.gpu:
            return await super().create_object()
        async with gpus.lock():
            free = await asyncio.to_thread(gpus.free, self.gpu_ids)
            if not free:
                raise pages.refusal(
                    f"All GPUs are in use ({len(self.gpu_ids)} of {len(self.gpu_ids)}). "
                    "Start TensorFlow (CPU), which runs every lesson, or try again later."
                )
            before = self.extra_host_config, self.extra_create_kwargs
            self.extra_host_config = {**before[0], **gpus.host_config(free[0])}
            labels = {**before[1].get("labels", {}), gpus.LABEL: free[0]}
            self.extra_create_kwargs = {**before[1], "labels": labels}
            try:
                return await super().create_object()
            finally:
                self.extra_host_config, self.extra_create_kwargs = before

    async def start(self) -> tuple[str, int]:
        """Start the container; turn a Docker error into a message for the learner."""
        try:
            return await super().start()
        except docker.errors.ImageNotFound as error:
            self.log.error("%s", error)
            raise pages.refusal(
                f"The image {self.image} is not on this server. Please tell your instructor; "
                "`make images` builds it."
            ) from None
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.log.error("Docker did not start %s: %s", self.container_name, error)
            raise pages.refusal(
                "Docker could not start your server. Try again; if that does not help, tell your "
                f"instructor what Docker said: {getattr(error, 'explanation', error)}"
            ) from None

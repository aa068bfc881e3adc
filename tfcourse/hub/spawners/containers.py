"""A hub for a class: each learner's server runs in its own isolated Docker container."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import docker
import requests
import traitlets
from docker import DockerClient
from docker.models.containers import Container
from dockerspawner import DockerSpawner
from jupyterhub.app import JupyterHub
from tornado.ioloop import IOLoop
from traitlets.log import get_logger

from tfcourse.hub import database, pools, rounds, settings, state, watchdog
from tfcourse.hub.accounts import setup as accounts
from tfcourse.hub.accounts.sessions import keep_token
from tfcourse.hub.classroom import grading, instructors, progress
from tfcourse.hub.front import https, pages, proxy
from tfcourse.hub.spawners import deaths, gpus, homes, idle, network, profiles
from tfcourse.hub.spawners.names import LABEL, USER, container_name, rename_others

STARTED = time.monotonic()  # when the hub was started

# The environment variables that contain a server's token.
TOKENS = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")

# Docker host options shared by all learners' containers.
HOST_CONFIG = {
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    # If the host runs out of memory, the kernel kills a learner's program instead of the hub.
    "oom_score_adj": 500,
    # Disable core dumps, which would write a crashed program's entire memory to the learner's disk.
    "ulimits": [{"name": "core", "soft": 0, "hard": 0}],
    "log_config": {"Type": "local", "Config": {"max-size": "5m", "max-file": "2"}},
    # Otherwise, a learner could fill the disk that contains Docker's files and usually also the
    # accounts. Learners can write only to mounted folders, such as their home directories, and to
    # folders in memory (see `traits_of`).
    "read_only": True,
}

PENDING_SECONDS = 0.5  # seconds between checks of whether a server is still starting


def configure(c: Any, hub: Path) -> None:
    """Set up a hub for a class on one machine; `hub` is the folder with the hub's own files."""
    watchdog.start()
    name = settings.NAME()  # the name for the hub's objects in Docker
    client = engine()
    work = homes.path_on_server()
    database.configure(c, hub, homes.names())

    # --- Addresses. The proxy and the hub use the host's network (see network.WALLS).

    port, hub_port, _ = settings.ports()
    addresses = network.ensure(client, name)
    c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
    c.JupyterHub.hub_bind_url = f"http://{addresses['Gateway']}:{hub_port}"

    # The hub is unreachable without the learners' network, which `docker network prune` removes if
    # no learner's server is running.
    rounds.regularly(partial(network.keep, client, name, addresses), seconds=5)

    https.configure(c)

    proxy.configure(c)
    if proxy.refuses_us():
        for container in service(client, name, "proxy"):
            container.restart()

    accounts.configure(c, hub, has_home)

    # --- A learner's container

    c.JupyterHub.spawner_class = ContainerSpawner
    c.DockerSpawner.extra_create_kwargs = {"labels": {LABEL: name}}
    c.ContainerSpawner.name_key = key = state.password(hub / "container-names", length=32)
    ContainerSpawner.addresses = network.Addresses(addresses)
    remove_unstarted(client, name)
    rename_others(client, name, key)
    if idle_seconds := 60 * settings.IDLE_MINUTES():
        stop = partial(rounds.in_the_hub, stop_unknown, client, name, idle_seconds)
        rounds.regularly(stop, seconds=max(1, idle_seconds // 10))
    deaths.watch(f"{LABEL}={name}", ContainerSpawner.died)
    gpu_ids, reason = gpus.probe(client, f"{profiles.IMAGE}:gpu")
    c.ContainerSpawner.gpu_ids = gpu_ids
    unavailable = {} if gpu_ids else {p.slug: reason for p in profiles.PROFILES if p.gpu}
    profiles.configure(c, traits_of, profiles.PROFILES, unavailable)
    c.DockerSpawner.prefix = name
    c.DockerSpawner.network_name = name
    c.DockerSpawner.use_internal_ip = True
    c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
    c.Spawner.environment.update(progress.environment())
    grading.options = ["--docker", f"--image={profiles.IMAGE}:cpu"]

    # Docker's events notify the hub when a container dies. If the hub misses an event, its next
    # poll detects the dead container.
    c.Spawner.poll_interval = 10  # seconds

    # Each start of a server creates a new container, so a new image is used from the next start.
    # The learner's work is in a folder outside the container.
    c.DockerSpawner.remove = True
    c.Spawner.pre_spawn_hook = partial(mount_folders, work)
    c.ContainerSpawner.home_quota = settings.HOME_QUOTA() or 0

    # By default, the spawner would try to pull a missing image from Docker Hub.
    c.DockerSpawner.pull_policy = "ifnotpresent" if settings.has_registry() else "never"

    idle.configure(c)

    if settings.MONITOR():
        from tfcourse.hub.spawners import monitoring  # slow to import

        monitoring.configure(c, hub, name, addresses["Gateway"], gpu_ids)


def traits_of(profile: profiles.Profile) -> dict[str, Any]:
    """Return the spawner traits for the profile."""
    return {
        "image": profile.image,
        "gpu": profile.gpu,
        "mem_limit": profile.memory,
        "cpu_limit": profile.cpus,
        "extra_host_config": {
            **HOST_CONFIG,
            # Disable swap, so that a server that runs out of memory does not slow down the others.
            "memswap_limit": profile.memory,
            "pids_limit": profile.processes,
            "shm_size": profile.shared_memory,
            # By default, Docker does not allow programs in /tmp to run, but compilers need that.
            "tmpfs": {"/tmp": f"size={profile.memory // 3},mode=1777,exec"},  # noqa: S108
        },
    }


def engine() -> DockerClient:
    """Return a client for the Docker engine; exit with a message if the engine cannot be used."""
    try:
        client = docker.from_env()
        facts = client.info()
    except docker.errors.DockerException as error:
        sys.exit(
            f"The hub cannot use Docker: {error}.\n"
            "Is the engine running, and may this user write to /var/run/docker.sock?"
        )
    # Newer engines do not report BridgeNfIptables, because they configure bridge filtering
    # themselves.
    if not facts.get("BridgeNfIptables", True):
        sys.exit(
            "On this server, learners' servers could reach each other: the kernel does not pass\n"
            "bridged traffic to the firewall. Run `modprobe br_netfilter` as root, add the line\n"
            "`br_netfilter` to /etc/modules to load it at boot, then start the hub again."
        )
    return client


def service(client: DockerClient, name: str, which: str) -> list[Container]:
    """Return the running containers of a Compose service, such as `proxy`."""
    labels = {"project": name, "service": which}
    filters = [f"com.docker.compose.{key}={value}" for key, value in labels.items()]
    return client.containers.list(filters={"label": filters}, ignore_removed=True)


def remove_unstarted(client: DockerClient, name: str) -> None:
    """Remove containers that a killed hub had created but not started.

    Such a container may occupy a GPU.
    """
    left = {"label": f"{LABEL}={name}", "status": "created"}
    for container in client.containers.list(all=True, filters=left, ignore_removed=True):
        container.remove(force=True)


async def stop_unknown(_: JupyterHub, client: DockerClient, name: str, idle: float) -> None:
    """Stop servers that the hub does not know, for example because its database is an old copy.

    Their owners have `idle` seconds after the hub's start to return to them by pressing *Start*.
    """
    if time.monotonic() < STARTED + idle:
        return
    ours = {"filters": {"label": f"{LABEL}={name}"}, "ignore_removed": True}
    try:
        found = await pools.run(pools.DOCKER, partial(client.containers.list, **ours))
    except (docker.errors.DockerException, requests.RequestException):
        return  # the next round tries again
    for container in found:
        spawner = ContainerSpawner.known.get(container.name)
        if not (spawner and spawner.active):
            owner = container.labels.get(USER, container.name)
            get_logger().warning("Stopping a server that the hub does not know: %s", owner)
            ContainerSpawner.ending.add(container.id)
            with contextlib.suppress(docker.errors.APIError):  # it has just ended
                await pools.run(pools.DOCKER_STOP, partial(container.remove, force=True))


def has_home(username: str) -> bool:
    """Return whether a home directory exists for this user name."""
    return DockerSpawner._escape(username) in homes.names()


async def mount_folders(work: str, spawner: DockerSpawner) -> None:
    """Mount the learner's home directory and the shared folder.

    JupyterHub calls this function before each start of a server (as `c.Spawner.pre_spawn_hook`).
    `work` is the host path of the folder that contains the home directories and the shared folder.
    Only instructors can write to the shared folder.
    """
    name = DockerSpawner._escape(spawner.user.name)
    limit = partial(limit_home, work, spawner.home_quota) if spawner.home_quota else None
    if problem := await pools.run(pools.HOMES, homes.ready, name, limit):
        raise pages.refusal(problem)
    mode = "rw" if instructors.is_instructor(spawner.user) else "ro"
    spawner.volumes = {
        f"{work}/homes/{name}": "/home/jovyan",
        f"{work}/shared": {"bind": "/home/jovyan/shared", "mode": mode},
    }


def limit_home(work: str, size: int, home: str) -> None:
    """Set the quota of a new home directory; raise HTTP 503 with a message if that fails.

    The hub has no permission to set quotas, so this function uses a temporary container.
    """
    command = ["python", "-m", "tfcourse.hub.spawners.homes", "limit", str(size), home]
    try:
        docker.from_env().containers.run(
            f"{profiles.IMAGE}:hub",
            command,
            user="root",
            cap_drop=["ALL"],
            cap_add=["SYS_ADMIN", "FOWNER", "DAC_READ_SEARCH"],
            # The seccomp profiles of older Docker engines block quotactl_fd(2).
            security_opt=["no-new-privileges", "seccomp=unconfined"],
            network_mode="none",
            volumes=[f"{work}:{homes.MOUNT}"],
            remove=True,
        )
    except (docker.errors.DockerException, requests.RequestException) as error:
        get_logger().error("The quota of %s was not set: %s", home, error)
        raise pages.refusal(
            "Your home could not be created, because its quota could not be set. Please tell your "
            "instructor."
        ) from None


class ContainerSpawner(DockerSpawner):
    """A DockerSpawner that adds GPUs, quotas, fixed addresses and error messages for learners."""

    # Accept any JSON from REST requests, as in `processes.LocalSpawner`; `apply_user_options`
    # rejects invalid options.
    user_options = traitlets.Any({})

    progress = pages.progress

    home_quota = traitlets.Int(
        0, help="The maximum size of a new home directory, in bytes.", config=True
    )
    gpu = traitlets.Bool(False, help="Whether the container gets a GPU for itself.")
    gpu_ids = traitlets.List(traitlets.Unicode(), help="The GPUs for learners.", config=True)

    name_key = traitlets.Unicode(
        help="The secret key for computing containers' names.", config=True
    )

    _executor = pools.DOCKER
    client_lock = threading.Lock()

    # All spawners of this hub share the network's addresses and the map of spawners by container
    # name.
    addresses: ClassVar[network.Addresses]
    known: ClassVar[WeakValueDictionary[str, ContainerSpawner]] = WeakValueDictionary()
    ending: ClassVar[set[str]] = set()  # the IDs of containers that `stop_unknown` removes

    @property
    def owner(self) -> str:
        """Return the user's name, followed by the server's name if the server has one."""
        return f"{self.user.name}/{self.name}" if self.name else self.user.name

    @traitlets.default("object_name")
    def _object_name_default(self) -> str:
        """Register this spawner under its container's name, and return the name."""
        name = container_name(self.prefix, self.name_key, self.owner)
        self.known[name] = self
        return name

    @classmethod
    def died(cls, name: str) -> None:
        """Immediately poll a server whose container has died, unless the server is stopping."""
        spawner = cls.known.get(name)
        if spawner and (spawner.ready or spawner.pending == "spawn"):
            IOLoop.current().add_callback(spawner.poll_once_ready)

    async def poll_once_ready(self) -> None:
        """Poll the server; if it is still starting, first wait until the hub has a route to it."""
        while self.pending == "spawn":
            await asyncio.sleep(PENDING_SECONDS)
        if self.ready:  # otherwise, the start has failed
            self.log.info("The container of %s has died.", self.user.name)
            await self.poll_and_notify()

    async def poll(self) -> str | int | None:
        """Return the container's exit status, or None if it is running.

        If Docker does not respond, treat the server as running. If the hub mistook a running server
        for a stopped one, unsaved work in its kernels would be lost.
        """
        try:
            return await super().poll()
        except (docker.errors.DockerException, requests.RequestException) as error:
            self.log.warning("Docker could not report on %s: %s", self.container_name, error)
            return None

    async def get_object(self) -> dict[str, Any] | None:
        """Return Docker's description of the container, or None if there is no such container.

        DockerSpawner's own method treats any internal error of the Docker engine as a missing
        container.
        """
        try:
            container = await self.docker("inspect_container", self.object_name)
        except docker.errors.NotFound:
            self.object_id = ""
            return None
        self.object_id = container["Id"]
        return container

    def docker(self, method: str, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Call a method of Docker's API in a thread; return a future for its result."""
        pool = pools.DOCKER_STOP if method == "stop" else pools.DOCKER
        return asyncio.wrap_future(pool.submit(self._docker, method, *args, **kwargs))

    def _docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        with self.client_lock:  # only one thread may create the shared client
            client = self.client
        return getattr(client, method)(*args, **kwargs)

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the spawner's state, but recompute the container's name.

        The name in a restored database may belong to another hub's container on this machine.
        """
        super().load_state({**state, "object_name": ""})

    async def get_url(self) -> str:
        """Return the server's URL.

        If the hub was killed while the server was starting, the server's address is not in the
        database, so ask Docker for it.
        """
        if self.server.ip:
            return self.server.url
        ip, port = await self.get_ip_and_port()
        return f"http://{ip}:{port}{self.server.base_url}"

    async def create_object(self) -> dict[str, Any]:
        """Create the container, with a free GPU if the container needs one.

        Raises
        ------
        HTTPError
            503, with a message for the learner, if all GPUs or all addresses are in use.
        """
        before = self.extra_host_config, self.extra_create_kwargs
        labels = {**before[1].get("labels", {}), USER: self.owner}
        try:
            self.extra_create_kwargs = {**before[1], **await self.address(), "labels": labels}
            if not self.gpu:
                return await super().create_object()
            async with gpus.lock():
                free = await pools.run(pools.DOCKER, gpus.free, self.gpu_ids)
                if not free:
                    raise pages.refusal(
                        f"All GPUs are in use ({len(self.gpu_ids)} of {len(self.gpu_ids)}). "
                        "Start TensorFlow (CPU), which runs every lesson, or try again later."
                    )
                self.extra_host_config = {**before[0], **gpus.host_config(free[0])}
                labels = {**labels, gpus.LABEL: free[0]}
                self.extra_create_kwargs = {**self.extra_create_kwargs, "labels": labels}
                return await super().create_object()
        finally:
            self.extra_host_config, self.extra_create_kwargs = before

    def is_current(self, container: dict[str, Any]) -> bool:
        """Return whether a container is running with the options that a new server would get.

        It may run an older version of the image.
        """
        state, config = container["State"], container["Config"]
        environment = {f"{k}={v}" for k, v in self.get_env().items() if k not in TOKENS}
        mounts = {(m["Source"], m["Destination"], m["RW"]) for m in container["Mounts"]}
        binds = self.volume_binds.items()
        volumes = {(source, to["bind"], to["mode"] != "ro") for source, to in binds}
        return (
            state["Running"]
            and not state["Paused"]
            and container["Id"] not in self.ending
            and config["Image"] == self.image
            and (gpus.LABEL in config["Labels"]) == self.gpu
            and volumes <= mounts
            and environment <= set(config["Env"])
        )

    async def connect(self, container: dict[str, Any]) -> tuple[str, int]:
        """Connect a running server to the hub again; return its address."""
        self.log.warning("%s already has a running server; connecting it.", self.owner)
        variables = dict(line.split("=", 1) for line in container["Config"]["Env"])
        keep_token(self.user.db, variables[TOKENS[0]], in_place_of=self.api_token)
        self.api_token = variables[TOKENS[0]]
        return await self.get_ip_and_port()

    async def address(self) -> dict[str, Any]:
        """Return Docker options that give the container an address not used recently.

        If an earlier version of the course created the network and learners' servers are still
        connected to it, only Docker can choose addresses, so return no options.
        """
        routes = await JupyterHub.instance().proxy.get_all_routes()
        found = await self.docker("inspect_network", self.network_name)
        if network.LABEL not in (found["Labels"] or {}):
            return {}
        with_routes = {urlsplit(route["target"]).hostname for route in routes.values()}
        address = self.addresses.free(network.addresses_of(found) | with_routes)
        if address is None:
            self.log.error("All addresses of the network %s are in use.", self.network_name)
            raise pages.refusal(
                "All addresses for servers are in use. Try again in a minute; if that does not "
                "help, tell your instructor."
            )
        endpoint = self.client.create_endpoint_config(ipv4_address=address)
        networking = self.client.create_networking_config({self.network_name: endpoint})
        return {"networking_config": networking}

    async def start(self) -> tuple[str, int]:
        """Start the container; convert a Docker error to a message for the learner.

        If the server is already running, only connect it to the hub, so that the kernels keep their
        variables. The hub does not know such a server if its database was restored from a copy, or
        if the hub was killed.
        """
        try:
            running = await self.get_object()
            if running and self.is_current(running):
                return await self.connect(running)
            if running:
                with contextlib.suppress(docker.errors.APIError):  # it is being removed
                    await self.docker("remove_container", self.object_id, v=True, force=True)
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

"""Test GPU discovery and allocation.

These tests neither need nor use a GPU. A private Docker engine has a stand-in for NVIDIA's runtime
hook on its PATH. The image contains a stand-in for nvidia-smi that lists two GPUs. The hub's
requests and the engine's responses are real.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from hubs import run_in
from tornado import web

from tfcourse.hub.spawners import containers, gpus
from tfcourse.hub.spawners.containers import ContainerSpawner

IMAGE = "course-gpu-stand-in:gpu"
GPUS = ["GPU-11111111-aaaa", "GPU-22222222-bbbb"]

# Docker sets NVIDIA_VISIBLE_DEVICES to tell nvidia-container-runtime which GPUs a container gets.
NVIDIA_SMI = f"""#!/bin/sh
for gpu in {" ".join(GPUS)}; do
    case "$NVIDIA_VISIBLE_DEVICES" in *all* | *$gpu*) echo $gpu ;; esac
done
"""


@pytest.fixture(scope="module")
def engine_with_gpus(engine, tmp_path_factory) -> Iterator[docker.DockerClient]:
    """Start a second Docker engine that uses the stand-ins; return a client for it."""
    dockerd = shutil.which("dockerd")
    if not dockerd or os.geteuid() != 0:
        pytest.skip("a private Docker engine needs root and `dockerd` on PATH")
    folder = tmp_path_factory.mktemp("engine")
    hook = folder / "bin" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ncat >/dev/null\necho called >>{folder}/hook\n")
    hook.chmod(0o755)
    (folder / "daemon.json").write_text("{}")  # used instead of /etc/docker/daemon.json
    process = subprocess.Popen(
        [
            # The engine runs in its own network namespace, because an engine with `--bridge=none`
            # would remove the main engine's bridge.
            "unshare", "--net", dockerd,
            f"--data-root={folder}/data", f"--exec-root={folder}/exec",
            f"--host=unix://{folder}/socket", f"--pidfile={folder}/pid",
            f"--config-file={folder}/daemon.json",
            "--bridge=none", "--iptables=false", "--ip-forward=false",
        ],
        env={**os.environ, "PATH": f"{hook.parent}:{os.environ['PATH']}"},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        client = wait_for_engine(f"unix://{folder}/socket", folder / "log")
        client.images.load(stand_in_image(engine))
        client.folder = folder
        yield client
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.close()
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder / "data")  # hundreds of megabytes, owned by root


def wait_for_engine(address: str, log: Path) -> docker.DockerClient:
    deadline = time.monotonic() + 60
    while True:
        try:
            return docker.DockerClient(address, timeout=60)
        except docker.errors.DockerException:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)


def stand_in_image(engine: docker.DockerClient) -> bytes:
    """Build the base image with a stand-in for nvidia-smi; return it as a `docker save` archive."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, text, mode in [
            ("nvidia-smi", NVIDIA_SMI, 0o755),
            ("Dockerfile", "FROM debian:trixie-slim\nCOPY nvidia-smi /usr/bin/\n", 0o644),
        ]:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), mode
            archive.addfile(member, io.BytesIO(text.encode()))
    context.seek(0)
    image, _ = engine.images.build(fileobj=context, custom_context=True, tag=IMAGE, rm=True)
    try:
        return b"".join(image.save(named=True))
    finally:
        engine.images.remove(IMAGE)


@pytest.fixture
def new_spawner(engine_with_gpus, monkeypatch):
    """Return a function that creates spawners for the private engine.

    Remove the spawners' containers at the end.
    """
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine_with_gpus.folder}/socket")

    class Spawner(ContainerSpawner):
        """A spawner that does not need the addresses and tokens of a running hub."""

        _client = None

        def get_env(self):
            return {}

        async def get_ip_and_port(self):
            return "127.0.0.1", 8888

        async def address(self):
            return {}

    def new(name: str, gpu: bool = True) -> Spawner:
        spawner = Spawner(
            user=SimpleNamespace(name=name),
            orm_spawner=SimpleNamespace(name="", server=None, user_options=None, state=None),
            image=IMAGE,
            cmd=["sleep", "600"],
            prefix="test",
            name_template="{prefix}-{username}",
            network_name="none",
            remove=True,
            pull_policy="never",
            gpu_ids=GPUS,
            extra_host_config={"cap_drop": ["ALL"]},
        )
        spawner.gpu = gpu
        return spawner

    gpus.lock.cache_clear()  # discard the lock, which belongs to an earlier event loop
    yield new
    for container in engine_with_gpus.containers.list(all=True):
        container.remove(force=True)


def visible(spawner: ContainerSpawner) -> list[str]:
    """Return the GPUs that Docker requested from NVIDIA's runtime for a learner's server."""
    client = docker.from_env()
    container = client.containers.get(spawner.container_name)
    environment = run_in(container, "cat", "/proc/1/environ")
    client.close()
    variables = dict(line.split("=", 1) for line in environment.strip("\0").split("\0"))
    return variables.get("NVIDIA_VISIBLE_DEVICES", "none").split(",")


def test_the_probe_finds_the_gpus(engine_with_gpus):
    assert gpus.probe(engine_with_gpus, IMAGE) == (GPUS, "")
    assert (engine_with_gpus.folder / "hook").read_text() == "called\n"
    assert engine_with_gpus.containers.list(all=True) == []


def test_the_probe_runs_as_learners_servers_do():
    """If NVIDIA's hook needed to write to the container, learners' servers could not start."""
    options = {}

    def create(*_: object, **given: object) -> None:
        options.update(given)
        raise docker.errors.APIError("stop here")

    engine = SimpleNamespace(
        images=SimpleNamespace(get=lambda name: None), containers=SimpleNamespace(create=create)
    )
    assert gpus.probe(engine, "an image")[0] == []
    assert options["read_only"] == containers.HOST_CONFIG["read_only"]


def test_the_probe_says_why_there_are_none(engine, image):
    if "nvidia" in engine.info()["Runtimes"]:
        pytest.skip("this machine may have a GPU")
    reason = "Not available: this server has no NVIDIA GPU that Docker can use."
    cpu = image("cpu")
    assert gpus.probe(engine, cpu) == ([], reason)
    # Docker does not remove a container that it could not start, so the probe must remove it.
    left = engine.containers.list(all=True, filters={"ancestor": cpu}, ignore_removed=True)
    assert "nvidia-smi" not in {container.attrs["Path"] for container in left}
    reason = "Not available: the image for GPUs is not on this server."
    assert gpus.probe(engine, "no-such-image:gpu") == ([], reason)


def test_learners_who_start_at_once_get_a_gpu_each_and_the_last_one_a_sentence(new_spawner):
    ada, bob, eve = (new_spawner(name) for name in ("ada", "bob", "eve"))
    cpu = new_spawner("grace", gpu=False)

    async def start() -> list:
        starts = (spawner.start() for spawner in (ada, bob, eve, cpu))
        return await asyncio.gather(*starts, return_exceptions=True)

    results = asyncio.run(start())
    (refused,) = (result for result in results if isinstance(result, Exception))
    assert isinstance(refused, web.HTTPError)
    assert refused.status_code == 503
    assert refused.jupyterhub_message.startswith("All GPUs are in use (2 of 2). Start TensorFlow")
    served = [s for s, r in zip((ada, bob, eve), results[:3], strict=True) if r is not refused]
    assert sorted(visible(spawner) for spawner in served) == [[gpu] for gpu in GPUS]
    assert visible(cpu) == ["none"]


def test_a_gpu_is_free_again_when_its_container_is_gone_however_that_came(new_spawner):
    ada, bob, eve = (new_spawner(name) for name in ("ada", "bob", "eve"))

    async def give_back() -> None:
        await ada.start()
        await bob.start()
        had = visible(ada)
        assert had == GPUS[:1]
        await ada.stop()
        await eve.start()
        assert visible(eve) == had
        # The test deletes this container directly, so the hub still considers it running.
        had = visible(bob)
        assert had == GPUS[1:]
        await bob.docker("remove_container", bob.container_name, force=True)
        await ada.start()
        assert visible(ada) == had

    asyncio.run(give_back())


def test_a_container_that_has_ended_keeps_no_gpu(engine_with_gpus, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine_with_gpus.folder}/socket")
    labels = {gpus.LABEL: GPUS[0]}
    container = engine_with_gpus.containers.create(
        IMAGE, ["sleep", "600"], labels=labels, network_mode="none"
    )
    try:
        assert gpus.free(GPUS) == GPUS[1:]
        container.start()
        assert gpus.free(GPUS) == GPUS[1:]
        container.kill()
        container.wait()
        assert gpus.free(GPUS) == GPUS
    finally:
        container.remove(force=True)


def test_a_start_that_fails_keeps_no_gpu_and_says_what_docker_says(new_spawner):
    ada, bob = new_spawner("ada"), new_spawner("bob")
    ada.cmd = ["no-such-program"]

    async def fail_twice() -> None:
        for _ in range(2):
            with pytest.raises(web.HTTPError, match="Docker could not start your server") as error:
                await ada.start()
            assert "no-such-program" in error.value.jupyterhub_message
        ada.image = "no-such-image:gpu"
        with pytest.raises(web.HTTPError, match="no-such-image:gpu is not on this server"):
            await ada.start()
        await bob.start()
        assert gpus.free(GPUS) == GPUS[1:]

    asyncio.run(fail_twice())


def test_other_settings_of_the_container_are_kept(new_spawner, engine_with_gpus):
    ada = new_spawner("ada")
    asyncio.run(ada.start())
    container = engine_with_gpus.containers.get(ada.container_name)
    assert container.attrs["HostConfig"]["CapDrop"] == ["ALL"]
    # The spawner's own settings are unchanged, so the next start does not inherit the GPU.
    assert ada.extra_host_config == {"cap_drop": ["ALL"]}

"""Fixtures for running containers from the images that `make images` builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import docker
import pytest
from docker.models.containers import Container
from docker.models.volumes import Volume

from tfcourse.hub.state import ROOT

LEARNERS = 3 * 2**30  # bytes; the default memory limit for a learner's server


@pytest.fixture(params=["cpu", "gpu"])
def learner_image(request: pytest.FixtureRequest, image: Callable[..., str]) -> str:
    return image(request.param)


@pytest.fixture
def home(engine: docker.DockerClient) -> Iterator[Volume]:
    """Return an empty volume. Request `home` before `start`, so that the volume is removed last."""
    volume = engine.volumes.create()
    yield volume
    volume.remove()


@pytest.fixture
def start(engine: docker.DockerClient) -> Iterator[Callable[..., Container]]:
    """Return a function that starts a container with a learner's limits and no network access."""
    containers: list[Container] = []

    def start(image: str, *command: str, **options) -> Container:
        containers.append(
            engine.containers.run(
                image,
                list(command) or None,
                detach=True,
                **{
                    "network_mode": "none",
                    "mem_limit": LEARNERS,
                    "cap_drop": ["ALL"],
                    "security_opt": ["no-new-privileges"],
                    "read_only": True,
                    "tmpfs": {"/tmp": f"size={LEARNERS // 3},mode=1777,exec"},
                    "volumes": [f"{ROOT}:/srv/clone:ro", "/home/jovyan"],
                    **options,
                },
            )
        )
        return containers[-1]

    yield start
    for container in containers:
        container.remove(force=True, v=True)


@pytest.fixture
def run(start) -> Callable[..., str]:
    """Return a function that runs a command in a new container and returns its stdout.

    If the command fails, its stdout and stderr are shown in the error.
    """

    def run(image: str, *command: str, **options) -> str:
        container = start(image, *command, **options)
        code = container.wait(timeout=900)["StatusCode"]
        assert code == 0, container.logs().decode()[-5000:]
        return container.logs(stderr=False).decode()

    return run

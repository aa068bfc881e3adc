"""Containers of the images that `make images` builds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import docker
import pytest
from docker.models.containers import Container
from docker.models.volumes import Volume

from tfcourse.hub.state import ROOT

LEARNERS = 3 * 2**30  # bytes of memory that a learner's server has by default


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "longest: takes minutes, and is therefore begun first")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the longest file first: a file stays with one worker, and the others would wait."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture(params=["cpu", "gpu"])
def learner_image(request: pytest.FixtureRequest, image: Callable[..., str]) -> str:
    return image(request.param)


@pytest.fixture
def home(engine: docker.DockerClient) -> Iterator[Volume]:
    """Return an empty volume; to be asked for before containers, which have to go first."""
    volume = engine.volumes.create()
    yield volume
    volume.remove()


@pytest.fixture
def start(engine: docker.DockerClient) -> Iterator[Callable[..., Container]]:
    """Return a function that starts a container as the hub does: limited, and without a network."""
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
                    "volumes": {str(ROOT): {"bind": "/srv/clone", "mode": "ro"}},
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
    """Return a function that runs a command to its end in a new container, and returns its words.

    What the command writes to stderr is shown where it fails.
    """

    def run(image: str, *command: str, **options) -> str:
        container = start(image, *command, **options)
        code = container.wait(timeout=900)["StatusCode"]
        assert code == 0, container.logs().decode()[-5000:]
        return container.logs(stderr=False).decode()

    return run

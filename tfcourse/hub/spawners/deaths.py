"""Notice at once that a learner's container has died, from the Docker engine's events."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

import docker
import requests
from traitlets.log import get_logger

PAUSE = 1  # seconds until the next attempt, while the engine does not answer


def watch(label: str, died: Callable[[str], None]) -> None:
    """Call `died` in the hub's event loop with the name of each container that dies.

    Only containers with this label count. The hub also looks at each container from time to time,
    so nothing is lost for long while the engine restarts.
    """
    loop = asyncio.get_running_loop()
    filters = {"type": "container", "event": ["die"], "label": label}

    def listen() -> None:
        while True:
            with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
                client = docker.from_env(timeout=None)  # hours may pass between two events
                for event in client.events(decode=True, filters=filters):
                    loop.call_soon_threadsafe(died, event["Actor"]["Attributes"]["name"])
            get_logger().info("The Docker engine reports no events; the hub tries again.")
            time.sleep(PAUSE)

    threading.Thread(target=listen, name="deaths", daemon=True).start()

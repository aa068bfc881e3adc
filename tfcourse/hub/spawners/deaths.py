"""Watch the Docker engine's events to detect immediately when a learner's container dies."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

import docker
import requests
from traitlets.log import get_logger

PAUSE = 1  # seconds between attempts to reconnect to the Docker engine


def watch(label: str, died: Callable[[str], None]) -> None:
    """Call `died` in the hub's event loop with the name of each container that dies.

    Only containers with this label are watched. The hub also polls each container regularly, so it
    soon detects containers that died while the engine was restarting.
    """
    loop = asyncio.get_running_loop()
    filters = {"type": "container", "event": ["die"], "label": label}

    def listen() -> None:
        while True:
            with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
                client = docker.from_env(timeout=None)  # hours can pass between two events
                for event in client.events(decode=True, filters=filters):
                    loop.call_soon_threadsafe(died, event["Actor"]["Attributes"]["name"])
            get_logger().info("The connection to Docker's events was lost. The hub reconnects.")
            time.sleep(PAUSE)

    threading.Thread(target=listen, name="deaths", daemon=True).start()

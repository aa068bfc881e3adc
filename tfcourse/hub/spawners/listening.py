"""Notice quickly that a new server is ready.

JupyterHub's pauses between its checks of a new server grow to up to five seconds, during which a
learner may wait for a server that is ready. This module checks more often whether the server
accepts connections, and then lets JupyterHub check the server itself.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.objects import Server

CONNECT = 2  # seconds to wait for a connection
# The pause between checks is SHARE of the time that has passed, but at least SHORTEST seconds. Slow
# starts are checked less often, because many of them at once would burden the hub.
SHORTEST = 0.1
SHARE = 1 / 50

wait_up = Server.wait_up


def configure() -> None:
    """Replace JupyterHub's way of waiting for servers."""
    Server.wait_up = wait_until_ready


async def wait_until_ready(server: Server, timeout: float = 10, **options: Any) -> Any:
    """Wait until a server accepts connections, then let JupyterHub check it.

    `timeout` is in seconds. Raises TimeoutError if the server does not respond in that time.
    """
    began = time.monotonic()
    await until_listening(server.url, timeout)
    return await wait_up(server, max(0, timeout - (time.monotonic() - began)), **options)


async def until_listening(url: str, seconds: float) -> None:
    """Wait until the URL's host accepts connections, but at most for the given seconds."""
    parts = urlsplit(url)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        connecting = asyncio.open_connection(parts.hostname, parts.port)
        try:
            _, connection = await asyncio.wait_for(connecting, CONNECT)
        except OSError:  # includes TimeoutError
            await asyncio.sleep(max(SHORTEST, passed * SHARE))
        else:
            connection.close()
            return

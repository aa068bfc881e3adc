"""Run slow calls in a separate thread pool for each kind, so that no kind delays another.

asyncio's own pool (`asyncio.to_thread`) has only a few threads. If the hub used that pool, six
calls for home directories on an unresponsive disk would block all log-ins.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

# Stopping a server can take ten seconds. These calls have their own pool; otherwise, servers that
# ignore SIGTERM would delay the starts of other learners' servers.
DOCKER = ThreadPoolExecutor(32, thread_name_prefix="docker")
DOCKER_STOP = ThreadPoolExecutor(32, thread_name_prefix="docker-stop")
HOMES = ThreadPoolExecutor(32, thread_name_prefix="homes")
# Hashing a password keeps a processor busy for a quarter of a second.
PASSWORDS = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="passwords")
# Checking a notebook can take much memory for a moment.
SUBMISSIONS = ThreadPoolExecutor(2, thread_name_prefix="submissions")
PLATFORM = ThreadPoolExecutor(8, thread_name_prefix="platform")  # to fetch platforms' keys


async def run(pool: ThreadPoolExecutor, do: Callable[..., T], *arguments: Any) -> T:
    """Run `do` in one of the pool's threads, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(pool, do, *arguments)

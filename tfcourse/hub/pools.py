"""Run slow calls in threads, with a pool for each kind, so that one kind does not delay others.

asyncio's own pool (`asyncio.to_thread`) has only a few threads. If the hub used it, six homes on a
disk that does not answer would keep everybody from logging in.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

# Stopping a server can take ten seconds. So that a class of servers that ignore SIGTERM delays
# nobody's start, such calls have their own pool.
DOCKER = ThreadPoolExecutor(32, thread_name_prefix="docker")
DOCKER_STOP = ThreadPoolExecutor(32, thread_name_prefix="docker-stop")
HOMES = ThreadPoolExecutor(32, thread_name_prefix="homes")
# Hashing a password keeps a processor busy for a quarter of a second.
PASSWORDS = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="passwords")
PLATFORM = ThreadPoolExecutor(8, thread_name_prefix="platform")  # a learning platform's keys


async def run(pool: ThreadPoolExecutor, do: Callable[..., T], *arguments: Any) -> T:
    """Return what `do` returns, after running it in one of the pool's threads."""
    return await asyncio.get_running_loop().run_in_executor(pool, do, *arguments)

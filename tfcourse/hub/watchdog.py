"""Terminate a hub that hangs, so that Docker restarts it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import os
import sys
import threading
import time

TIMEOUT = 60  # seconds for the event loop to respond
START_TIMEOUT = 600  # seconds for the first response; the hub may have to upgrade a large database
INTERVAL = 10  # seconds between two checks


def start() -> None:
    """Watch the running event loop from a new thread. The hub calls this function first."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        patience = START_TIMEOUT
        while not loop.is_closed():
            answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
            try:
                answer.result(patience)
            except concurrent.futures.TimeoutError:
                end(patience)
            patience = TIMEOUT
            time.sleep(INTERVAL)
        # The hub has finished, but Python is still waiting for its threads, one of which may be
        # waiting for a dead disk.
        time.sleep(TIMEOUT)
        end(TIMEOUT)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def end(seconds: float) -> None:
    """Print the traceback of each thread, then exit the process."""
    # Do not use logging, because the event loop might hang while it holds a logging lock.
    print(f"The hub did not respond for {seconds} seconds and exits.", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
    os._exit(70)

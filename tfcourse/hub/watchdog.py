"""End a hub that hangs, so that Docker starts it again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import os
import sys
import threading
import time

TIMEOUT = 60  # seconds that the event loop may take to answer
INTERVAL = 10  # seconds between two questions


def start() -> None:
    """Watch the event loop that runs now, from a thread of its own.

    The first answer may take as long as it likes, because the hub first has to start.
    """
    loop = asyncio.get_running_loop()

    def watch() -> None:
        patience = None
        while not loop.is_closed():
            answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
            try:
                answer.result(patience)
            except concurrent.futures.TimeoutError:
                end()
            patience = TIMEOUT
            time.sleep(INTERVAL)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def end() -> None:
    """Write where each thread hangs, then end the process."""
    # Not through logging, because the loop may hang while it holds a lock of a log.
    print(f"The hub did not answer for {TIMEOUT} seconds, and ends.", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
    os._exit(70)

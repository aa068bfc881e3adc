"""Run tasks in the hub's process at regular intervals, in new threads or in the event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from jupyterhub.app import JupyterHub
from traitlets.log import get_logger


def regularly(do: Callable[[], None], seconds: float) -> None:
    """Run `do` immediately and then every `seconds` seconds in a new thread; log errors."""

    def rounds() -> None:
        while True:
            try:
                do()
            except SystemExit as end:  # the exit code is a message
                get_logger().error(end.code)
            except Exception:
                get_logger().exception("This failed and will be tried again:")
            time.sleep(seconds)

    threading.Thread(target=rounds, daemon=True).start()


def in_the_hub(do: Callable[..., Any], *arguments: Any) -> None:
    """Call `do` in the hub's event loop, with the hub as an argument, if the hub is running.

    Only the event loop's thread can safely use the hub's users and its database session.
    """
    if JupyterHub.initialized() and JupyterHub.instance().io_loop:
        app = JupyterHub.instance()
        app.io_loop.add_callback(do, app, *arguments)

"""Run tasks at regular intervals in the hub's process, each in its own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from traitlets.log import get_logger


def regularly(do: Callable[[], None], seconds: float) -> None:
    """Run `do` immediately, and again every `seconds` seconds; log errors."""

    def rounds() -> None:
        while True:
            try:
                do()
            except SystemExit as end:  # its code is a message
                get_logger().error(end.code)
            except Exception:
                get_logger().exception("This failed and will be tried again:")
            time.sleep(seconds)

    threading.Thread(target=rounds, daemon=True).start()

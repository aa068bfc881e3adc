"""Run tasks again and again in the hub's process, but in a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from traitlets.log import get_logger


def regularly(do: Callable[[], None], seconds: float) -> None:
    """Run `do` at once and again every `seconds` seconds; log what goes wrong."""

    def rounds() -> None:
        while True:
            try:
                do()
            except SystemExit as end:  # with a message
                get_logger().error(end.code)
            except Exception:
                get_logger().exception("This failed and will be tried again:")
            time.sleep(seconds)

    threading.Thread(target=rounds, daemon=True).start()

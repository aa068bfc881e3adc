"""What is done beside the hub, in its process, again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from traitlets.log import get_logger


def regularly(do: Callable[[], None], seconds: float) -> None:
    """Do it now and every so many seconds; what goes wrong is logged."""

    def rounds() -> None:
        while True:
            try:
                do()
            except SystemExit as end:  # with a sentence
                get_logger().error(end.code)
            except Exception:
                get_logger().exception("This failed, and is tried again:")
            time.sleep(seconds)

    threading.Thread(target=rounds, daemon=True).start()

"""Prevent jupyterhub-idle-culler from stopping active servers after the clock jumps."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

c = get_config()  # noqa: F821 - the culler defines it

STEP = 60  # seconds; a smaller clock correction is not a jump


class Arbiter:
    """A function object that the culler calls to decide whether a server is idle.

    When the clock jumps ahead, all servers appear to have been idle for a long time. Therefore, no
    server is stopped until the idle limit has passed since the jump, so that servers in use can
    report their activity. The same wait applies after the culler starts, because the clock may have
    jumped before the start.
    """

    def __init__(self) -> None:
        self.offset = time.time() - time.monotonic()
        self.steady_since = time.monotonic()

    def __call__(self, *, inactive: timedelta, inactive_limit: int, server: dict[str, Any]) -> bool:
        """Return whether to stop a server that has been inactive for this long."""
        now = time.monotonic()
        offset = time.time() - now
        if abs(offset - self.offset) > STEP:
            self.offset, self.steady_since = offset, now
        return inactive.total_seconds() >= inactive_limit <= now - self.steady_since


c.IdleCuller.cull_arbiter_hook = Arbiter()

"""Settings for jupyterhub-idle-culler: servers are not idle just because the clock has jumped."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

c = get_config()  # noqa: F821 - the culler defines it

STEP = 60  # seconds; a clock that is corrected by less has not jumped


class Arbiter:
    """The decision whether a server is idle; the culler asks it about each server.

    When a clock jumps ahead, all servers look as if nobody had used them for long. After a jump,
    each server therefore has the whole time limit to report that it is in use. The same is true
    after a start, because the clock may have jumped before it.
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

"""Limit the rate of events, such as wrong passwords."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable


class Limit:
    """A rate limit that allows `at_once` events in a row, then one every `seconds` seconds."""

    def __init__(self, at_once: int, seconds: float):
        self.at_once, self.seconds = at_once, seconds
        self.paid_off: dict[Hashable, float] = {}  # for each key, the time to forget its events
        self.clean = 0.0  # the next time to remove forgotten events

    def wait(self, who: Hashable) -> int:
        """Return the number of seconds until the next event is allowed, usually 0."""
        owed = self.paid_off.get(who, 0) - time.monotonic()
        return max(0, math.ceil(owed - (self.at_once - 1) * self.seconds))

    def count(self, who: Hashable) -> None:
        """Count an event for `who`."""
        now = time.monotonic()
        if now >= self.clean:
            self.paid_off = {key: end for key, end in self.paid_off.items() if end > now}
            self.clean = now + self.seconds
        self.paid_off[who] = max(self.paid_off.get(who, now), now) + self.seconds

    def forget(self, who: Hashable) -> None:
        """Forget all events of `who`."""
        self.paid_off.pop(who, None)

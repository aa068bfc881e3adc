"""Passwords: how they are stored, and how often people may guess."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from functools import cache

import bcrypt

LONGEST = 72  # bytes; bcrypt takes no more


class Limit:
    """A limit of `at_once` attempts in a row, and then one attempt every `seconds` seconds."""

    def __init__(self, at_once: int, seconds: int):
        self.at_once, self.seconds = at_once, seconds
        self.paid_off: dict[Hashable, float] = {}  # when the attempts are forgotten

    def wait(self, who: Hashable) -> int:
        """Return how many seconds remain until the next attempt is allowed; usually 0."""
        owed = self.paid_off.get(who, 0) - time.monotonic()
        return max(0, math.ceil(owed - (self.at_once - 1) * self.seconds))

    def count(self, who: Hashable) -> None:
        """Count an attempt."""
        now = time.monotonic()
        self.paid_off = {key: end for key, end in self.paid_off.items() if end > now}
        self.paid_off[who] = self.paid_off.get(who, now) + self.seconds

    def forget(self, who: Hashable) -> None:
        """Forget the attempts of somebody who has succeeded."""
        self.paid_off.pop(who, None)


class Guesses:
    """Limits on wrong passwords; right ones never count.

    From one address, a name has five guesses in a row, and all names together have thirty, because
    a class often shares an address and some of it mistype. From all addresses together, a name has
    thirty. Nobody can use the last two limits to keep people out: they do not apply where the name
    has logged in from that address before.
    """

    REMEMBERED = 10_000  # pairs of name and address

    def __init__(self):
        self.pair = Limit(5, seconds=60)
        self.address = Limit(30, seconds=5)
        self.name = Limit(30, seconds=60)
        self.known: dict[tuple[str, str], None] = {}  # the oldest first

    def wait(self, name: str, address: str) -> int:
        """Return the number of seconds until the next guess is allowed, which is usually 0."""
        waits = [self.pair.wait((name, address))]
        if (name, address) not in self.known:
            waits += [self.address.wait(address), self.name.wait(name)]
        return max(waits)

    def wrong(self, name: str, address: str) -> None:
        """Count a wrong password."""
        self.pair.count((name, address))
        if (name, address) not in self.known:
            self.address.count(address)
            self.name.count(name)

    def right(self, name: str, address: str) -> None:
        """Remember where somebody has logged in, and forget the wrong passwords of before."""
        self.pair.forget((name, address))
        self.known.pop((name, address), None)
        self.known[name, address] = None
        if len(self.known) > self.REMEMBERED:
            del self.known[next(iter(self.known))]


def hashed(password: str) -> bytes:
    """Return the hash to store for a password."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())


def matches(password: bytes, stored: bytes) -> bool:
    """Return whether the password matches the stored hash.

    This takes a quarter of a second.
    """
    return bcrypt.checkpw(password, stored)


@cache
def of_nobody() -> bytes:
    """Return a hash to compare with when a name is unknown.

    The answer then takes as long as for a name that exists.
    """
    return hashed("")

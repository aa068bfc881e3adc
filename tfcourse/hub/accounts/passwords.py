"""Hash and check passwords, and limit the rate of wrong guesses."""

from __future__ import annotations

import bcrypt

from tfcourse.hub.limits import Limit

LONGEST = 72  # bytes; bcrypt's maximum


class Guesses:
    """Limits on wrong passwords. Correct passwords never count.

    Each address is allowed five consecutive wrong guesses for one user name. Each address is
    allowed thirty wrong guesses for all names together, because a whole class often shares one
    address. All addresses together are allowed thirty wrong guesses for one user name. Neither
    limit of thirty applies to a user who has logged in from the same address since the hub started.
    A classmate who guesses passwords therefore cannot lock that user out.
    """

    REMEMBERED = 10_000  # the maximum number of (name, address) pairs in `known`

    def __init__(self):
        self.pair = Limit(5, seconds=60)
        self.address = Limit(30, seconds=5)
        self.name = Limit(30, seconds=60)
        self.known: dict[tuple[str, str], None] = {}  # ordered by last log-in

    def wait(self, name: str, address: str) -> int:
        """Return the number of seconds until the next guess is allowed, usually 0."""
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
        """Record a successful log-in from an address, and forget earlier wrong guesses."""
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

    The comparison takes a quarter of a second.
    """
    return bcrypt.checkpw(password, stored)

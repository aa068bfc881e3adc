"""Hash and check passwords, and limit the rate of wrong guesses."""

from __future__ import annotations

import bcrypt

from tfcourse.hub.limits import Limit

LONGEST = 72  # bytes; bcrypt's maximum


class Guesses:
    """Limits on wrong passwords. Correct passwords never count.

    For each user name, an address is allowed five wrong guesses in a row. For all names together,
    an address is allowed thirty wrong guesses, because a class often shares an address and some
    learners mistype their passwords. All addresses together are allowed thirty wrong guesses for
    one name. If a user has logged in from an address since the hub started, the two limits of
    thirty do not apply to that user's log-ins from that address, so classmates' guesses cannot lock
    the user out.

    A browser in which a user has logged in before is allowed five wrong guesses in a row for that
    user's name, regardless of all other guesses. Wrong guesses from other browsers therefore cannot
    lock that user out.
    """

    REMEMBERED = 10_000  # the maximum number of (name, address) pairs in `known`

    def __init__(self):
        self.pair = Limit(5, seconds=60)
        self.address = Limit(30, seconds=5)
        self.name = Limit(30, seconds=60)
        self.known: dict[tuple[str, str], None] = {}  # ordered by last log-in

    def wait(self, name: str, address: str, browser: str = "") -> int:
        """Return the number of seconds until the next guess is allowed, usually 0.

        `browser` identifies a browser that the user has logged in from before (see browsers.py).
        """
        waits = [self.pair.wait((name, browser or address))]
        if not browser and (name, address) not in self.known:
            waits += [self.address.wait(address), self.name.wait(name)]
        return max(waits)

    def wrong(self, name: str, address: str, browser: str = "") -> None:
        """Count a wrong password."""
        self.pair.count((name, browser or address))
        if not browser and (name, address) not in self.known:
            self.address.count(address)
            self.name.count(name)

    def right(self, name: str, address: str, browser: str = "") -> None:
        """Record that a user has logged in from an address; forget the earlier wrong guesses."""
        self.pair.forget((name, browser or address))
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

"""Hash and check passwords, and limit the rate of wrong guesses."""

from __future__ import annotations

from functools import partial

import bcrypt

from tfcourse.hub.limits import Limit

LONGEST = 72  # bytes; bcrypt's maximum

# The start of the hash of a first password, which the hub makes for somebody else to hand out.
# Nobody can guess its 16 random characters, so it needs no slow hash, and a class of 300 does not
# wait. (JupyterHub hashes its tokens quickly for the same reason.)
QUICK = b"$2b$04$"

# The hash of an account without a password: all bits of its salt and digest are zero. Nobody can
# find a password with this hash.
NO_PASSWORD = b"$2b$12$" + b"." * 53


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


def quickly_hashed(passwords: list[str]) -> list[bytes]:
    """Return the hashes to store for first passwords."""
    salt = partial(bcrypt.gensalt, rounds=int(QUICK[4:6]))
    return [bcrypt.hashpw(password.encode(), salt()) for password in passwords]


def is_first(stored: bytes) -> bool:
    """Return whether an account still has its first password, or none."""
    return stored == NO_PASSWORD or stored.startswith(QUICK)


def matches(password: bytes, stored: bytes) -> bool:
    """Return whether the password matches the stored hash.

    The comparison takes a quarter of a second, but a correct first password takes a millisecond.
    """
    is_right = bcrypt.checkpw(password, stored)
    if not is_right and stored.startswith(QUICK):
        # Otherwise, the response time would reveal which names have a first password.
        bcrypt.checkpw(password, NO_PASSWORD)
    return is_right

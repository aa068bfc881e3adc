"""Store passwords, limit how often people may guess, and log people out."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from datetime import timedelta

import bcrypt
from jupyterhub import orm
from sqlalchemy.orm import Session

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


def hashed(password: str) -> bytes:
    """Return the hash to store for a password."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())


def matches(password: bytes, stored: bytes) -> bool:
    """Return whether the password matches the stored hash.

    This takes a quarter of a second.
    """
    return bcrypt.checkpw(password, stored)


def log_out(db: Session, name: str) -> None:
    """End a user's sessions and tokens, except the tokens of the user's running servers.

    Within five minutes, each of these servers asks the hub again whom it may serve.
    """
    user = orm.User.find(db, name)
    if user:
        user.cookie_id = orm.new_token()
        # Users can put this note on any token, but cannot choose when the token was created.
        starts = [spawner.started for spawner in user.orm_spawners.values() if spawner.server]
        for token in user.api_tokens:
            its_own = (token.note or "").startswith("Server at ") and any(
                abs(token.created - start) < timedelta(seconds=10) for start in starts
            )
            if not its_own:
                db.delete(token)
    db.commit()

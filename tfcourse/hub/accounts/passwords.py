"""Passwords: what is stored of them, how often somebody may guess, and who is logged out."""

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
    """So many attempts at once, and then one for every so many seconds."""

    def __init__(self, at_once: int, seconds: int):
        self.at_once, self.seconds = at_once, seconds
        self.paid_off: dict[Hashable, float] = {}  # when what somebody has had is forgotten

    def wait(self, who: Hashable) -> int:
        """Return for how many seconds there is no attempt left; mostly 0."""
        owed = self.paid_off.get(who, 0) - time.monotonic()
        return max(0, math.ceil(owed - (self.at_once - 1) * self.seconds))

    def count(self, who: Hashable) -> None:
        """Count an attempt."""
        now = time.monotonic()
        self.paid_off = {key: end for key, end in self.paid_off.items() if end > now}
        self.paid_off[who] = self.paid_off.get(who, now) + self.seconds

    def forget(self, who: Hashable) -> None:
        """Forget the attempts of somebody who has made a right one."""
        self.paid_off.pop(who, None)


def hashed(password: str) -> bytes:
    """Return what is stored of a password."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())


def matches(password: bytes, stored: bytes) -> bool:
    """Tell whether this is the password that was stored; it takes a quarter of a second."""
    return bcrypt.checkpw(password, stored)


def log_out(db: Session, name: str) -> None:
    """End somebody's sessions and tokens, but those of their running servers themselves.

    Such a server asks again whom it may serve within five minutes.
    """
    user = orm.User.find(db, name)
    if user:
        user.cookie_id = orm.new_token()
        # Its owner can give any token that note, but not at the time when the server started.
        starts = [spawner.started for spawner in user.orm_spawners.values() if spawner.server]
        for token in user.api_tokens:
            its_own = (token.note or "").startswith("Server at ") and any(
                abs(token.created - start) < timedelta(seconds=10) for start in starts
            )
            if not its_own:
                db.delete(token)
    db.commit()

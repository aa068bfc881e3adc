"""Recognise browsers in which somebody has logged in before, even after the hub restarts."""

from __future__ import annotations

import hashlib
import hmac

from jupyterhub.handlers import BaseHandler

COOKIE = "course-known"
DAYS = 365


def remember_browser(handler: BaseHandler, name: str) -> None:
    """Set a signed cookie that records only that this user has logged in from this browser.

    The cookie grants no access. It only ensures that wrong passwords entered elsewhere cannot lock
    the user out of this browser.
    """
    path = handler.hub.base_url
    handler._set_cookie(COOKIE, tag(handler, name), encrypted=True, path=path, expires_days=DAYS)


def known_browser(handler: BaseHandler, name: str) -> str:
    """Return the browser's cookie if it was set for this name, or an empty string."""
    who = handler.get_secure_cookie(COOKIE, max_age_days=DAYS, min_version=2)
    return handler.get_cookie(COOKIE) if who == tag(handler, name).encode() else ""


def tag(handler: BaseHandler, name: str) -> str:
    """Return a tag for a user name that does not reveal the name to others at the same computer."""
    secret = handler.settings["cookie_secret"]
    return hmac.new(secret, f"{COOKIE} {name}".encode(), hashlib.sha256).hexdigest()

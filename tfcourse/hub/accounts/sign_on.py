"""Single sign-on for the hub in containers: OAuth with OpenID Connect, and LTI 1.3.

The packages oauthenticator and ltiauthenticator do most of the work. This module decides which of a
service's names are safe user names, decides who is an administrator, and explains errors to people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jupyterhub.handlers import BaseHandler, LogoutHandler
from tornado import web

from tfcourse.hub.accounts.sessions import ending_sessions
from tfcourse.hub.classroom import announcement

# Valid user names: e-mail addresses, or whatever else a service uses as names.
NAMES = r"[a-z0-9][a-z0-9_.+@-]{0,63}\Z"

LONGEST_STATE = 2000  # characters


def user_name(claims: Mapping[str, Any], claim: str) -> str:
    """Return the user name in a service's claims.

    Raises
    ------
    HTTPError
        403, with a message for the user, if the name is missing or not safe.
    """
    value = claims.get(claim)
    if not isinstance(value, str) or not value:
        raise web.HTTPError(
            403,
            f"The service that you log in with did not send your {claim}. Tell your instructor.",
        )
    # Case matters only in an identifier (`sub`). Check the original value for ASCII, because some
    # non-ASCII letters have an ASCII lowercase form.
    name = value if claim == "sub" else value.lower()
    if not value.isascii() or not re.match(NAMES, name):
        raise web.HTTPError(
            403,
            f"Your name there is {value!r}, which cannot be a user name here: lowercase letters, "
            "digits and - _ . + @ are allowed, 64 at most. Tell your instructor.",
        )
    return name


class ShortState:
    """A mixin that limits the size of the state cookie on the page where a log-in begins.

    The state cookie contains the URL that the visitor opened. With a very long URL, the browser's
    requests would become so large that the hub's proxy would refuse all of them.
    """

    def set_state_cookie(self, value: str) -> None:
        """Set the state cookie, unless it is too large."""
        if len(value) > LONGEST_STATE:
            raise web.HTTPError(400, "This address is too long. Open the hub's first page.")
        super().set_state_cookie(value)


class SignOn:
    """A mixin for an authenticator whose names come from another service.

    Only the people in `admin_users` are administrators: rights that the hub stored earlier do not
    count. A log-out ends a person's sessions in all browsers. Instructors can post announcements.
    """

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the pages."""
        pages = dict(super().get_handlers(app))
        pages["/logout"] = ending_sessions(pages.get("/logout", LogoutHandler))
        return list({**pages, **announcement.handlers(app)}.items())

    def is_admin(self, handler: BaseHandler, authentication: Mapping[str, Any]) -> bool:
        """Return whether the user is an administrator."""
        return authentication["name"] in self.admin_users

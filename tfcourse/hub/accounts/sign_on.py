"""Single sign-on for the containerised hub, using OpenID Connect or LTI 1.3.

The oauthenticator and ltiauthenticator packages do most of the work. This module rejects unsafe
user names, decides who is an administrator, and explains errors to users.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jupyterhub.handlers import BaseHandler, LogoutHandler
from tornado import web

from tfcourse.hub.accounts.sessions import MarkedServers, ending_sessions
from tfcourse.hub.classroom import announcement

# A pattern for valid user names, including e-mail addresses and other names that services use.
NAMES = r"[a-z0-9][a-z0-9_.+@-]{0,63}\Z"

LONGEST_STATE = 2000  # characters


def user_name(claims: Mapping[str, Any], claim: str) -> str:
    """Return the user name from a service's claims.

    Raises
    ------
    HTTPError
        With status 403 and a message for the user, if the name is missing or unsafe.
    """
    value = claims.get(claim)
    if not isinstance(value, str) or not value:
        raise web.HTTPError(
            403,
            f"The service that you log in with did not send your {claim}. Tell your instructor.",
        )
    # Only names from the `sub` claim are case-sensitive. Check that the original value is ASCII,
    # because some non-ASCII letters become ASCII in lowercase.
    name = value if claim == "sub" else value.lower()
    if not value.isascii() or not re.match(NAMES, name):
        raise web.HTTPError(
            403,
            f"Your name there is {value!r}, which cannot be a user name here: lowercase letters, "
            "digits and - _ . + @ are allowed, 64 at most. Tell your instructor.",
        )
    return name


class ShortState:
    """A mixin that limits the size of a log-in page's state cookie.

    The state cookie contains the URL that the visitor requested. A very long URL would make all of
    the browser's requests so large that the hub's proxy would reject them.
    """

    def set_state_cookie(self, value: str) -> None:
        """Set the state cookie, or raise HTTP 400 if it is too large."""
        if len(value) > LONGEST_STATE:
            raise web.HTTPError(400, "This URL is too long. Open the hub's home page.")
        super().set_state_cookie(value)


class SignOn(MarkedServers):
    """A mixin for authenticators that get user names from another service.

    Only users in `admin_users` are administrators, even if the hub's database records other
    administrators. Logging out ends a user's sessions in all browsers. Instructors can post
    announcements.
    """

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the pages."""
        pages = dict(super().get_handlers(app))
        pages["/logout"] = ending_sessions(pages.get("/logout", LogoutHandler))
        return list({**pages, **announcement.handlers(app)}.items())

    def is_admin(self, handler: BaseHandler, authentication: Mapping[str, Any]) -> bool:
        """Return whether the user is an administrator."""
        return authentication["name"] in self.admin_users

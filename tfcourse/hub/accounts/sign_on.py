"""Single sign-on for the hub in containers: OAuth with OpenID Connect, and LTI 1.3.

Their packages do the work. Here is what a class needs beyond them: which of the names that a
service sends are safe, who may come in, and sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jupyterhub.handlers import BaseHandler
from tornado import web

from tfcourse.hub.classroom.announcement import AnnouncementHandler

# E-mail addresses, or what else a service calls people.
NAMES = r"[a-z0-9][a-z0-9_.+@-]{0,63}\Z"


def user_name(claims: Mapping[str, Any], claim: str) -> str:
    """Return the user name that a service's claims give.

    Raises
    ------
    HTTPError
        403, with a sentence, if that is not safe.
    """
    value = claims.get(claim)
    if not isinstance(value, str) or not value:
        raise web.HTTPError(
            403,
            f"The service that you log in with does not say your {claim}. Tell your instructor.",
        )
    # Only identifiers are others when capitals are. Not all that is small then was ASCII before.
    name = value if claim == "sub" else value.lower()
    if not value.isascii() or not re.match(NAMES, name):
        raise web.HTTPError(
            403,
            f"There you are called {value!r}, which cannot be a user name here: small letters, "
            "digits and - _ . + @ are allowed, 64 at most. Tell your instructor.",
        )
    return name


class SignOn:
    """Administrators are whom COURSE_ADMIN names now, whatever the hub knows from earlier."""

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the pages, with the one for announcements."""
        return [*super().get_handlers(app), ("/announcement", AnnouncementHandler)]

    def is_admin(self, handler: BaseHandler, authentication: Mapping[str, Any]) -> bool:
        """Tell whether it is one."""
        return authentication["name"] in self.admin_users

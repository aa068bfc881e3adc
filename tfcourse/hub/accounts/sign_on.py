"""Single sign-on for the hub in containers: OAuth with OpenID Connect, and LTI 1.3.

Their packages do the work. Here is what a class needs beyond them: which of the names that a
service sends are safe, who may come in, and sentences.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.handlers import BaseHandler
from tornado import web

from tfcourse.hub.classroom.announcement import AnnouncementHandler

# E-mail addresses, or what else a service calls people.
NAMES = r"[a-z0-9][a-z0-9_.+@-]{0,63}\Z"


def required(*variables: str) -> list[str]:
    """Return these settings; exit with a sentence that names those that are missing."""
    missing = [variable for variable in variables if not os.environ.get(variable)]
    if missing:
        kind = os.environ["COURSE_ACCOUNTS"]
        sys.exit(f"COURSE_ACCOUNTS={kind} needs these settings, too: {', '.join(missing)}.")
    return [os.environ[variable] for variable in variables]


def web_address(variable: str) -> str:
    """Return an address; exit with a sentence if what is sent there could be read on its way."""
    (text,) = required(variable)
    parts = urlsplit(text)
    here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or not (here or parts.scheme == "https"):
        sys.exit(f"{variable} is {text!r}, but it has to begin with https://")
    return text


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

"""Single sign-on for the containerised hub, using OpenID Connect or LTI 1.3.

The oauthenticator and ltiauthenticator packages do most of the work. This module makes user names,
decides who is an administrator, and explains errors to users.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.handlers import BaseHandler, LogoutHandler
from tornado import web

from tfcourse.hub import settings
from tfcourse.hub.accounts.sessions import MarkedServers, ending_sessions
from tfcourse.hub.classroom import announcement, assignments, progress

READABLE = r"[a-z0-9][a-z0-9_.+@-]{0,63}"
# A pattern for identifiers that can serve unchanged as user names, such as e-mail addresses.
PLAIN = rf"{READABLE}\Z"
# A pattern for all user names, including those of `safe_name`.
NAMES = rf"{READABLE}(~[a-z2-7]{{16}})?\Z"

# Claims in which upper and lower case make no difference: e-mail addresses, and names like them.
CASELESS = {"email", "preferred_username", "upn", "unique_name", "eppn", "eduPersonPrincipalName"}

LONGEST_STATE = 2000  # characters

ROOT = Path("/srv/sign-on-root.pem")  # where compose.yaml mounts COURSE_SIGN_ON_ROOT


def authority() -> str | None:
    """Return the path of the service's root certificate, or None for the usual authorities.

    Exit with a message if the certificate cannot be used.
    """
    if not settings.SIGN_ON_ROOT.is_set:
        return None
    try:
        ssl.create_default_context(cafile=ROOT)
    except OSError:  # includes errors in the certificate
        sys.exit(
            f"COURSE_SIGN_ON_ROOT is {settings.SIGN_ON_ROOT()!r}, but the hub (user\n"
            f"{os.geteuid()}) cannot read a certificate in PEM format there."
        )
    return str(ROOT)


def user_name(claims: Mapping[str, Any], claim: str) -> str:
    """Return the user name from a service's claims.

    Raises
    ------
    HTTPError
        With status 403 and a message for the user, if the claim is not a single string.
    """
    value = claims.get(claim)
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        sent = "sent an unusable" if value else "did not send your"
        raise web.HTTPError(
            403, f"The service that you log in with {sent} {claim}. Tell your instructor."
        )
    if claim in CASELESS:
        # Leave other letters as they are, because some of them would become ASCII.
        value = re.sub("[A-Z]", lambda letter: letter[0].lower(), value)
    return safe_name(value)


def safe_name(identifier: str) -> str:
    """Return the user name for a service's identifier of a person.

    Many services identify people by URLs, or by random letters in upper and lower case. Such an
    identifier becomes its readable part, a tilde, and 80 bits of its SHA-256 hash. No two
    identifiers have the same name, because a plain identifier contains no tilde, and nobody can
    find another identifier with the same hash.
    """
    if re.match(PLAIN, identifier):
        return identifier
    last = identifier.rstrip("/").rpartition("/")[2].lower()
    readable = re.sub(r"[^a-z0-9_.+@-]+", "-", last)[:40].strip("_.+@-") or "user"
    digest = hashlib.sha256(identifier.encode(errors="surrogatepass")).digest()[:10]
    return f"{readable}~{base64.b32encode(digest).decode().lower()}"


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
        for room in (announcement, assignments, progress):
            pages |= room.handlers(app)
        return list(pages.items())

    def is_admin(self, handler: BaseHandler, authentication: Mapping[str, Any]) -> bool:
        """Return whether the user is an administrator."""
        return authentication["name"] in self.admin_users

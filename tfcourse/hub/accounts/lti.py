"""Log-in from a learning platform that supports LTI 1.3."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import Any

import jwt
from ltiauthenticator.lti13.auth import LTI13Authenticator
from ltiauthenticator.lti13.error import ValidationError
from ltiauthenticator.lti13.handlers import LTI13CallbackHandler, LTI13LoginInitHandler
from tornado import web

from tfcourse.hub import pools, settings
from tfcourse.hub.accounts.sign_on import ShortState, SignOn, authority, user_name
from tfcourse.hub.classroom import platform

KEYS_TIMEOUT = 10  # seconds to wait for the platform's keys


def configure(c: Any) -> None:
    """Configure log-in from a learning platform."""
    c.JupyterHub.authenticator_class = CourseLTIAuthenticator
    # Admit everyone whose launch is signed, because the platform knows who is enrolled in the
    # course.
    c.CourseLTIAuthenticator.allow_all = True
    settings.required(
        settings.LTI_ISSUER,
        settings.LTI_CLIENT_ID,
        settings.LTI_AUTHORIZE_URL,
        settings.LTI_KEYS_URL,
    )
    c.CourseLTIAuthenticator.issuer = settings.LTI_ISSUER()
    c.CourseLTIAuthenticator.client_id = {settings.LTI_CLIENT_ID()}
    c.CourseLTIAuthenticator.authorize_url = settings.LTI_AUTHORIZE_URL()
    c.CourseLTIAuthenticator.jwks_endpoint = settings.LTI_KEYS_URL()
    # Take the user name only from `sub` or `email`, because users can change their given names, and
    # teachers can set custom parameters.
    c.CourseLTIAuthenticator.username_key = settings.LTI_NAME()
    # By default, LTI13Authenticator creates a client for each launch, and each client fetches the
    # platform's keys. A client that is reused fetches them only every five minutes, and when a
    # launch is signed with an unknown key.
    trust = ssl.create_default_context(cafile=authority())
    client = functools.partial(jwt.PyJWKClient, timeout=KEYS_TIMEOUT, ssl_context=trust)
    jwt.PyJWKClient = functools.cache(client)


class LaunchHandler(LTI13CallbackHandler):
    """The page that receives a launch from the platform; it shows a message if log-in fails."""

    async def post(self) -> None:
        """Log the user in, or show why the log-in failed."""
        try:
            # Waiting for the platform's keys must not block the hub.
            token = await pools.run(pools.PLATFORM, self.decode_and_validate_launch_request)
        except (ValidationError, web.HTTPError, ValueError) as error:
            self.log.warning("A launch was refused: %s", error)
            raise refused(error) from None
        user = await self.login_user(token)
        platform.remember(self.db, user.orm_user, token)
        await self.redirect_to_next_url(user)


class StartHandler(ShortState, LTI13LoginInitHandler):
    """The page where a launch starts."""

    def post(self) -> None:
        """Redirect the browser to the platform, or show why the launch failed."""
        try:
            super().post()
        except (web.HTTPError, ValueError) as error:
            raise refused(error) from None

    get = post


class CourseLTIAuthenticator(SignOn, LTI13Authenticator):
    """An LTI13Authenticator that ignores user names in custom parameters set by teachers."""

    custom_html = "<p>Open the course in your learning platform.</p>"  # instead of a log-in form
    login_handler = StartHandler
    callback_handler = LaunchHandler

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the pages, including those that send grades to the platform."""
        trust = ssl.create_default_context(cafile=authority())
        return [*super().get_handlers(app), *platform.handlers(app, trust).items()]

    def get_username(self, token: Mapping[str, Any]) -> str:
        """Return the user name from the configured claim only.

        If the configured claim is missing, reject the log-in instead of trying another claim.
        """
        return user_name(token, self.username_key)


def refused(error: Exception) -> web.HTTPError:
    """Return the HTTP error for a failed launch."""
    reason = getattr(error, "log_message", None) or str(error)
    return web.HTTPError(
        403,
        f"Your learning platform did not log you in here ({reason}). Open the course from there "
        "again; if that does not help, tell your instructor.",
    )

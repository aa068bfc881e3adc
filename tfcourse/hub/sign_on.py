"""Single sign-on for the hub in containers: OAuth with OpenID Connect, and LTI 1.3.

Their packages do the work. Here is what a class needs beyond them: which of the names that a
service sends are safe, who may come in, and sentences.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import get_browser_protocol
from ltiauthenticator.lti13.auth import LTI13Authenticator
from ltiauthenticator.lti13.error import ValidationError
from ltiauthenticator.lti13.handlers import LTI13CallbackHandler, LTI13LoginInitHandler
from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler
from tornado import web
from tornado.httpclient import AsyncHTTPClient
from traitlets import Set, Unicode

from tfcourse.hub import accounts, https, state
from tfcourse.hub.announcement import AnnouncementHandler

# E-mail addresses, or what else a service calls people.
NAMES = r"[a-z0-9][a-z0-9_.+@-]{0,63}\Z"

# What OpenID Connect lets people write about themselves: whoever wrote the administrator's name
# there would be the administrator.
CHOSEN = {"name", "given_name", "family_name", "middle_name", "nickname"}

# --- Settings


def configure(c: Any, kind: str) -> None:
    """Set up the log-in by `oauth` or `lti`."""
    # An e-mail address may be a name. The volumes' names are made from it without collisions.
    c.Authenticator.username_pattern = NAMES
    # Nobody by default: whatever name we took could be somebody's there.
    c.Authenticator.admin_users = accounts.administrators(NAMES)
    # What the hub asks of others, of servers and the proxy as well, goes over so many connections
    # at once. By itself it has ten, and fails what has waited for 20 seconds: twenty log-ins a
    # second are enough for that (docs/kubernetes.md). No more, as some systems stop at 1,024 files.
    AsyncHTTPClient.configure(None, max_clients=500)
    # Whether people still may come in is asked when they log in: at least once a day.
    c.JupyterHub.cookie_max_age_days = 1
    c.JupyterHub.token_expires_in_max_seconds = 24 * 3600
    {"oauth": configure_oauth, "lti": configure_lti}[kind](c)


def configure_oauth(c: Any) -> None:
    """Set up the log-in with a provider."""
    c.JupyterHub.authenticator_class = CourseOAuthenticator
    c.OAuthenticator.client_id, c.OAuthenticator.client_secret = required(
        "COURSE_OAUTH_CLIENT_ID", "COURSE_OAUTH_CLIENT_SECRET"
    )
    c.CourseOAuthenticator.allowed = allowed()
    c.OAuthenticator.username_claim = name_claim()
    provider = endpoints()
    c.OAuthenticator.authorize_url = provider["authorization_endpoint"]
    c.OAuthenticator.token_url = provider["token_endpoint"]
    c.OAuthenticator.userdata_url = provider["userinfo_endpoint"]
    # By the standard those that say nothing take the secret in a header alone.
    methods = provider.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    c.OAuthenticator.basic_auth = "client_secret_post" not in methods
    scopes = os.environ.get("COURSE_OAUTH_SCOPES") or "openid profile email"
    c.OAuthenticator.scope = scopes.split()
    c.OAuthenticator.login_service = "your usual account"  # on the button, after "Sign in with"


def configure_lti(c: Any) -> None:
    """Set up the log-in from a learning platform."""
    c.JupyterHub.authenticator_class = CourseLTIAuthenticator
    # Whom the platform sends, signed with its key: it knows who is in the course.
    c.Authenticator.allow_all = True
    c.LTI13Authenticator.issuer, client = required("COURSE_LTI_ISSUER", "COURSE_LTI_CLIENT_ID")
    c.LTI13Authenticator.client_id = {client}
    c.LTI13Authenticator.authorize_url = web_address("COURSE_LTI_AUTHORIZE_URL")
    c.LTI13Authenticator.jwks_endpoint = web_address("COURSE_LTI_KEYS_URL")
    # Nothing else: given names are chosen, and custom parameters are what a teacher writes.
    c.LTI13Authenticator.username_key = state.choice("COURSE_LTI_NAME", "sub", "email")


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


def endpoints() -> Mapping[str, Any]:
    """Return a provider's addresses, as it announces them or as the settings say; else exit."""
    names = {
        "authorization_endpoint": "COURSE_OAUTH_AUTHORIZE_URL",
        "token_endpoint": "COURSE_OAUTH_TOKEN_URL",
        "userinfo_endpoint": "COURSE_OAUTH_USERINFO_URL",
    }
    by_hand = [variable for variable in names.values() if os.environ.get(variable)]
    issuer = os.environ.get("COURSE_OAUTH_ISSUER")
    if not issuer and not by_hand:
        sys.exit(
            "COURSE_ACCOUNTS=oauth needs COURSE_OAUTH_ISSUER or, of a provider that does not\n"
            f"announce its addresses, {', '.join(names.values())}."
        )
    if issuer and by_hand:
        sys.exit(
            f"COURSE_OAUTH_ISSUER is set, and so is {by_hand[0]}: the provider announces its\n"
            "addresses, or the settings name them, not both."
        )
    if by_hand:
        required(*names.values())
        # As most of them want it that announce nothing.
        by_post = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
        return by_post | {name: web_address(variable) for name, variable in names.items()}
    url = web_address("COURSE_OAUTH_ISSUER").rstrip("/") + "/.well-known/openid-configuration"
    try:
        response = requests.get(url, timeout=20)
        response.raise_for_status()
        found = response.json()
        announced = {name: str(found[name]) for name in ("issuer", *names)}
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        sys.exit(
            f"COURSE_OAUTH_ISSUER is {issuer!r}, but {url}\n"
            f"does not say what the hub has to know: {type(error).__name__}: {error}."
        )
    if announced["issuer"] != issuer:
        sys.exit(
            f"COURSE_OAUTH_ISSUER is {issuer!r}, but that provider calls itself\n"
            f"{announced['issuer']!r}: take that, if it is the right one."
        )
    return found


def allowed() -> set[str]:
    """Return COURSE_OAUTH_ALLOWED as a set; exit with a sentence if it contradicts itself."""
    (text,) = required("COURSE_OAUTH_ALLOWED")
    entries = {entry.strip() for entry in text.split(",")} - {""}
    if not entries or ("*" in entries and len(entries) > 1):
        sys.exit(
            f"COURSE_OAUTH_ALLOWED is {text!r}, but it has to be a list of groups and of domains,\n"
            "as in 'students,@example.org', or '*' alone, for all who have an account there."
        )
    return entries


def name_claim() -> str:
    """Return COURSE_OAUTH_NAME; exit with a sentence if people write that themselves."""
    claim = os.environ.get("COURSE_OAUTH_NAME") or "email"
    if claim in CHOSEN:
        sys.exit(
            f"COURSE_OAUTH_NAME is {claim!r}, which people choose themselves: whoever chose the\n"
            "administrator's would be the administrator. Take email, sub, or another that the\n"
            "provider gives."
        )
    return claim


# --- What both have in common


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


# --- OAuth


class CallbackHandler(OAuthCallbackHandler):
    """Where the provider sends people back to, with a sentence if that went wrong."""

    async def get(self) -> None:
        """Log in, or say why not."""
        try:
            await super().get()
        except web.HTTPError as error:
            if error.status_code == 400:
                raise web.HTTPError(
                    400, f"You are not logged in ({error.log_message}). Start on the log-in page."
                ) from None
            if error.status_code < 500:
                raise
            self.log.error("The provider did not log somebody in: %s", error)
        except Exception:  # whatever it has answered
            self.log.exception("The provider did not log somebody in")
        else:
            return
        raise web.HTTPError(
            502,
            "The service that you log in with did not answer as it should. Try again; if that does "
            "not help, tell your instructor.",
        )


class CourseOAuthenticator(SignOn, GenericOAuthenticator):
    """GenericOAuthenticator that lets in whom COURSE_OAUTH_ALLOWED names."""

    allowed = Set(
        Unicode(),
        config=True,
        help="Groups, domains of e-mail addresses with an @ in front, or * for everybody.",
    ).tag(allow_config=True)

    callback_handler = CallbackHandler
    custom_403_message = (
        "Your account may not use this hub. Log out of the service that you log in with and take "
        "another account, or ask your instructor to let yours in."
    )

    def get_callback_url(self, handler: BaseHandler | None = None) -> str:
        """Return where the provider has to send people back to: also behind another proxy."""
        here = f"{get_browser_protocol(handler.request)}://{handler.request.host}"
        host = https.public_url() if https.host() else here
        return f"{host}{handler.hub.server.base_url}oauth_callback"

    def user_info_to_username(self, user_info: Mapping[str, Any]) -> str:
        """Return the user's name."""
        name = user_name(user_info, self.username_claim)
        if self.username_claim == "email" and not verified(user_info):
            raise web.HTTPError(
                403,
                f"Nobody has verified that {name} is yours, says the service that you log in with. "
                "Do that there, then come back; if you cannot, tell your instructor.",
            )
        return name

    async def check_allowed(self, username: str, auth_model: Mapping[str, Any]) -> bool:
        """Tell whether somebody may come in."""
        claims = auth_model["auth_state"][self.user_auth_state_key]
        groups = claims.get("groups")
        has = set(groups) if isinstance(groups, list) else set()
        # A group whose name begins with an @ is no domain.
        has = {group for group in has if isinstance(group, str) and group[:1] not in ("@", "*")}
        email = claims.get("email")
        if isinstance(email, str) and verified(claims):
            has.add("@" + email.lower().rpartition("@")[2])
        return "*" in self.allowed or username in self.admin_users or bool(has & self.allowed)


def verified(claims: Mapping[str, Any]) -> bool:
    """Tell whether the provider has verified the e-mail address."""
    return claims.get("email_verified") in (True, "true")


# --- LTI 1.3


class LaunchHandler(LTI13CallbackHandler):
    """Where the platform sends people to, with a sentence if that went wrong."""

    async def post(self) -> None:
        """Log in, or say why not."""
        try:
            # Beside the hub: it asks the platform for its keys, and waits for them.
            token = await asyncio.to_thread(self.decode_and_validate_launch_request)
        except (ValidationError, web.HTTPError, ValueError) as error:
            self.log.warning("A launch was refused: %s", error)
            raise refused(error) from None
        user = await self.login_user(token)
        await self.redirect_to_next_url(user)


class StartHandler(LTI13LoginInitHandler):
    """Where a launch begins."""

    def post(self) -> None:
        """Send the browser to the platform, or say why not."""
        try:
            super().post()
        except (web.HTTPError, ValueError) as error:
            raise refused(error) from None

    get = post


class CourseLTIAuthenticator(SignOn, LTI13Authenticator):
    """LTI13Authenticator that takes no name from what a teacher there has written into a link."""

    custom_html = "<p>Open the course in your learning platform.</p>"  # instead of a log-in form
    login_handler = StartHandler
    callback_handler = LaunchHandler

    def get_username(self, token: Mapping[str, Any]) -> str:
        """Return the user's name; without the claim nobody gets in under another one."""
        return user_name(token, self.username_key)


def refused(error: Exception) -> web.HTTPError:
    """Return an error page on a launch that went wrong."""
    reason = getattr(error, "log_message", None) or str(error)
    return web.HTTPError(
        403,
        f"Your learning platform did not log you in here ({reason}). Open the course from there "
        "again; if that does not help, tell your instructor.",
    )

"""Log-in with an account that people have already: OAuth 2 with OpenID Connect."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import requests
from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import get_browser_protocol
from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler
from tornado import web
from traitlets import Set, Unicode

from tfcourse.hub.accounts.sign_on import SignOn, required, user_name, web_address
from tfcourse.hub.front import https

# What OpenID Connect lets people write about themselves: whoever wrote the administrator's name
# there would be the administrator.
CHOSEN = {"name", "given_name", "family_name", "middle_name", "nickname"}


def configure(c: Any) -> None:
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

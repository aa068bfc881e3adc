"""Log-in with an external account, using OAuth 2 and OpenID Connect."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import requests
from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import get_browser_protocol
from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthLoginHandler
from sqlalchemy.exc import SQLAlchemyError
from tornado import web
from traitlets import Bool, Set, Unicode

from tfcourse.hub import settings
from tfcourse.hub.accounts.sign_on import ShortState, SignOn, authority, user_name
from tfcourse.hub.front import https


def configure(c: Any) -> None:
    """Configure log-in with an OpenID Connect provider."""
    c.JupyterHub.authenticator_class = CourseOAuthenticator
    settings.required(
        settings.OAUTH_CLIENT_ID, settings.OAUTH_CLIENT_SECRET, settings.OAUTH_ALLOWED
    )
    c.CourseOAuthenticator.client_id = settings.OAUTH_CLIENT_ID()
    c.CourseOAuthenticator.client_secret = settings.OAUTH_CLIENT_SECRET()
    c.CourseOAuthenticator.allowed = settings.OAUTH_ALLOWED()
    c.CourseOAuthenticator.username_claim = settings.OAUTH_NAME()
    provider = endpoints()
    c.CourseOAuthenticator.authorize_url = provider["authorization_endpoint"]
    c.CourseOAuthenticator.token_url = provider["token_endpoint"]
    c.CourseOAuthenticator.userdata_url = provider["userinfo_endpoint"]
    # According to the standard, a provider that lists no methods accepts the secret only in a
    # header.
    methods = provider.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    c.CourseOAuthenticator.basic_auth = "client_secret_post" not in methods
    c.CourseOAuthenticator.scope = settings.OAUTH_SCOPES()
    c.CourseOAuthenticator.http_request_kwargs = {"ca_certs": authority()}
    c.CourseOAuthenticator.trust_email = settings.OAUTH_TRUST_EMAIL()
    c.CourseOAuthenticator.login_service = (
        "your usual account"  # the text after "Sign in with" on the button
    )


def endpoints() -> Mapping[str, Any]:
    """Return the provider's endpoints, from its discovery document or from the settings.

    Exit with a message unless exactly one of these two sources is configured.
    """
    addresses = {
        "authorization_endpoint": settings.OAUTH_AUTHORIZE_URL,
        "token_endpoint": settings.OAUTH_TOKEN_URL,
        "userinfo_endpoint": settings.OAUTH_USERINFO_URL,
    }
    by_hand = [setting.name for setting in addresses.values() if setting.is_set]
    issuer = settings.OAUTH_ISSUER()
    if not issuer and not by_hand:
        names = ", ".join(setting.name for setting in addresses.values())
        sys.exit(
            "COURSE_ACCOUNTS=oauth needs COURSE_OAUTH_ISSUER or, for a provider that does not\n"
            f"announce its endpoints, {names}."
        )
    if issuer and by_hand:
        sys.exit(
            f"COURSE_OAUTH_ISSUER is set, and so is {by_hand[0]}: either the provider announces\n"
            "its endpoints, or the settings name them. Remove one of the two."
        )
    if by_hand:
        settings.required(*addresses.values())
        # Most providers without a discovery document expect the client secret in the request body.
        by_post = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
        return by_post | {name: setting() for name, setting in addresses.items()}
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        response = requests.get(url, timeout=20, verify=authority() or True)
        response.raise_for_status()
        found = response.json()
        announced = {name: str(found[name]) for name in ("issuer", *addresses)}
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        sys.exit(
            f"COURSE_OAUTH_ISSUER is {issuer!r}, but {url}\n"
            f"does not provide what the hub needs: {type(error).__name__}: {error}."
            + (about_authority() if isinstance(error, requests.exceptions.SSLError) else "")
        )
    if announced["issuer"] != issuer:
        sys.exit(
            f"COURSE_OAUTH_ISSUER is {issuer!r}, but that provider calls itself\n"
            f"{announced['issuer']!r}. Set that name instead if it is the right one."
        )
    return found


def about_authority() -> str:
    """Return advice for the operator if the provider's certificate is not trusted."""
    if authority():
        return "\nIs COURSE_SIGN_ON_ROOT the root of the authority for the provider's certificate?"
    return "\nIf your school's own authority issued the certificate, set COURSE_SIGN_ON_ROOT."


def doubt(provider: Mapping[str, Any]) -> str:
    """Return a warning for the operator if every log-in might fail, or ""."""
    known = provider.get("claims_supported")
    needed = settings.OAUTH_NAME() == "email" or any(
        each.startswith("@") for each in settings.OAUTH_ALLOWED()
    )
    if not needed or settings.OAUTH_TRUST_EMAIL() or "email_verified" in (known or []):
        return ""
    return (
        "The provider does not announce that it sends `email_verified`. If it does not send it\n"
        "(Microsoft Entra ID does not), nobody can log in by e-mail address.\n"
        'See "Who can log in" in docs/operators.md.'
    )


class StartHandler(ShortState, OAuthLoginHandler):
    """The page that redirects the browser to the provider."""


class CallbackHandler(OAuthCallbackHandler):
    """The page to which the provider redirects users. It shows a message if log-in fails."""

    async def get(self) -> None:
        """Log the user in, or show why the log-in failed."""
        try:
            await super().get()
        except SQLAlchemyError:  # an error in the hub's own database
            raise
        except web.HTTPError as error:
            if error.status_code == 400:
                raise web.HTTPError(
                    400, f"You are not logged in ({error.log_message}). Go to the log-in page."
                ) from None
            if error.status_code < 500:
                raise
            self.log.error("A log-in with the provider failed: %s", error)
        except Exception:  # an invalid response can cause any error
            self.log.exception("A log-in with the provider failed")
        else:
            return
        raise web.HTTPError(
            502,
            "The service that you log in with did not respond correctly. Try again; if that does "
            "not help, tell your instructor.",
        )


class CourseOAuthenticator(SignOn, GenericOAuthenticator):
    """A GenericOAuthenticator that admits only users who match COURSE_OAUTH_ALLOWED."""

    allowed = Set(
        Unicode(),
        config=True,
        help="Groups, e-mail domains that start with @, or * for everyone.",
    ).tag(allow_config=True)

    trust_email = Bool(
        config=True,
        help="Whether to accept an address if the provider does not say whether it is verified.",
    )

    login_handler = StartHandler
    callback_handler = CallbackHandler
    custom_403_message = (
        "Your account is not allowed to use this hub. Log out of the service that you log in with "
        "and use another account, or ask your instructor for access."
    )

    def get_callback_url(self, handler: BaseHandler | None = None) -> str:
        """Return the redirect URI, which is correct even behind a proxy."""
        here = f"{get_browser_protocol(handler.request)}://{handler.request.host}"
        host = https.public_url() if https.host() else here
        return f"{host}{handler.hub.server.base_url}oauth_callback"

    def user_info_to_username(self, user_info: Mapping[str, Any]) -> str:
        """Return the user's name."""
        name, email = user_name(user_info, self.username_claim), user_info.get("email")
        if self.username_claim != "email" or self.is_verified(user_info):
            return name
        if user_info.get("email_verified") is None:
            self.log.error(
                "The provider did not say whether it has verified %s. If its administrators assign "
                "all addresses, set COURSE_OAUTH_TRUST_EMAIL=on.",
                email,
            )
            raise web.HTTPError(
                403,
                f"The service that you log in with does not say whether {email} is yours. Tell "
                "your instructor: the hub's log says what to do.",
            )
        raise web.HTTPError(
            403,
            f"The service that you log in with has not verified that {email} is yours. Verify it "
            "there, then come back; if you cannot, tell your instructor.",
        )

    def is_verified(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the e-mail address belongs to the user."""
        said = claims.get("email_verified")
        return self.trust_email if said is None else str(said).lower() == "true"

    async def check_allowed(self, username: str, auth_model: Mapping[str, Any]) -> bool:
        """Return whether the user may log in."""
        claims = auth_model["auth_state"][self.user_auth_state_key]
        groups = claims.get("groups")
        # Some services send a single group as a string.
        groups = [groups] if isinstance(groups, str) else groups
        has = set(groups) if isinstance(groups, list) else set()
        # Ignore groups whose names start with @, so that they are not mistaken for domains.
        has = {group for group in has if isinstance(group, str) and group[:1] not in ("@", "*")}
        email = claims.get("email")
        # In lowercase, some non-ASCII letters become ASCII.
        if isinstance(email, str) and email.isascii() and self.is_verified(claims):
            has.add("@" + email.lower().rpartition("@")[2])
        return "*" in self.allowed or username in self.admin_users or bool(has & self.allowed)

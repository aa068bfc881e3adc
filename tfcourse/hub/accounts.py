"""Accounts of the hub in containers: learners sign up, the instructor lets them in."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import bcrypt
from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from nativeauthenticator import NativeAuthenticator, handlers
from nativeauthenticator.orm import UserInfo
from tornado import web
from tornado.httputil import HTTPServerRequest
from traitlets import Unicode

# Ours first. NativeAuthenticator's own page.html, with its links in the bar, has to be named, too.
TEMPLATES = [str(Path(__file__).with_name("templates")), handlers.TEMPLATE_DIR]

LONGEST = 72  # bytes; bcrypt takes no more


class CourseAuthenticator(NativeAuthenticator):
    """NativeAuthenticator with what a class needs beyond it.

    - The administrators exist before the first visitor comes. By itself it gives their rights to
      whoever signs up first under their name.
    - Accounts are changed by forms with an XSRF token. By itself it does that by links, which any
      page can make the administrator's browser follow.
    - Who is shut out is logged out within half a minute, not the next time that they log in.
    - Wrong passwords are counted for each name and address. By itself it counts them for the name
      alone, and anybody could lock the instructor out.
    """

    admin_password = Unicode(config=True, help="Of administrators that have no account yet.")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in self.admin_users:
            if name != self.normalize_username(name) or not self.validate_username(name):
                sys.exit(f"COURSE_ADMIN is {name!r}: small letters, digits and - _ . are allowed.")
            info = self.get_user(name)
            if info is None:
                password = hashed(self.admin_password)
                self.db.add(UserInfo(username=name, password=password, is_authorized=True))
            elif not info.is_authorized:
                sys.exit(
                    f"COURSE_ADMIN is {name!r}, but somebody has signed up under that name, and\n"
                    "was not let in. Start with another name, and discard that account first."
                )
        self.db.commit()

    def create_user(self, username: str, password: str, **info: Any) -> UserInfo | None:
        """Make an account, unless the hub knows the name: its rights are not for whoever comes."""
        known = orm.User.find(self.db, self.normalize_username(username))
        return None if known else super().create_user(username, password, **info)

    def delete_user(self, user: Any) -> None:
        """Forget an account; of one that was used, keep the name, as the home is still there.

        Who signs up next must not find it. An administrator may give the account a new password,
        and let somebody in.
        """
        info = self.get_user(user.name)
        if info is None or orm.User.find(self.db, user.name) is None:
            super().delete_user(user)
        else:
            info.is_authorized = False
            info.password = hashed(secrets.token_hex())
            self.db.commit()

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the pages, with our own for logging in and for letting learners in."""
        ours = {
            "/login": LoginHandler,
            "/authorize/([^/]*)": AuthorizeHandler,
            "/discard/([^/]*)": DiscardHandler,
        }
        return list({**dict(super().get_handlers(app)), **ours}.items())

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> Any:
        """Return the user's name, or None for a wrong password."""
        self.address = address_of(handler.request)  # nothing else happens until this has returned
        return await super().authenticate(handler, data)

    async def refresh_user(self, user: Any, handler: BaseHandler | None = None) -> bool:
        """Tell whether somebody who is logged in still may; JupyterHub asks now and then."""
        info = self.get_user(user.name)
        return bool(info and info.is_authorized)

    def seconds_to_wait(self, username: str, address: str) -> int:
        """Return how long nobody at this address may try to log in under this name."""
        self.address = address
        blocked = self.is_blocked(self.normalize_username(username))
        return self.seconds_before_next_try if blocked else 0

    def add_login_attempt(self, username: str) -> None:
        """Count a wrong password."""
        super().add_login_attempt((username, self.address))

    def is_blocked(self, username: str) -> bool:
        """Tell whether there were too many."""
        return super().is_blocked((username, self.address))

    def successful_login(self, username: str) -> None:
        """Forget the wrong ones."""
        super().successful_login((username, self.address))

    def is_password_strong(self, password: str) -> bool:
        """Tell whether a new password may be used."""
        return len(password.encode()) <= LONGEST and super().is_password_strong(password)


def hashed(password: str) -> bytes:
    """Return what is stored of a password."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())


def address_of(request: HTTPServerRequest) -> str:
    """Return the address that a request comes from, whatever it says about itself.

    The proxy appends it to X-Forwarded-For. What stands before that, or in X-Real-Ip, anybody can
    write; and what does not come from this machine does not come from the proxy.
    """
    peer = request.connection.context._orig_remote_ip
    if peer != request.connection.stream.socket.getsockname()[0]:
        return peer
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")
    # One more proxy on this machine, for HTTPS, say, has appended its own, too.
    outside = [address.strip() for address in forwarded if not is_loopback(address.strip())]
    return outside[-1] if outside else peer


def is_loopback(address: str) -> bool:
    """Tell whether it is an address of the machine itself, as ::1, 127.0.0.1, ::ffff:127.0.0.1."""
    return not address or address == "::1" or address.removeprefix("::ffff:").startswith("127.")


class LoginHandler(handlers.LoginHandler):
    """The log-in page, with sentences where NativeAuthenticator's says nothing or is HTTP 500."""

    def _render(
        self, login_error: str | None = None, username: str | None = None, **ns: Any
    ) -> Any:
        """Render it; or an error page, for which JupyterHub brings other arguments.

        Most often the form was older than its XSRF token.
        """
        if ns.get("sync"):
            ns["message"] = "This form can no longer be used. Open the log-in page again."
            return BaseHandler.render_template(self, "error.html", **ns)
        return super()._render(login_error=login_error, username=username)

    async def post(self) -> None:
        """Log in, or say why not."""
        form = self.request.body_arguments
        username, password = (form.get(name, [b""])[-1] for name in ("username", "password"))
        name = username.decode("utf-8", "replace")
        wait = self.authenticator.seconds_to_wait(name, address_of(self.request))
        if wait:
            refusal = f"There were too many wrong passwords. Try again in {wait} seconds."
            self.set_status(429)
        elif not username or not password or len(password) > LONGEST:
            refusal = "Invalid username or password."
        else:
            self.request.arguments = form  # nothing from the address: it ends up in logs
            await super().post()
            return
        self.finish(await self._render(login_error=refusal, username=name))


class AuthorizeHandler(handlers.ToggleAuthorizationHandler):
    """Lets somebody in, or shuts them out: a form's action, not a link's."""

    @needs_scope("admin:users")
    async def get(self, name: str) -> None:
        """Refuse to change anything by a link."""
        self.redirect(self.hub.base_url + "authorize")

    @needs_scope("admin:users")
    async def post(self, name: str) -> None:
        """Change it, stop the server of who is shut out, and show the list again."""
        name = self.authenticator.normalize_username(name)
        if not self.authenticator.user_exists(name):
            raise web.HTTPError(404, f"There is no account {name!r}.")
        if name == self.current_user.name:
            raise web.HTTPError(400, "You would shut yourself out.")
        UserInfo.change_authorization(self.db, name)
        user = self.users.get(name)
        if user and user.active and not self.authenticator.get_user(name).is_authorized:
            await self.stop_single_user(user)
        self.redirect(self.hub.base_url + "authorize#" + name)


class DiscardHandler(handlers.DiscardHandler):
    """Forgets somebody who waits to be let in: a form's action, not a link's."""

    get = AuthorizeHandler.get
    post = handlers.DiscardHandler.get

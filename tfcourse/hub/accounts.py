"""Accounts of the hub in containers: learners sign up, the instructor lets them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bcrypt
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from nativeauthenticator import NativeAuthenticator, handlers
from nativeauthenticator.orm import UserInfo
from tornado import web
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
        for name in self.admin_users - {info.username for info in UserInfo.all_users(self.db)}:
            password = bcrypt.hashpw(self.admin_password.encode(), bcrypt.gensalt())
            self.db.add(UserInfo(username=name, password=password, is_authorized=True))
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
        self.address = handler.request.remote_ip  # nothing else happens until this has returned
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


class LoginHandler(handlers.LoginHandler):
    """The log-in page, with sentences where NativeAuthenticator's says nothing or is HTTP 500."""

    async def post(self) -> None:
        """Log in, or say why not."""
        username, password = (self.get_body_argument(n, "") for n in ("username", "password"))
        if seconds := self.authenticator.seconds_to_wait(username, self.request.remote_ip):
            refusal = f"There were too many wrong passwords. Try again in {seconds} seconds."
            self.set_status(429)
        elif len(password.encode()) > LONGEST:
            refusal = "Invalid username or password."
        else:
            await super().post()
            return
        self.finish(await self._render(login_error=refusal, username=username))


class AuthorizeHandler(handlers.ToggleAuthorizationHandler):
    """Lets somebody in, or shuts them out: a form's action, not a link's."""

    @needs_scope("admin:users")
    async def get(self, name: str) -> None:
        """Refuse to change anything by a link."""
        self.redirect(self.hub.base_url + "authorize")

    @needs_scope("admin:users")
    async def post(self, name: str) -> None:
        """Change it, and show the list again."""
        if not self.authenticator.user_exists(name):
            raise web.HTTPError(404, f"There is no account {name!r}.")
        if name == self.current_user.name:
            raise web.HTTPError(400, "You would shut yourself out.")
        UserInfo.change_authorization(self.db, name)
        self.redirect(self.hub.base_url + "authorize#" + name)


class DiscardHandler(handlers.DiscardHandler):
    """Forgets somebody who waits to be let in: a form's action, not a link's."""

    get = AuthorizeHandler.get
    post = handlers.DiscardHandler.get

"""Pages for signing up, logging in, changing passwords and approving users."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.user import User
from nativeauthenticator import handlers
from nativeauthenticator.orm import UserInfo
from tornado import web

from tfcourse.hub.accounts.browsers import remember_browser
from tfcourse.hub.accounts.sessions import Keep, end_sessions
from tfcourse.hub.classroom.instructors import needs_instructor
from tfcourse.hub.front.addresses import address_of

# The maximum length of a form field's value; longer values are never valid. The hub keeps some
# values in memory while it checks other passwords, and repeats the user name on its pages.
LONGEST_VALUE = 255  # characters


class LoginHandler(handlers.LoginHandler):
    """The log-in page, which explains errors.

    NativeAuthenticator's own page ignores some errors and fails with HTTP 500 on others.
    """

    def _render(
        self, login_error: str | None = None, username: str | None = None, **ns: Any
    ) -> Any:
        """Render the log-in page, or an error page.

        For an error page, JupyterHub passes different arguments. Such errors are usually caused by
        a form with an expired XSRF token.
        """
        if ns.get("sync"):
            ns["message"] = "This form has expired. Open the log-in page again."
            return BaseHandler.render_template(self, "error.html", **ns)
        return super()._render(login_error=login_error, username=username)

    async def post(self) -> None:
        """Log the user in, or show why the log-in failed."""
        # Read only the form data, not the query string, because URLs appear in logs.
        form = self.request.body_arguments
        username, password = (
            form.get(field, [b""])[-1].decode("utf-8", "replace")[:LONGEST_VALUE]
            for field in ("username", "password")
        )
        refusal = "Invalid username or password."
        try:
            user = await self.login_user({"username": username, "password": password})
        except web.HTTPError as error:
            user, refusal = None, error.log_message
            self.set_status(error.status_code)
        if user:
            self._jupyterhub_user = user  # name the user in the log entry
            self.redirect(self.get_next_url(user))
        else:
            self.finish(await self._render(login_error=refusal, username=username))


class SignUpHandler(handlers.SignUpHandler):
    """The sign-up page, which asks for the class code and explains errors."""

    FIELDS = ("username", "signup_password", "signup_password_confirmation", "class_code")

    async def get(self) -> None:
        """Show the form."""
        await self.show()

    async def post(self) -> None:
        """Create an account for the visitor, or show why sign-up failed."""
        username, password, confirmation, code = (
            self.get_body_argument(field, "", strip=False)[:LONGEST_VALUE] for field in self.FIELDS
        )
        name = self.authenticator.normalize_username(username.strip())
        refusal = await self.authenticator.sign_up(
            name, password, confirmation, code.strip(), address_of(self.request)
        )
        if refusal:
            await self.show(alert="alert-danger", result_message=refusal, username=username)
            return
        remember_browser(self, name)  # others' wrong passwords cannot lock this newcomer out
        if self.authenticator.get_user(name).is_authorized:
            welcome = f"You have signed up as {name}. You can log in now."
            await self.show(alert="alert-success", result_message=welcome)
        else:
            wait = f"You have signed up as {name}. You can log in once your instructor lets you in."
            await self.show(alert="alert-info", result_message=wait)

    async def show(self, **message: str) -> None:
        """Render the page with an optional message."""
        ask = bool(self.authenticator.class_code)
        self.finish(await self.render_template("signup.html", ask_class_code=ask, **message))


class ChangePasswordHandler(handlers.ChangePasswordHandler):
    """The page where users change their own passwords."""

    @web.authenticated
    async def post(self) -> None:
        """Change the password, or show why it was not changed."""
        old, new, confirmation = (
            self.get_body_argument(field, "", strip=False)
            for field in ("old_password", "new_password", "new_password_confirmation")
        )
        user = self.current_user
        refusal = self.authenticator.fault_of(new, confirmation)
        if not refusal:
            try:
                data = {"username": user.name, "password": old}
                if not await self.authenticator.authenticate(self, data):
                    refusal = "The old password is wrong."
            except web.HTTPError as error:
                refusal = error.log_message
        if not refusal:
            await self.authenticator.set_password(user.name, new)
            self.set_hub_cookie(user)  # this browser stays logged in
        await self.show("change-password.html", user.name, refusal)

    async def show(self, template: str, name: str, refusal: str) -> None:
        """Show the error in `refusal`, or confirm the change if `refusal` is empty."""
        done = "The password has been changed. All other sessions have been logged out."
        alert = "alert-danger" if refusal else "alert-success"
        self.finish(
            await self.render_template(
                template, user_name=name, alert=alert, result_message=refusal or done
            )
        )


class ChangePasswordAdminHandler(handlers.ChangePasswordAdminHandler):
    """The page where an administrator sets a user's password."""

    show = ChangePasswordHandler.show

    @needs_scope("admin:users")
    async def post(self, name: str) -> None:
        """Change the password, or show why it was not changed."""
        new, confirmation = (
            self.get_body_argument(field, "", strip=False)
            for field in ("new_password", "new_password_confirmation")
        )
        name = self.authenticator.normalize_username(name)
        if not self.authenticator.user_exists(name):
            raise web.HTTPError(404, f"There is no account {name!r}.")
        refusal = self.authenticator.fault_of(new, confirmation)
        if not refusal:
            await self.authenticator.set_password(name, new)
            if name == self.current_user.name:
                self.set_hub_cookie(self.current_user)
        await self.show("change-password-admin.html", name, refusal)


def refuse_administrators(handler: BaseHandler, name: str) -> None:
    """Raise HTTP 403 if a non-administrator tries to change an administrator's account."""
    known = orm.User.find(handler.db, name)
    if known and known.admin and not handler.has_scope("admin:users"):
        raise web.HTTPError(403, f"{name} is an administrator, and you are not.")


class AuthorizationAreaHandler(handlers.AuthorizationAreaHandler):
    """The "Who may come in" page."""

    @needs_instructor
    async def get(self) -> None:
        """List the users who are awaiting approval and the users who can log in."""
        administrators = {name for (name,) in self.db.query(orm.User.name).filter_by(admin=True)}
        html = await self.render_template(
            "authorization-area.html",
            users=self.db.query(UserInfo).all(),
            others=set() if self.has_scope("admin:users") else administrators,
        )
        self.finish(html)


class AuthorizeHandler(handlers.ToggleAuthorizationHandler):
    """Approve or block a user when a form is submitted, but never when a link is followed."""

    @needs_instructor
    async def get(self, name: str) -> None:
        """Redirect to the lists of users without changing anything."""
        self.redirect(self.hub.base_url + "authorize")

    @needs_instructor
    async def post(self, name: str) -> None:
        """Approve or block a user, then redirect to the lists of users.

        Blocking a user also stops the user's server and ends the user's sessions. The form sends
        the desired state instead of toggling it, because the page can be outdated and a button can
        be pressed twice.
        """
        let_in = self.get_body_argument("let_in", "")
        if let_in not in ("yes", "no"):
            raise web.HTTPError(400, "This form has expired. Open the page again.")
        name = self.authenticator.normalize_username(name)
        if not self.authenticator.user_exists(name):
            raise web.HTTPError(404, f"There is no account {name!r}.")
        if name == self.current_user.name:
            raise web.HTTPError(400, "You cannot shut out your own account.")
        refuse_administrators(self, name)
        self.authenticator.get_user(name).is_authorized = let_in == "yes"
        self.db.commit()
        if let_in == "no":
            # End the sessions, so that a user who is approved again later has to log in again.
            end_sessions(self.db, name, Keep.NOTHING)
            if user := self.users.get(name):
                # If a server is starting, stopping it can take minutes, so do not wait for it to
                # finish.
                stop = asyncio.ensure_future(self.stop_servers(user))
                await asyncio.wait([stop], timeout=self.slow_stop_timeout)
        self.redirect(self.hub.base_url + "authorize#" + name)

    async def stop_servers(self, user: User) -> None:
        """Stop the user's servers; first wait for those that are starting or stopping."""
        for name, spawner in user.spawners.items():
            while spawner.pending:
                await asyncio.sleep(1)
            if spawner.active:
                await self.stop_single_user(user, name)


class DiscardHandler(handlers.DiscardHandler):
    """Discard an unapproved account when a form is submitted, but never when a link is followed."""

    get = AuthorizeHandler.get

    @needs_instructor
    async def post(self, name: str) -> None:
        """Discard the account, then redirect to the lists of users."""
        refuse_administrators(self, name)
        info = self.authenticator.get_user(name)
        if info and not info.is_authorized:
            user = self.users.get(name)
            self.authenticator.delete_user(user or SimpleNamespace(name=name))
            if user:
                self.users.delete(name)
        self.redirect(self.hub.base_url + "authorize")

"""Accounts of the hub in containers: learners sign up, the instructor lets them in."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Hashable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bcrypt
from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from nativeauthenticator import NativeAuthenticator, handlers
from nativeauthenticator.orm import UserInfo
from sqlalchemy.orm import Session
from tornado import web
from tornado.httputil import HTTPServerRequest
from traitlets import Callable as CallableTrait
from traitlets import Unicode

from tfcourse.hub import announcement, instructors, state
from tfcourse.hub.announcement import AnnouncementHandler
from tfcourse.hub.instructors import needs_instructor

LONGEST = 72  # bytes; bcrypt takes no more
WAITING = 200  # accounts that may wait for the instructor, so that strangers cannot fill the list


def configure(c: Any, hub: Path, has_home: Callable[[str], bool]) -> None:
    """Set who may come in; `has_home` tells whether there is work under a name."""
    c.JupyterHub.template_vars["announcement"] = announcement.render
    instructors.configure(c)
    if kind() != "native":
        from tfcourse.hub import sign_on  # which takes a while

        sign_on.configure(c, kind())
        return
    trusted_proxies()  # now, and not when the first learner comes
    c.JupyterHub.authenticator_class = CourseAuthenticator
    c.JupyterHub.template_vars["sign_up"] = True  # for the links in the bar
    c.Authenticator.username_pattern = state.NAMES
    c.Authenticator.admin_users = administrators(state.NAMES, default="instructor")
    c.CourseAuthenticator.first_password = lambda name: first_password(hub, name)
    c.CourseAuthenticator.class_code = class_code()
    c.CourseAuthenticator.has_home = has_home
    # Who has signed up and is approved may come in: the authenticator sees to that.
    c.Authenticator.allow_all = True
    c.Authenticator.auth_refresh_age = 30  # seconds until who was shut out is logged out
    c.NativeAuthenticator.open_signup = open_signup()
    c.NativeAuthenticator.minimum_password_length = 10
    c.NativeAuthenticator.check_common_password = True


def first_password(hub: Path, name: str) -> str:
    """Return an administrator's first password; each has one of their own."""
    return state.password(hub / f"first-password-of-{name}")


def kind() -> str:
    """Return COURSE_ACCOUNTS; exit with a sentence if settings of another kind are there, too."""
    chosen = state.choice("COURSE_ACCOUNTS", "native", "oauth", "lti")
    settings = {
        "native": ("COURSE_SIGNUP", "COURSE_CLASS_CODE", "COURSE_TRUSTED_PROXIES"),
        "oauth": ("COURSE_OAUTH_",),
        "lti": ("COURSE_LTI_",),
    }
    for other in settings.keys() - {chosen}:
        for variable, value in os.environ.items():
            if value and variable.startswith(settings[other]):
                sys.exit(f"{variable} is for COURSE_ACCOUNTS={other}, but that is {chosen!r}.")
    return chosen


def administrators(names: str, default: str = "") -> set[str]:
    """Return COURSE_ADMIN as a set; exit with a sentence if nobody can have that name."""
    name = os.environ.get("COURSE_ADMIN") or default
    if name and not re.match(names, name):
        sys.exit(
            f"COURSE_ADMIN is {name!r}: small letters, digits and - _ . are allowed,\n"
            "and + @ where COURSE_ACCOUNTS is oauth or lti."
        )
    return {name} if name else set()


def open_signup() -> bool:
    """Return whether whoever signs up may come in at once."""
    return state.choice("COURSE_SIGNUP", "approval", "open") == "open"


def class_code() -> str:
    """Return COURSE_CLASS_CODE, or nothing; exit with a sentence if it cannot be one."""
    code = (os.environ.get("COURSE_CLASS_CODE") or "").strip()
    if code and len(code) < 8:  # not shown: it is a secret, if a short one
        sys.exit("COURSE_CLASS_CODE is too short: it has to have at least 8 characters.")
    if code and open_signup():
        sys.exit(
            "COURSE_SIGNUP=open lets in whoever signs up, also without the code of\n"
            "COURSE_CLASS_CODE: set one of the two."
        )
    return code


class Limit:
    """So many attempts at once, and then one for every so many seconds."""

    def __init__(self, at_once: int, seconds: int):
        self.at_once, self.seconds = at_once, seconds
        self.paid_off: dict[Hashable, float] = {}  # when what somebody has had is forgotten

    def wait(self, who: Hashable) -> int:
        """Return for how many seconds there is no attempt left; mostly 0."""
        owed = self.paid_off.get(who, 0) - time.monotonic()
        return max(0, math.ceil(owed - (self.at_once - 1) * self.seconds))

    def count(self, who: Hashable) -> None:
        """Count an attempt."""
        now = time.monotonic()
        self.paid_off = {key: end for key, end in self.paid_off.items() if end > now}
        self.paid_off[who] = self.paid_off.get(who, now) + self.seconds

    def forget(self, who: Hashable) -> None:
        """Forget the attempts of somebody who has made a right one."""
        self.paid_off.pop(who, None)


class CourseAuthenticator(NativeAuthenticator):
    """NativeAuthenticator with what a class needs beyond it.

    - The administrators exist before the first visitor comes. By itself it gives their rights to
      whoever signs up first under their name.
    - Who knows the class code need not wait for the instructor.
    - Accounts are changed by forms with an XSRF token. By itself it does that by links, which any
      page can make the administrator's browser follow.
    - Who is shut out is logged out within half a minute, not the next time that they log in; whose
      password is changed, at once.
    - Wrong passwords are counted for each name and address. By itself it counts them for the name
      alone, and anybody could lock the instructor out.
    - Passwords are computed beside the hub, which would stand still for a quarter of a second.
    """

    first_password = CallableTrait(config=True, help="Of an administrator without an account.")
    class_code = Unicode(config=True, help="Who gives it when signing up may come in at once.")
    has_home = CallableTrait(lambda name: False, config=True, help="Is there work under this name?")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.wrong_passwords = Limit(5, seconds=60)
        # A class sits behind one address, and signs up within minutes.
        self.wrong_codes = Limit(20, seconds=60)
        self.sign_ups = Limit(60, seconds=60)
        for name in self.admin_users:
            info = self.get_user(name)
            if info is None:
                password = hashed(self.first_password(name))
                self.db.add(UserInfo(username=name, password=password, is_authorized=True))
            elif not info.is_authorized:
                sys.exit(
                    f"COURSE_ADMIN is {name!r}, but somebody has signed up under that name, and\n"
                    "was not let in. Start with another name, and discard that account first."
                )
        self.db.commit()

    async def sign_up(
        self, name: str, password: str, confirmation: str, code: str, address: str
    ) -> str:
        """Make an account; return an empty string, or a sentence on why not.

        A taken name has to be told, and so can be found out, by as many attempts as are allowed.
        """
        if wait := self.sign_ups.wait(address):
            return f"There were too many sign-ups from your network. Try again in {wait} seconds."
        if not self.validate_username(name):
            return (
                "A user name has at most 32 characters: small letters, digits, and - _ . which it "
                "must not begin with."
            )
        if fault := self.fault_of(password, confirmation):
            return fault
        let_in = self.open_signup
        if code and self.class_code:
            if wait := self.wrong_codes.wait(address):
                return f"There were too many wrong class codes. Try again in {wait} seconds."
            let_in = secrets.compare_digest(code.encode(), self.class_code.encode())
            if not let_in:
                self.wrong_codes.count(address)
                return "The class code is wrong. Without one your instructor has to let you in."
        self.sign_ups.count(address)
        if not let_in and self.db.query(UserInfo).filter_by(is_authorized=False).count() >= WAITING:
            return "Too many people wait to be let in. Tell your instructor, and try again later."
        stored = await asyncio.to_thread(hashed, password)
        # The hub may know a name that has no account: its rights are not for whoever comes.
        if self.user_exists(name) or orm.User.find(self.db, name):
            return "This user name is already in use. Choose another one."
        # Where the account was lost, and the work was not, the instructor has to see who comes.
        let_in = let_in and not self.has_home(name)
        self.db.add(UserInfo(username=name, password=stored, is_authorized=let_in))
        self.db.commit()
        return ""

    def fault_of(self, password: str, confirmation: str) -> str:
        """Return a sentence on why this cannot be a new password, or an empty string."""
        if password != confirmation:
            return "The two passwords differ."
        if len(password) < self.minimum_password_length:
            return (
                f"The password is too short: at least {self.minimum_password_length} characters "
                "are needed."
            )
        if len(password.encode()) > LONGEST:
            return f"The password is too long: more than {LONGEST} letters cannot be stored."
        if self.is_password_common(password):
            return "This password is one of the most common ones. Choose another one."
        return ""

    async def set_password(self, name: str, password: str) -> None:
        """Give an account a new password, and end whatever was begun with the old one."""
        self.get_user(name).password = await asyncio.to_thread(hashed, password)
        log_out(self.db, name)

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
        """Return the pages, with our own where NativeAuthenticator's are not enough."""
        pages = dict(super().get_handlers(app))
        del pages["/confirm/([^/]*)"]  # for links in mails, which are not sent
        ours = {
            "/announcement": AnnouncementHandler,
            "/login": LoginHandler,
            "/signup": SignUpHandler,
            "/authorize": AuthorizationAreaHandler,
            "/authorize/([^/]*)": AuthorizeHandler,
            "/discard/([^/]*)": DiscardHandler,
            "/change-password": ChangePasswordHandler,
            "/change-password/([^/]+)": ChangePasswordAdminHandler,
        }
        return list({**pages, **ours}.items())

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> str | None:
        """Return the user's name, or None for a wrong password.

        Raises
        ------
        HTTPError
            With a sentence, if there were too many of them, or if nobody has let the user in yet.
        """
        name, password = self.normalize_username(data["username"]), data["password"].encode()
        attempt = (name, address_of(handler.request))
        if wait := self.wrong_passwords.wait(attempt):
            raise web.HTTPError(
                429, f"There were too many wrong passwords. Try again in {wait} seconds."
            )
        info = self.get_user(name)
        if info is None or len(password) > LONGEST:
            return None
        self.wrong_passwords.count(attempt)  # now: more may come while this one is computed
        if not await asyncio.to_thread(bcrypt.checkpw, password, info.password):
            return None
        self.wrong_passwords.forget(attempt)
        if not info.is_authorized:
            raise web.HTTPError(
                403, f"User {name} has not been authorized by an administrator yet."
            )
        return name

    async def refresh_user(self, user: Any, handler: BaseHandler | None = None) -> bool:
        """Tell whether somebody who is logged in still may; JupyterHub asks now and then."""
        info = self.get_user(user.name)
        return bool(info and info.is_authorized)


def hashed(password: str) -> bytes:
    """Return what is stored of a password."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())


def log_out(db: Session, name: str) -> None:
    """End somebody's sessions and tokens, but those of their running servers themselves.

    Such a server asks again whom it may serve within five minutes.
    """
    user = orm.User.find(db, name)
    if user:
        user.cookie_id = orm.new_token()
        # Its owner can give any token that note, but not at the time when the server started.
        starts = [spawner.started for spawner in user.orm_spawners.values() if spawner.server]
        for token in user.api_tokens:
            its_own = (token.note or "").startswith("Server at ") and any(
                abs(token.created - start) < timedelta(seconds=10) for start in starts
            )
            if not its_own:
                db.delete(token)
    db.commit()


def address_of(request: HTTPServerRequest) -> str:
    """Return the address that a request comes from, whatever it says about itself.

    Of an IPv6 address it is the network, /64: whoever has one address there has all of them.

    The proxy appends it to X-Forwarded-For. What stands before that, or in X-Real-Ip, anybody can
    write; and what does not come from this machine does not come from the proxy.
    """
    peer = request.connection.context._orig_remote_ip
    if peer != request.connection.stream.socket.getsockname()[0]:
        return network(peer)
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")
    # One more proxy, for HTTPS, say, has appended its own, too.
    outside = [address.strip() for address in forwarded if not is_proxy(address.strip())]
    return network(outside[-1] if outside else peer)


def network(address: str) -> str:
    """Return an IPv4 address as it is, of an IPv6 address its network."""
    try:
        found = parsed(address)
    except ValueError:
        return address
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address, ::ffff:127.0.0.1 as 127.0.0.1; raise ValueError if it is none."""
    found = ipaddress.ip_address(address)
    return (found.version == 6 and found.ipv4_mapped) or found


def is_proxy(address: str) -> bool:
    """Tell whether it is this machine's own, or of a trusted proxy, which speak for others."""
    try:
        found = parsed(address)
    except ValueError:
        return not address
    return found.is_loopback or any(found in trusted for trusted in trusted_proxies())


def trusted_proxies() -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks of COURSE_TRUSTED_PROXIES; exit with a sentence if one cannot be."""
    found = []
    for text in filter(None, os.environ.get("COURSE_TRUSTED_PROXIES", "").split(",")):
        try:
            found.append(ipaddress.ip_network(text.strip()))
        except ValueError as error:
            sys.exit(
                f"COURSE_TRUSTED_PROXIES: {error}. It has to be addresses or networks,\n"
                "with commas between them, like 10.244.7.0/24,192.0.2.7."
            )
        if not found[-1].prefixlen:
            sys.exit(f"COURSE_TRUSTED_PROXIES is {text.strip()}: then anybody could be anybody.")
    return found


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
        # Of the form alone: what stands in the address ends up in logs.
        form = self.request.body_arguments
        username, password = (
            form.get(field, [b""])[-1].decode("utf-8", "replace")
            for field in ("username", "password")
        )
        refusal = "Invalid username or password."
        try:
            user = await self.login_user({"username": username, "password": password})
        except web.HTTPError as error:
            user, refusal = None, error.log_message
            self.set_status(error.status_code)
        if user:
            self._jupyterhub_user = user  # for what is logged of this request
            self.redirect(self.get_next_url(user))
        else:
            self.finish(await self._render(login_error=refusal, username=username))


class SignUpHandler(handlers.SignUpHandler):
    """The sign-up page, which says what is wrong and asks for the class code."""

    FIELDS = ("username", "signup_password", "signup_password_confirmation", "class_code")

    async def get(self) -> None:
        """Show the form."""
        await self.show()

    async def post(self) -> None:
        """Sign up, or say why not."""
        username, password, confirmation, code = (
            self.get_body_argument(field, "", strip=False) for field in self.FIELDS
        )
        name = self.authenticator.normalize_username(username.strip())
        refusal = await self.authenticator.sign_up(
            name, password, confirmation, code.strip(), address_of(self.request)
        )
        if refusal:
            await self.show(alert="alert-danger", result_message=refusal, username=username)
        elif self.authenticator.get_user(name).is_authorized:
            welcome = f"You have signed up as {name}. You can log in now."
            await self.show(alert="alert-success", result_message=welcome)
        else:
            wait = f"You have signed up as {name}. You can log in once your instructor lets you in."
            await self.show(alert="alert-info", result_message=wait)

    async def show(self, **message: str) -> None:
        """Render the page, with what there is to say."""
        ask = bool(self.authenticator.class_code)
        self.finish(await self.render_template("signup.html", ask_class_code=ask, **message))


class ChangePasswordHandler(handlers.ChangePasswordHandler):
    """Lets somebody change their own password."""

    @web.authenticated
    async def post(self) -> None:
        """Change it, or say why not."""
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
        """Render the page, with what there is to say."""
        done = "The password has been changed. Everywhere else it is needed anew."
        alert = "alert-danger" if refusal else "alert-success"
        self.finish(
            await self.render_template(
                template, user_name=name, alert=alert, result_message=refusal or done
            )
        )


class ChangePasswordAdminHandler(handlers.ChangePasswordAdminHandler):
    """Lets an administrator give somebody a new password."""

    show = ChangePasswordHandler.show

    @needs_scope("admin:users")
    async def post(self, name: str) -> None:
        """Change it, or say why not."""
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
    """Leave administrators' accounts to administrators."""
    known = orm.User.find(handler.db, name)
    if known and known.admin and not handler.has_scope("admin:users"):
        raise web.HTTPError(403, f"{name} is an administrator, and you are not.")


class AuthorizationAreaHandler(handlers.AuthorizationAreaHandler):
    """The page Who may come in."""

    @needs_instructor
    async def get(self) -> None:
        """Show the lists."""
        administrators = {name for (name,) in self.db.query(orm.User.name).filter_by(admin=True)}
        html = await self.render_template(
            "authorization-area.html",
            users=self.db.query(UserInfo).all(),
            others=set() if self.has_scope("admin:users") else administrators,
        )
        self.finish(html)


class AuthorizeHandler(handlers.ToggleAuthorizationHandler):
    """Lets somebody in, or shuts them out: a form's action, not a link's."""

    @needs_instructor
    async def get(self, name: str) -> None:
        """Refuse to change anything by a link."""
        self.redirect(self.hub.base_url + "authorize")

    @needs_instructor
    async def post(self, name: str) -> None:
        """Change it, stop the server of who is shut out, and show the list again.

        The form says what is wanted: a page may be old, and a button be pressed twice.
        """
        let_in = self.get_body_argument("let_in", "")
        if let_in not in ("yes", "no"):
            raise web.HTTPError(400, "This form can no longer be used. Open the page again.")
        name = self.authenticator.normalize_username(name)
        if not self.authenticator.user_exists(name):
            raise web.HTTPError(404, f"There is no account {name!r}.")
        if name == self.current_user.name:
            raise web.HTTPError(400, "You would shut yourself out.")
        refuse_administrators(self, name)
        self.authenticator.get_user(name).is_authorized = let_in == "yes"
        self.db.commit()
        user = self.users.get(name)
        if user and user.active and let_in == "no":
            await self.stop_single_user(user)
        self.redirect(self.hub.base_url + "authorize#" + name)


class DiscardHandler(handlers.DiscardHandler):
    """Forgets somebody who waits to be let in: a form's action, not a link's."""

    get = AuthorizeHandler.get

    @needs_instructor
    async def post(self, name: str) -> None:
        """Forget them, and show the list again."""
        refuse_administrators(self, name)
        info = self.authenticator.get_user(name)
        if info and not info.is_authorized:
            self.authenticator.delete_user(SimpleNamespace(name=name))
            if self.users.get(name):
                self.users.delete(name)
        self.redirect(self.hub.base_url + "authorize")

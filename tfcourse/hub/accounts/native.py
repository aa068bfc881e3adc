"""Accounts for the containerised hub: learners sign up, and an instructor approves them."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from typing import Any

from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from nativeauthenticator import NativeAuthenticator
from nativeauthenticator.orm import UserInfo
from tornado import web
from traitlets import Callable as CallableTrait
from traitlets import Unicode

from tfcourse.hub import pools
from tfcourse.hub.accounts import roster
from tfcourse.hub.accounts.browsers import known_browser, remember_browser
from tfcourse.hub.accounts.handlers import (
    AuthorizationAreaHandler,
    AuthorizeHandler,
    ChangePasswordAdminHandler,
    ChangePasswordHandler,
    DiscardHandler,
    LoginHandler,
    SignUpHandler,
)
from tfcourse.hub.accounts.passwords import (
    LONGEST,
    NO_PASSWORD,
    Guesses,
    hashed,
    matches,
)
from tfcourse.hub.accounts.sessions import (
    Keep,
    MarkedServers,
    end_sessions,
    ending_sessions,
)
from tfcourse.hub.classroom import announcement, assignments, progress
from tfcourse.hub.front.addresses import address_of
from tfcourse.hub.limits import Limit
from tfcourse.hub.state import NAMES_RULE

# The maximum number of accounts awaiting approval, so that strangers cannot flood the list.
WAITING = 200

RESERVED = "This user name is reserved. Ask your instructor for its first password."

WRONG_CODE = "The class code is wrong. Without a code, your instructor has to let you in."


class CourseAuthenticator(MarkedServers, NativeAuthenticator):
    """NativeAuthenticator, adapted for classes.

    - Administrators' accounts are created at startup. NativeAuthenticator grants administrator
      rights to the first person who signs up with an administrator's user name.
    - Learners who know the class code do not have to wait for the instructor.
    - Instructors create accounts from a list, with first passwords to hand out (roster.py).
    - Adding a user on the *Admin* page reserves the name. With NativeAuthenticator, nobody could
      ever log in under that name.
    - Accounts are changed through forms with an XSRF token. NativeAuthenticator uses links, which
      any page can make the administrator's browser follow.
    - Blocked users are logged out within half a minute. NativeAuthenticator checks only at log-in
      whether users are blocked.
    - Changing a password ends the user's sessions immediately.
    - Wrong passwords are counted for each name, each address, and each browser. NativeAuthenticator
      counts them only for each name, so anyone could lock the instructor out.
    - Rejecting a wrong password takes as long for an unknown name as for a known one.
    - Passwords are hashed in a thread. Otherwise, each hash would block the hub for a quarter of a
      second.
    """

    first_password = CallableTrait(config=True, help="Returns an administrator's initial password.")
    class_code = Unicode(config=True, help="New learners with this code can log in immediately.")
    has_home = CallableTrait(
        lambda name: False, config=True, help="Returns whether files exist for a name."
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.guesses = Guesses()
        # Check at most one password per processor at a time. Later attempts wait, so that the
        # results of earlier attempts count towards the limits.
        self.checking = asyncio.Semaphore(os.cpu_count() or 1)
        # Passwords for unknown names are compared with this hash, so that the response takes as
        # long as for an existing name.
        self.hash_of_nobody = hashed(secrets.token_hex())
        # Both limits are high enough for a whole class to sign up from one shared address within
        # minutes.
        self.wrong_codes = Limit(20, seconds=60)
        self.sign_ups = Limit(60, seconds=60)
        self.sign_ups_with_code = Limit(300, seconds=5)
        # Someone with many addresses can exhaust this limit. The hub then ignores class codes
        # instead of rejecting sign-ups.
        self.all_wrong_codes = Limit(100, seconds=30)
        for name in self.admin_users:
            info = self.get_user(name)
            if info is None:
                password = hashed(self.first_password(name))
                self.db.add(UserInfo(username=name, password=password, is_authorized=True))
            elif not info.is_authorized:
                sys.exit(
                    f"COURSE_ADMIN is {name!r}, but somebody has signed up under that name and\n"
                    "has not been let in. Start with another name, then discard that account."
                )
        self.db.commit()

    async def sign_up(
        self, name: str, password: str, confirmation: str, code: str, address: str
    ) -> str:
        """Create an account; return an error message, or an empty string on success.

        The message has to reveal that a name is taken, so anyone can find out which names exist.
        Rate limits slow down attempts to do so.
        """
        if not self.validate_username(name):
            return NAMES_RULE
        if fault := self.fault_of(password, confirmation):
            return fault
        knows_code = False
        if code and self.class_code:
            if wait := self.wrong_codes.wait(address):
                return f"There were too many wrong class codes. Try again in {wait} seconds."
            if not self.all_wrong_codes.wait("all"):
                knows_code = secrets.compare_digest(code.encode(), self.class_code.encode())
                if not knows_code:
                    self.wrong_codes.count(address)
                    self.all_wrong_codes.count("all")
                    return WRONG_CODE
        # Count sign-ups with a correct class code separately, so that strangers cannot block them.
        limit = self.sign_ups_with_code if knows_code else self.sign_ups
        let_in = self.open_signup or knows_code
        if wait := limit.wait(address):
            return f"There were too many sign-ups from your network. Try again in {wait} seconds."
        limit.count(address)
        if not let_in and self.db.query(UserInfo).filter_by(is_authorized=False).count() >= WAITING:
            return (
                "Too many people are waiting for approval. Tell your instructor, and try again "
                "later."
            )
        stored = await pools.run(pools.PASSWORDS, hashed, password)
        # If an account was lost but its files still exist, the next person who signs up with that
        # user name needs the instructor's approval.
        let_in = let_in and not await pools.run(pools.HOMES, self.has_home, name)
        # Do not await anything from here on, because another request might then take the name.
        # JupyterHub may already have a user with this name but without an account. A newcomer must
        # not get that user's rights.
        account, user = self.get_user(name), orm.User.find(self.db, name)
        if account and user and roster.awaits_owner(account, user) and not user.admin:
            return RESERVED
        if account or user:
            return "This user name is already in use. Choose another one."
        self.db.add(UserInfo(username=name, password=stored, is_authorized=let_in))
        self.db.commit()
        return ""

    def fault_of(self, password: str, confirmation: str) -> str:
        """Return an error message if the new password is invalid, or an empty string."""
        if password != confirmation:
            return "The two passwords differ."
        if len(password) < self.minimum_password_length:
            return (
                f"The password is too short: at least {self.minimum_password_length} characters "
                "are needed."
            )
        if len(password.encode()) > LONGEST:
            return (
                f"The password is too long: at most {LONGEST} bytes can be stored. Plain letters "
                "and digits take one byte each, other characters two to four."
            )
        if self.is_password_common(password):
            return "This password is one of the most common ones. Choose another one."
        return ""

    async def set_password(self, name: str, password: str) -> None:
        """Set an account's password and end its sessions; its servers' tokens remain valid."""
        stored = await pools.run(pools.PASSWORDS, hashed, password)
        self.get_user(name).password = stored
        end_sessions(self.db, name, Keep.SERVERS)

    def add_user(self, user: Any) -> None:
        """Reserve a new user's name by creating an account without a password.

        JupyterHub calls this method when an administrator adds a user, and for all users when the
        hub starts, so names that were added before an upgrade are reserved, too. Users who have
        already worked on this hub without such an account (with single sign-on, for example) need
        approval.
        """
        super().add_user(user)
        if not self.user_exists(user.name):
            is_new = user.last_activity is None
            self.db.add(UserInfo(username=user.name, password=NO_PASSWORD, is_authorized=is_new))
            self.db.commit()

    def delete_user(self, user: Any) -> None:
        """Delete an account if it has never been used; otherwise, disable it.

        A used account still has a home directory. Its name remains taken, so that nobody else can
        sign up under that name and get the directory. To reopen the account, an administrator sets
        a new password and approves the user again.

        Raises
        ------
        HTTPError
            If the user's server is starting or stopping. The hub would otherwise lose track of it.
        """
        if getattr(user, "active", False):
            raise web.HTTPError(
                409, f"The server of {user.name} has not stopped yet. Try again in a minute."
            )
        info, known = self.get_user(user.name), orm.User.find(self.db, user.name)
        if info is None or known is None or known.last_activity is None:
            super().delete_user(user)
        else:
            info.is_authorized = False
            info.password = self.hash_of_nobody
            self.db.commit()

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return NativeAuthenticator's page handlers, but replace some with the course's own."""
        pages = dict(super().get_handlers(app))
        del pages["/confirm/([^/]*)"]  # the hub does not send e-mails with links to this page
        ours = {
            **announcement.handlers(app),
            **assignments.handlers(app),
            **progress.handlers(app),
            **roster.HANDLERS,
            "/login": LoginHandler,
            "/logout": ending_sessions(),
            "/signup": SignUpHandler,
            "/authorize": AuthorizationAreaHandler,
            "/authorize/([^/]*)": AuthorizeHandler,
            "/discard/([^/]*)": DiscardHandler,
            "/change-password": ChangePasswordHandler,
            "/change-password/([^/]+)": ChangePasswordAdminHandler,
        }
        return list({**pages, **ours}.items())

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> str | None:
        """Return the user's name, or None if the password is wrong.

        Raises
        ------
        HTTPError
            After too many wrong passwords, if the user has not been approved yet, or if the name is
            not a valid user name.
        """
        name, password = self.normalize_username(data["username"]), data["password"].encode()
        if not self.validate_username(name):
            # An invalid name might be too long to keep in memory, or make a query fail.
            raise web.HTTPError(403, NAMES_RULE)
        who = name, address_of(handler.request), known_browser(handler, name)
        async with self.checking:
            if wait := self.guesses.wait(*who):
                raise web.HTTPError(
                    429, f"There were too many wrong passwords. Try again in {wait} seconds."
                )
            info = self.get_user(name)
            stored = info.password if info else self.hash_of_nobody
            is_right = await pools.run(pools.PASSWORDS, matches, password[:LONGEST], stored)
            # In the meantime, the password may have been changed.
            is_right = is_right and info is not None and info.password == stored
            if not is_right or len(password) > LONGEST:
                self.guesses.wrong(*who)
                return None
            self.guesses.right(*who)
            remember_browser(handler, name)
        if not info.is_authorized:
            raise web.HTTPError(403, f"Your instructor has to let {name} in first.")
        return name

    async def refresh_user(self, user: Any, handler: BaseHandler | None = None) -> bool:
        """Return whether a user may stay logged in. JupyterHub calls this method regularly."""
        info = self.get_user(user.name)
        return bool(info and info.is_authorized)

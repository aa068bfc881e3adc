"""Who may come into the hub in containers: what the settings say of accounts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient

from tfcourse.hub import settings, state
from tfcourse.hub.accounts import sign_on
from tfcourse.hub.classroom import announcement, instructors


def configure(c: Any, hub: Path, has_home: Callable[[str], bool]) -> None:
    """Set who may come in; `has_home` tells whether there is work under a name."""
    c.JupyterHub.template_vars["announcement"] = announcement.render
    instructors.configure(c)
    if kind() != "native":
        configure_sign_on(c, kind())
        return
    from tfcourse.hub.accounts.native import CourseAuthenticator

    settings.TRUSTED_PROXIES()  # now, and not when the first learner comes
    c.JupyterHub.authenticator_class = CourseAuthenticator
    c.JupyterHub.template_vars["sign_up"] = True  # for the links in the bar
    c.Authenticator.username_pattern = state.NAMES
    # Of our class alone: an operator's own authenticator must not let everybody in for that.
    c.CourseAuthenticator.admin_users = administrators(state.NAMES, default="instructor")
    c.CourseAuthenticator.first_password = lambda name: first_password(hub, name)
    c.CourseAuthenticator.class_code = class_code()
    c.CourseAuthenticator.has_home = has_home
    # Who has signed up and is approved may come in: the authenticator sees to that.
    c.CourseAuthenticator.allow_all = True
    c.CourseAuthenticator.auth_refresh_age = 30  # seconds until who was shut out is logged out
    c.NativeAuthenticator.open_signup = open_signup()
    c.NativeAuthenticator.minimum_password_length = 10
    c.NativeAuthenticator.check_common_password = True


def first_password(hub: Path, name: str) -> str:
    """Return an administrator's first password; each has one of their own."""
    return state.password(hub / f"first-password-of-{name}")


def kind() -> str:
    """Return COURSE_ACCOUNTS; exit with a sentence if settings of another kind are there, too."""
    chosen = settings.ACCOUNTS()
    theirs = {
        "native": ("COURSE_SIGNUP", "COURSE_CLASS_CODE", "COURSE_TRUSTED_PROXIES"),
        "oauth": ("COURSE_OAUTH_",),
        "lti": ("COURSE_LTI_",),
    }
    for other in theirs.keys() - {chosen}:
        for name, setting in settings.TABLE.items():
            if setting.is_set and name.startswith(theirs[other]):
                sys.exit(f"{name} is for COURSE_ACCOUNTS={other}, but that is {chosen!r}.")
    return chosen


def administrators(names: str, default: str = "") -> set[str]:
    """Return COURSE_ADMIN as a set; exit with a sentence if nobody can have that name."""
    name = settings.ADMIN() or default
    if name and not re.match(names, name):
        sys.exit(
            f"COURSE_ADMIN is {name!r}: small letters, digits and - _ . are allowed,\n"
            "and + @ where COURSE_ACCOUNTS is oauth or lti."
        )
    return {name} if name else set()


def open_signup() -> bool:
    """Return whether whoever signs up may come in at once."""
    return settings.SIGNUP() == "open"


def class_code() -> str:
    """Return COURSE_CLASS_CODE, or nothing; exit with a sentence if it cannot be one."""
    code = settings.CLASS_CODE()
    if code and open_signup():
        sys.exit(
            "COURSE_SIGNUP=open lets in whoever signs up, also without the code of\n"
            "COURSE_CLASS_CODE: set one of the two."
        )
    return code


def configure_sign_on(c: Any, kind: str) -> None:
    """Set up the log-in by `oauth` or `lti`."""
    # An e-mail address may be a name. The volumes' names are made from it without collisions.
    c.Authenticator.username_pattern = sign_on.NAMES
    # Nobody by default: whatever name we took could be somebody's there.
    for ours in (c.CourseOAuthenticator, c.CourseLTIAuthenticator):
        ours.admin_users = administrators(sign_on.NAMES)
    # What the hub asks of others, of servers and the proxy as well, goes over so many connections
    # at once. By itself it has ten, and fails what has waited for 20 seconds: twenty log-ins a
    # second are enough for that (docs/kubernetes.md). No more, as some systems stop at 1,024 files.
    AsyncHTTPClient.configure(None, max_clients=500)
    # Whether people still may come in is asked when they log in: at least once a day.
    c.JupyterHub.cookie_max_age_days = 1
    c.JupyterHub.token_expires_in_max_seconds = 24 * 3600
    service = import_module(f"tfcourse.hub.accounts.{kind}")  # which takes a while
    service.configure(c)

"""Configure the containerised hub's accounts from the settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from jupyterhub import orm
from sqlalchemy import event, inspect
from tornado import web

from tfcourse.hub import settings, state
from tfcourse.hub.accounts import sign_on
from tfcourse.hub.classroom import announcement, instructors


def configure(c: Any, hub: Path, has_home: Callable[[str], bool]) -> None:
    """Configure who can log in; `has_home` returns whether files exist for a user name."""
    c.JupyterHub.template_vars["announcement"] = announcement.render
    event.listen(orm.User.name, "set", keep_name, retval=True, active_history=True)
    instructors.configure(c)
    if kind() != "native":
        configure_sign_on(c, kind())
        return
    from tfcourse.hub.accounts.native import CourseAuthenticator

    c.JupyterHub.authenticator_class = CourseAuthenticator
    c.JupyterHub.template_vars["sign_up"] = True  # show sign-up links in the navigation bar
    c.Authenticator.username_pattern = state.NAMES
    # Set these options only on our own authenticator class. Otherwise, they would also apply to an
    # operator's own authenticator, which would then admit everyone.
    c.CourseAuthenticator.admin_users = {administrator()}
    c.CourseAuthenticator.first_password = lambda name: first_password(hub, name)
    c.CourseAuthenticator.class_code = class_code()
    c.CourseAuthenticator.has_home = has_home
    # Allow all users here, because the authenticator itself checks whether they have been approved.
    c.CourseAuthenticator.allow_all = True
    c.CourseAuthenticator.auth_refresh_age = 30  # seconds until a blocked user is logged out
    c.NativeAuthenticator.open_signup = open_signup()
    c.NativeAuthenticator.minimum_password_length = 10
    c.NativeAuthenticator.check_common_password = True


def keep_name(user: orm.User, name: str | None, before: Any, _: Any) -> Any:
    """Return a new user's name, or raise HTTP 400 if an administrator renames a user.

    After a rename, the work, the password and the server would keep the old name, but the user's
    sessions would open the work of the new name. SQLAlchemy calls this function. JupyterHub's
    *Admin* page sends the name with each change. JupyterHub sets the name to None if it is
    unchanged.
    """
    if not inspect(user).persistent or name in (None, before):
        return name or before
    raise web.HTTPError(400, f"{before} cannot be renamed, because the work keeps the old name.")


def first_password(hub: Path, name: str) -> str:
    """Return an administrator's initial password, which is different for each administrator."""
    return state.password(hub / f"first-password-of-{name}")


def kind() -> str:
    """Return COURSE_ACCOUNTS; exit with a message if a setting for another account type is set."""
    chosen = settings.ACCOUNTS()
    theirs = {
        "native": ("COURSE_SIGNUP", "COURSE_CLASS_CODE"),
        "oauth": ("COURSE_OAUTH_",),
        "lti": ("COURSE_LTI_",),
    }
    for other in theirs.keys() - {chosen}:
        for name, setting in settings.TABLE.items():
            if setting.is_set and name.startswith(theirs[other]):
                sys.exit(f"{name} is for COURSE_ACCOUNTS={other}, but that is {chosen!r}.")
    return chosen


def administrator() -> str:
    """Return COURSE_ADMIN; exit with a message if it is not a valid user name."""
    name = settings.ADMIN() or "instructor"
    if not re.match(state.NAMES, name):
        sys.exit(f"COURSE_ADMIN is {name!r}, which is not a valid user name.\n{state.NAMES_RULE}")
    return name


def administrator_elsewhere(claim: str) -> str:
    """Return the user name of the person whom COURSE_ADMIN names, or "" if it is not set.

    COURSE_ADMIN can be the user name that the hub shows, or what the log-in service sends as
    `claim`.
    """
    name = settings.ADMIN()
    if not name or re.match(sign_on.NAMES, name):
        return name
    return sign_on.user_name({claim: name}, claim)


def open_signup() -> bool:
    """Return whether learners can log in immediately after signing up."""
    return settings.SIGNUP() == "open"


def class_code() -> str:
    """Return COURSE_CLASS_CODE, which may be empty; exit with a message if it is invalid."""
    code = settings.CLASS_CODE()
    if code and open_signup():
        sys.exit(
            "COURSE_SIGNUP=open admits everyone, even without the code in COURSE_CLASS_CODE:\n"
            "set only one of the two."
        )
    return code


def configure_sign_on(c: Any, kind: str) -> None:
    """Configure log-in with `oauth` or `lti`."""
    # User names can be e-mail addresses. The volume names derived from them do not collide.
    c.Authenticator.username_pattern = sign_on.NAMES
    # By default, there is no administrator, because any default name could belong to another user
    # of the log-in service.
    claim = settings.OAUTH_NAME() if kind == "oauth" else settings.LTI_NAME()
    for ours in (c.CourseOAuthenticator, c.CourseLTIAuthenticator):
        ours.admin_users = {administrator_elsewhere(claim)} - {""}
    # The hub checks only at log-in whether users are still allowed, so require a log-in every day.
    c.JupyterHub.cookie_max_age_days = 1
    c.JupyterHub.token_expires_in_max_seconds = 24 * 3600
    service = import_module(f"tfcourse.hub.accounts.{kind}")  # slow to import
    service.configure(c)

"""A class's instructors: a group of users with some administrator rights.

Instructors create learners' accounts, with first passwords, approve and block learners, see their
attempts at exercises, collect and grade assignments, post announcements, and write to the folder
that all learners can read. Only administrators can manage servers, other passwords, and other
users' rights.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.scopes import define_custom_scopes, needs_scope
from jupyterhub.user import User

# Administrators add users to this group on the Admin page.
GROUP = "instructors"

SCOPE = "custom:instruct"
ABOUT = "Create, approve and block learners, see and grade their work, and post announcements."
define_custom_scopes({SCOPE: {"description": ABOUT}})
# A decorator that restricts handler methods to instructors and administrators.
needs_instructor = needs_scope(SCOPE, "admin:users")


def configure(c: Any) -> None:
    """Create the instructors' group and grant its rights."""
    c.JupyterHub.load_groups = {GROUP: {"users": []}}
    c.JupyterHub.load_roles.append({"name": "instructor", "scopes": [SCOPE], "groups": [GROUP]})
    c.JupyterHub.template_vars["instruct"] = SCOPE


def is_instructor(user: User) -> bool:
    """Return whether the user is an instructor or an administrator."""
    return user.admin or GROUP in [group.name for group in user.groups]

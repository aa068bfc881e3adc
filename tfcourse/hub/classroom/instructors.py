"""The class's instructors: what a group of the hub may do, beside its administrators.

They let learners in and shut them out, announce, and write to the folder that all learners read.
Servers, passwords and other people's rights are the administrators'.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.scopes import define_custom_scopes, needs_scope
from jupyterhub.user import User

# An administrator puts people into it, on the page Admin.
GROUP = "instructors"

SCOPE = "custom:instruct"
define_custom_scopes({SCOPE: {"description": "Let learners in, shut them out, and announce."}})
# In front of a handler's method: it is for instructors and administrators.
needs_instructor = needs_scope(SCOPE, "admin:users")


def configure(c: Any) -> None:
    """Make the group, and give it its rights."""
    c.JupyterHub.load_groups = {GROUP: {"users": []}}
    c.JupyterHub.load_roles.append({"name": "instructor", "scopes": [SCOPE], "groups": [GROUP]})
    c.JupyterHub.template_vars["instruct"] = SCOPE


def is_instructor(user: User) -> bool:
    """Tell whether somebody is an instructor or an administrator."""
    return user.admin or GROUP in [group.name for group in user.groups]

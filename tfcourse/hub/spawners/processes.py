"""Run a hub on a single computer, with JupyterHub's own proxy and extended classes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import traitlets
from jupyterhub.authenticators.shared import SharedPasswordAuthenticator
from jupyterhub.handlers import BaseHandler
from jupyterhub.spawner import SimpleLocalProcessSpawner
from tornado import web

from tfcourse.hub import database, pools, settings, state
from tfcourse.hub.accounts.sessions import MarkedServers, ending_sessions
from tfcourse.hub.classroom import assignments, grading, progress
from tfcourse.hub.front import pages
from tfcourse.hub.front.proxy import proxy_command
from tfcourse.hub.spawners import lessons, profiles

# A command with this prefix exits when the hub exits, even if the hub is killed. With -I and -S,
# Python imports nothing from its working directory (a learner's home directory), and little from
# elsewhere.
DIE_WITH_PARENT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("die_with_parent.py"))]

LESSONS_LIMIT = 20  # the time limit for copying the lessons, in seconds


def configure(c: Any, hub: Path) -> None:
    """Configure a hub for this machine's users; `hub` is the folder with the hub's own files."""
    # Accept connections only from this machine, because processes are not isolated from each other.
    port, hub_port, proxy_port = settings.ports()
    c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
    c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{hub_port}"
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_port}"
    database.configure(c, hub)

    # The proxy and the servers exit when the hub exits, even if the hub is killed, so their ports
    # are free when the hub starts again.
    c.ConfigurableHTTPProxy.command = [*DIE_WITH_PARENT, *proxy_command()]

    # Delete a killed run's PID file, because the hub would terminate any process that now has that
    # ID.
    c.ConfigurableHTTPProxy.pid_file = str(hub / "proxy.pid")
    (hub / "proxy.pid").unlink(missing_ok=True)

    # A single generated password is enough for people who share a machine, and keeps others out.
    c.JupyterHub.authenticator_class = LocalAuthenticator
    c.LocalAuthenticator.user_password = state.password(hub / "password")
    c.Authenticator.username_pattern = state.NAMES
    c.LocalAuthenticator.allow_all = True
    if settings.ADMIN.is_set:
        c.LocalAuthenticator.admin_users = {settings.ADMIN()}
        # JupyterHub requires administrator passwords of at least 32 characters.
        c.LocalAuthenticator.admin_password = state.password(hub / "admin-password", length=32)

    c.JupyterHub.spawner_class = LocalSpawner
    offered = [profile for profile in profiles.PROFILES if not profile.gpu]
    profiles.configure(c, traits_of, offered, unavailable={})
    homes = str(state.private_folder(state.state_folder() / "homes"))
    c.LocalSpawner.home_dir_template = homes.replace("{", "{{").replace("}", "}}") + "/{username}"
    c.Spawner.pre_spawn_hook = partial(bring_lessons, source=state.ROOT / "notebooks")
    # With -P, Python does not search this program's folder, whose files (such as names.py) could
    # hide modules of the same name.
    program = str(Path(__file__).with_name("singleuser.py"))
    c.Spawner.cmd = [*DIE_WITH_PARENT, sys.executable, "-P", program]

    # In many containers, Jupyter has to run as root, but it refuses to do so without this option.
    c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []

    # Servers do not inherit the hub's entire environment, but only the variables in `env_keep`.
    data = settings.KERAS_HOME() or state.state_folder() / "keras"
    c.Spawner.environment = {
        "KERAS_HOME": os.path.abspath(data),
        # Make `!pip` in a notebook and `python` in a terminal run the course's own programs.
        "PATH": f"{sys.prefix}/bin:{settings.for_a_program()['PATH']}",
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        **progress.environment(),
    }
    grading.options = [f"--image={profiles.IMAGE}:cpu"]  # in containers if there is Docker


def traits_of(profile: profiles.Profile) -> dict[str, Any]:
    """Return the profile's spawner traits. Only the number of processors can be limited."""
    return {"cpu_limit": profile.cpus}


def threads(spawner: LocalSpawner) -> str:
    """Return the number of TensorFlow threads in a learner's kernel."""
    return str(ceil(spawner.cpu_limit))


async def bring_lessons(spawner: LocalSpawner, source: Path) -> None:
    """Copy the lessons to the learner's home directory before the server starts.

    JupyterHub calls this function as `c.Spawner.pre_spawn_hook`. If lessons cannot be updated, the
    server still starts, and JupyterLab shows the learner why.
    """
    folder = Path(spawner.home_dir, lessons.FOLDER)
    work = pools.run(pools.HOMES, lessons.bring, source, folder)
    try:
        notices = await asyncio.wait_for(work, LESSONS_LIMIT)
    except OSError as error:
        reason = str(error) or f"copying them took more than {LESSONS_LIMIT} seconds"  # a timeout
        notices = [
            f"Your lessons are not up to date: {reason}. Restart your server; if this happens "
            "again, tell your instructor."
        ]
    for notice in notices:
        spawner.log.error("%s: %s", spawner.user.name, notice)
    spawner.environment = {**spawner.environment, "COURSE_NOTICES": json.dumps(notices)}


class LocalAuthenticator(MarkedServers, SharedPasswordAuthenticator):
    """An authenticator with one password for all learners."""

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the page handlers, including a log-out that ends all of a user's sessions."""
        pages = dict(super().get_handlers(app))
        pages["/logout"] = ending_sessions()
        return list({**pages, **assignments.handlers(app), **progress.handlers(app)}.items())

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> Any:
        """Return the user if the password is correct, or None.

        Raises
        ------
        HTTPError
            If the name is not a valid user name. The log-in form shows the message.
        """
        if not self.validate_username(self.normalize_username(data["username"])):
            raise web.HTTPError(403, state.NAMES_RULE)
        # compare_digest() raises TypeError for non-ASCII text, so the learner would see HTTP 500.
        return await super().authenticate(handler, data) if data["password"].isascii() else None


class LocalSpawner(SimpleLocalProcessSpawner):
    """A spawner that runs a process for each learner. The process exits when the hub exits."""

    # Accept any JSON from REST requests; `apply_user_options` rejects invalid options. JupyterHub's
    # own trait is a Dict, so a list would cause HTTP 500, and the learner could no longer start a
    # server.
    user_options = traitlets.Any({})

    progress = pages.progress

    def load_state(self, state: dict[str, Any]) -> None:
        """Forget an earlier run's process, because another program may now have its process ID.

        Otherwise, the hub would mistake the other program for the learner's server and terminate
        it.
        """

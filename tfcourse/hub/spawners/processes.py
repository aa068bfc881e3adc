"""A hub for one machine: JupyterHub's own classes and proxy with a few additions."""

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

from tfcourse.hub import database, pools, settings, state
from tfcourse.hub.accounts.sessions import ending_sessions
from tfcourse.hub.front import pages
from tfcourse.hub.front.proxy import proxy_command
from tfcourse.hub.spawners import lessons, profiles

# A command with this prefix ends with the hub, even if the hub is killed. With -I and -S, Python
# imports nothing from the folder where it starts (a learner's home), and little from elsewhere.
DIE_WITH_PARENT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("die_with_parent.py"))]

LESSONS_LIMIT = 20  # seconds to copy the lessons


def configure(c: Any, hub: Path) -> None:
    """Set up a hub for this machine's own users; `hub` is the folder with the hub's own files."""
    # Processes are not isolated from each other, so only this machine's users may connect.
    port, hub_port, proxy_port = settings.ports()
    c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
    c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{hub_port}"
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_port}"
    database.configure(c, hub)

    # The proxy and the servers end with the hub, even if the hub is killed, so their ports are free
    # at its next start.
    c.ConfigurableHTTPProxy.command = [*DIE_WITH_PARENT, *proxy_command()]

    # If a killed run left this file, the hub would end whichever process now has the id in it.
    c.ConfigurableHTTPProxy.pid_file = str(hub / "proxy.pid")
    (hub / "proxy.pid").unlink(missing_ok=True)

    # One generated password is enough for people who share a machine. No one else gets in.
    c.JupyterHub.authenticator_class = LocalAuthenticator
    c.LocalAuthenticator.user_password = state.password(hub / "password")
    c.Authenticator.username_pattern = state.NAMES
    c.LocalAuthenticator.allow_all = True
    if settings.ADMIN.is_set:
        c.LocalAuthenticator.admin_users = {settings.ADMIN()}
        # JupyterHub requires at least 32 characters.
        c.LocalAuthenticator.admin_password = state.password(hub / "admin-password", length=32)

    c.JupyterHub.spawner_class = LocalSpawner
    offered = [profile for profile in profiles.PROFILES if not profile.gpu]
    profiles.configure(c, traits_of, offered, unavailable={})
    homes = str(state.private_folder(state.state_folder() / "homes"))
    c.LocalSpawner.home_dir_template = homes.replace("{", "{{").replace("}", "}}") + "/{username}"
    c.Spawner.pre_spawn_hook = partial(bring_lessons, source=state.ROOT / "notebooks")
    c.Spawner.cmd = [*DIE_WITH_PARENT, f"{sys.prefix}/bin/jupyterhub-singleuser"]

    # In many containers, Jupyter must run as root, which it refuses without this option.
    c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []

    # JupyterHub chooses the rest of the environment (`env_keep`), so servers do not inherit all of
    # the hub's variables.
    data = settings.KERAS_HOME() or state.state_folder() / "keras"
    c.Spawner.environment = {
        "KERAS_HOME": os.path.abspath(data),
        # With this, `!pip` in a notebook and `python` in a terminal run the course's own programs.
        "PATH": f"{sys.prefix}/bin:{settings.for_a_program()['PATH']}",
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
    }


def traits_of(profile: profiles.Profile) -> dict[str, Any]:
    """Return the spawner's traits that the profile sets; a process has no other limits."""
    return {"cpu_limit": profile.cpus}


def threads(spawner: LocalSpawner) -> str:
    """Return how many threads TensorFlow starts in a learner's kernel."""
    return str(ceil(spawner.cpu_limit))


async def bring_lessons(spawner: LocalSpawner, source: Path) -> None:
    """Copy the lessons to the learner's home before the server starts.

    The hub calls this function as `c.Spawner.pre_spawn_hook`. Problems with the home do not keep
    the server from starting; JupyterLab shows the learner why lessons were not updated.
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


class LocalAuthenticator(SharedPasswordAuthenticator):
    """An authenticator with one password for all learners."""

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Return the pages, with a log-out that ends all of a user's sessions."""
        return [("/logout", ending_sessions()), *super().get_handlers(app)]

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> Any:
        """Return the user if the password is right, or None."""
        # compare_digest() raises TypeError for non-ASCII text, and the learner would see HTTP 500.
        return await super().authenticate(handler, data) if data["password"].isascii() else None


class LocalSpawner(SimpleLocalProcessSpawner):
    """A spawner that runs a process for each learner; the process ends with the hub."""

    # A REST request can contain any JSON, and `apply_user_options` refuses invalid options. With
    # JupyterHub's own trait, which is a Dict, a list would cause HTTP 500, and the learner could no
    # longer start a server.
    user_options = traitlets.Any({})

    progress = pages.progress

    def load_state(self, state: dict[str, Any]) -> None:
        """Forget the process of an earlier run, because another program may now have its id.

        Otherwise, the hub would mistake that program for the learner's server, and end it.
        """

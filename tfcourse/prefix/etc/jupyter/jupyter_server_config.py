"""Settings for all Jupyter servers in this environment."""

import asyncio
import contextlib
import functools
import json
import os
import sqlite3
import time
from datetime import UTC, datetime

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

STEP = 60  # seconds; a clock that is corrected by less has not jumped


class BusyIsActive(AsyncMappingKernelManager):
    """A kernel manager that treats busy kernels as active, even if they print nothing for hours.

    By default, a server tells the hub when a kernel last sent a message, so a hub that culls idle
    servers would stop a long training run.

    A clock that jumps makes no kernel idle: its recorded times are then of no use.
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
        """The time of the last activity of any kernel; now, if a kernel is busy."""
        if any(getattr(k, "execution_state", "") == "busy" for k in self._kernels.values()):
            self._last_kernel_activity = datetime.now(UTC)
        return self._last_kernel_activity

    @last_kernel_activity.setter
    def last_kernel_activity(self, when):
        self._last_kernel_activity = when


class Signatures(SQLiteSignatureStore):
    """A signature store that lets notebooks open when the disk is full, but marks them untrusted.

    When a notebook is opened, the default store writes a time stamp to its database. If this fails,
    the notebook does not open.
    """

    def check_signature(self, digest, algorithm):
        """Return whether a notebook is trusted; if the database cannot be written, return False."""
        with contextlib.suppress(sqlite3.OperationalError):
            return super().check_signature(digest, algorithm)
        return False

    def store_signature(self, digest, algorithm):
        """Mark a notebook as trusted, unless the database cannot be written."""
        with contextlib.suppress(sqlite3.OperationalError):
            super().store_signature(digest, algorithm)


class StillPictures(AsyncLargeFileManager):
    """A contents manager that saves widgets as pictures, if their outputs contain a picture.

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


SOCKETS_ASK = 30  # seconds between two questions of a WebSocket to the hub
SOCKETS_PATIENCE = 10  # refusals in a row, if the hub also refuses this server


def while_admitted(get):
    """Wrap a WebSocket's `get`, which lasts as long as the connection; close it after a log-out.

    Otherwise, a stolen session could use a terminal for as long as the thief does not close it.
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
    # JupyterLab also sends the token of the time when its page was opened, which may be outdated.
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
        # If the hub does not answer, the connection stays open. A hub without its database refuses
        # even this server, so give it time to find its database again.
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
c.NotebookNotary.store_factory = lambda: Signatures(f"{jupyter_data_dir()}/nbsignatures.db")

# Notices for the learner from `start-course` or the hub, which our JupyterLab extension shows.
notices = json.loads(os.environ.get("COURSE_NOTICES", "[]"))
c.ServerApp.tornado_settings = {
    "page_config_data": {"courseNotices": notices, "buildAvailable": False}
}
# JupyterHub does not mark a server's XSRF cookies as `secure`.
if os.environ.get("JUPYTERHUB_PUBLIC_URL", "").startswith("https:"):
    c.ServerApp.tornado_settings["xsrf_cookie_kwargs"] = {"secure": True}

# Disable two extensions that each use a tenth of the CPU time of a server start. No language server
# is installed for jupyter_lsp, and no extension for Notebook 6 or earlier needs notebook_shim.
c.ServerApp.jpserver_extensions = {"jupyter_lsp": False, "notebook_shim": False}

# Turn off features that no lesson needs: the extension manager installs from the internet,
# JupyterLab looks for news and updates there, the plugin manager can turn off parts of JupyterLab,
# and a build replaces its pages.
c.LabApp.extension_manager = "readonly"
c.LabApp.lock_all_plugins = True
BuildHandler.SUPPORTED_METHODS = ()
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"

if "JUPYTERHUB_API_TOKEN" in os.environ:  # a hub has started this server
    from jupyterhub.singleuser.extension import JupyterHubSingleUser  # takes a while otherwise

    # The number of seconds for which the server caches the hub's answer about who has access. After
    # that, a log-out from the hub also takes effect on this server. The default is five minutes.
    c.HubAuth.cache_max_age = 10

    # The server reports no activity before that of its last report. If the clock was ahead then,
    # it would report nothing anymore, and the hub would stop it.
    JupyterHubSingleUser._last_activity_sent = property(lambda self: None, lambda self, sent: None)

    # Serve nothing to people without access, not even static files, which include extensions that
    # the learner has installed.
    c.ServerApp.allow_unauthenticated_access = False
    FileFindHandler.get = members_only(FileFindHandler.get)
    FileFindHandler.head = members_only(FileFindHandler.head)

    # A log-out also closes open connections to kernels and terminals, within a minute.
    WebSocketHandler.get = while_admitted(WebSocketHandler.get)

# An open tab asks for kernels, files and memory use every few seconds, forever. These requests
# change nothing, so they do not count as activity. Saving a file counts, and so does output from a
# kernel or a terminal.
APIHandler._track_activity = property(lambda self: self.request.method not in ("GET", "HEAD"))
# Do not count workspace saves as activity: every ten seconds, an open tab saves its list of open
# documents.
WorkspacesHandler._track_activity = False

# JupyterLab requests the memory use when needed. By default, jupyter-resource-usage would also
# collect the memory use for Prometheus every second, but the hub already provides these metrics.
c.ResourceUseDisplay.enable_prometheus_metrics = False

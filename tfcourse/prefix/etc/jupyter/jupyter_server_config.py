"""Settings for every Jupyter server in this environment."""

import asyncio
import contextlib
import functools
import json
import os
import sqlite3
from datetime import UTC, datetime

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.base.handlers import APIHandler, FileFindHandler
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyterlab_server.workspaces_handler import WorkspacesHandler
from nbformat.sign import SQLiteSignatureStore
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler

c = get_config()  # noqa: F821 - Jupyter defines it


class BusyIsActive(AsyncMappingKernelManager):
    """A kernel manager that counts a busy kernel as active, even if it prints nothing for hours.

    By default, a server tells the hub when a kernel last sent a message, so a hub that culls idle
    servers would stop a long training run.
    """

    @property
    def last_kernel_activity(self):
        """The time at which a kernel was last active."""
        if any(getattr(k, "execution_state", "") == "busy" for k in self._kernels.values()):
            self._last_kernel_activity = datetime.now(UTC)
        return self._last_kernel_activity

    @last_kernel_activity.setter
    def last_kernel_activity(self, when):
        self._last_kernel_activity = when


class Signatures(SQLiteSignatureStore):
    """A signature store that lets notebooks open on a full disk, although as untrusted ones.

    The default store records when it last saw each notebook. If it cannot write that record, the
    notebook cannot be opened.
    """

    def check_signature(self, digest, algorithm):
        """Return whether a notebook is trusted."""
        with contextlib.suppress(sqlite3.OperationalError):
            return super().check_signature(digest, algorithm)
        return False

    def store_signature(self, digest, algorithm):
        """Record the notebook as trusted, if the disk has room."""
        with contextlib.suppress(sqlite3.OperationalError):
            super().store_signature(digest, algorithm)


class StillPictures(AsyncLargeFileManager):
    """A contents manager that saves only the picture of a live widget, if the widget has one.

    A stored widget view refers to a model in a kernel. When the notebook is opened again, with a
    new kernel or none, JupyterLab would show an error instead of the picture.
    """

    def run_pre_save_hooks(self, model, path, **kwargs):
        """Remove the views of widgets that have a picture before a notebook is written."""
        if model["type"] == "notebook":
            for cell in model["content"].get("cells", []):
                for output in cell.get("outputs", []):
                    if "image/png" in output.get("data", {}):
                        output["data"].pop("application/vnd.jupyter.widget-view+json", None)
        super().run_pre_save_hooks(model, path, **kwargs)


def members_only(method):
    """Wrap a handler's method, so that people without access to this server get HTTP 403."""

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

# The program that started this server passes notices for the learner, which our JupyterLab
# extension shows.
notices = json.loads(os.environ.get("COURSE_NOTICES", "[]"))
c.ServerApp.tornado_settings = {"page_config_data": {"courseNotices": notices}}
# JupyterHub does not mark a server's XSRF cookies as `secure`.
if os.environ.get("JUPYTERHUB_PUBLIC_URL", "").startswith("https:"):
    c.ServerApp.tornado_settings["xsrf_cookie_kwargs"] = {"secure": True}

# Turn off two extensions, each of which takes a tenth of the CPU time of a start. No language
# server is installed, and no installed extension was made for Notebook 6 or earlier.
c.ServerApp.jpserver_extensions = {"jupyter_lsp": False, "notebook_shim": False}

# Turn off features that no lesson needs: the extension manager installs from the internet, and
# JupyterLab looks for news and updates there.
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"

if "JUPYTERHUB_API_TOKEN" in os.environ:  # a hub has started this server
    # The number of seconds for which the server caches the hub's answer about who has access. After
    # that, a log-out from the hub also takes effect on this server. The default is five minutes.
    c.HubAuth.cache_max_age = 10

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
# Every ten seconds, the tab also saves its list of open documents. Such a save is not activity,
# either.
WorkspacesHandler._track_activity = False

# JupyterLab asks jupyter-resource-usage for the server's memory use when needed. That extension
# would also collect metrics for Prometheus every second, but the hub already has these metrics.
c.ResourceUseDisplay.enable_prometheus_metrics = False

"""Settings for every Jupyter server in this environment."""

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
from jupyterlab_server.workspaces_handler import WorkspacesHandler
from nbformat.sign import SQLiteSignatureStore
from tornado.web import HTTPError

c = get_config()  # noqa: F821 - Jupyter defines it

STEP = 60  # seconds; a clock that is corrected by less has not jumped


class BusyIsActive(AsyncMappingKernelManager):
    """A kernel manager that counts a busy kernel as active, even if it prints nothing for hours.

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

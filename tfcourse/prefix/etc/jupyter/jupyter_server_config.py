"""For every Jupyter server of this environment."""

import contextlib
import functools
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

c = get_config()  # noqa: F821 - Jupyter defines it


class BusyIsActive(AsyncMappingKernelManager):
    """Counts a kernel that computes as active, even if it prints nothing for hours.

    By itself a server tells the hub when a kernel has last said something, and a hub that stops
    idle servers would stop a long training.
    """

    @property
    def last_kernel_activity(self):
        """When a kernel was last active."""
        if any(getattr(k, "execution_state", "") == "busy" for k in self._kernels.values()):
            self._last_kernel_activity = datetime.now(UTC)
        return self._last_kernel_activity

    @last_kernel_activity.setter
    def last_kernel_activity(self, when):
        self._last_kernel_activity = when


class Signatures(SQLiteSignatureStore):
    """Opens notebooks on a full disk, too, if only as ones that are not trusted.

    By itself it writes down when it has last seen each, and one that it cannot write down cannot be
    opened.
    """

    def check_signature(self, digest, algorithm):
        """Tell whether a notebook is trusted."""
        with contextlib.suppress(sqlite3.OperationalError):
            return super().check_signature(digest, algorithm)
        return False

    def store_signature(self, digest, algorithm):
        """Record the notebook as trusted, if the disk has room."""
        with contextlib.suppress(sqlite3.OperationalError):
            super().store_signature(digest, algorithm)


class StillPictures(AsyncLargeFileManager):
    """Saves of a live widget its picture alone, where it has one.

    The view names a model in a kernel. When the notebook is opened again, with a new kernel or
    none, JupyterLab would show an error in its place, and not the picture.
    """

    def run_pre_save_hooks(self, model, path, **kwargs):
        """Take the views out of a notebook before it is written."""
        if model["type"] == "notebook":
            for cell in model["content"].get("cells", []):
                for output in cell.get("outputs", []):
                    if "image/png" in output.get("data", {}):
                        output["data"].pop("application/vnd.jupyter.widget-view+json", None)
        super().run_pre_save_hooks(model, path, **kwargs)


def members_only(method):
    """Have a handler's method answer 403 to whoever may not use this server."""

    @functools.wraps(method)
    def wrapped(self, *arguments, **named):
        if not self.current_user:
            raise HTTPError(403)
        return method(self, *arguments, **named)

    return wrapped


c.ServerApp.contents_manager_class = StillPictures
c.ServerApp.kernel_manager_class = BusyIsActive
c.NotebookNotary.store_factory = lambda: Signatures(f"{jupyter_data_dir()}/nbsignatures.db")

# No language server is installed, and nothing here was made for the Notebook before version 7. Each
# of these takes a tenth of a start's processor time.
c.ServerApp.jpserver_extensions = {"jupyter_lsp": False, "notebook_shim": False}

# What no lesson needs is off. A link to nbgitpuller's page changes files without asking, and only
# update-lessons uses it, as a program. The manager of extensions would install from the internet,
# and JupyterLab would look there for news.
c.ServerApp.jpserver_extensions["nbgitpuller"] = False
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"

if "JUPYTERHUB_API_TOKEN" in os.environ:  # a hub has started this server
    # For how many seconds an answer of the hub counts, on who may come in. After that, log-outs
    # and shut-outs take effect here, too. The default is five minutes.
    c.HubAuth.cache_max_age = 10

    # Whoever may not use this server gets nothing from it, not even a script or a style of its
    # extensions, which the learner may have written. The hub has pages for them.
    c.ServerApp.allow_unauthenticated_access = False
    FileFindHandler.get = members_only(FileFindHandler.get)
    FileFindHandler.head = members_only(FileFindHandler.head)

# A tab that is left open asks for kernels, files and memory every few seconds, for ever. Reading
# changes nothing, so it is no activity. Saving is, and so is what a kernel or a terminal says.
APIHandler._track_activity = property(lambda self: self.request.method not in ("GET", "HEAD"))
# The tab also writes down every ten seconds what is open in it.
WorkspacesHandler._track_activity = False

# JupyterLab shows the server's memory (jupyter-resource-usage), and asks for it when it needs it.
# Its figures for Prometheus would be gathered every second; the hub has them without that.
c.ResourceUseDisplay.enable_prometheus_metrics = False

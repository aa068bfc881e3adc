"""For every Jupyter server of this environment."""

import contextlib
import json
import os
import sqlite3
from datetime import UTC, datetime

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.base.handlers import APIHandler
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyterlab_server.workspaces_handler import WorkspacesHandler
from nbformat.sign import SQLiteSignatureStore

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


c.ServerApp.contents_manager_class = StillPictures
c.ServerApp.kernel_manager_class = BusyIsActive
c.NotebookNotary.store_factory = lambda: Signatures(f"{jupyter_data_dir()}/nbsignatures.db")

# What the learner has to know, from what started this server: our extension of JupyterLab shows it.
notices = json.loads(os.environ.get("COURSE_NOTICES", "[]"))
c.ServerApp.tornado_settings = {"page_config_data": {"courseNotices": notices}}

# No language server is installed, and nothing here was made for the Notebook before version 7. Each
# of these takes a tenth of a start's processor time.
c.ServerApp.jpserver_extensions = {"jupyter_lsp": False, "notebook_shim": False}

# A tab that is left open asks for kernels, files and memory every few seconds, for ever. Reading
# changes nothing, so it is no activity. Saving is, and so is what a kernel or a terminal says.
APIHandler._track_activity = property(lambda self: self.request.method not in ("GET", "HEAD"))
# The tab also writes down every ten seconds what is open in it.
WorkspacesHandler._track_activity = False

# JupyterLab shows the server's memory (jupyter-resource-usage), and asks for it when it needs it.
# Its figures for Prometheus would be gathered every second; the hub has them without that.
c.ResourceUseDisplay.enable_prometheus_metrics = False

"""For every Jupyter server of this environment."""

from datetime import UTC, datetime

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

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


c.ServerApp.kernel_manager_class = BusyIsActive

"""nbval's kernel, but with a learner's environment, its share of the cores, and a life to watch."""

from __future__ import annotations

import os
import signal
import time
from queue import Empty

from nbval.kernel import RunningKernel, start_new_kernel

# Between two looks at whether the kernel is alive.
SLICE = 0.5  # seconds


class KernelDiedError(Exception):
    """The kernel's process ended while a cell was running, or before."""


class LessonKernel(RunningKernel):
    """A running kernel.

    Parameters
    ----------
    kernel_name, cwd, startup_timeout
        As nbval has them.
    threads
        How many threads the kernel's libraries may use; None leaves that to them.
    """

    def __init__(self, kernel_name: str, cwd: str, startup_timeout: float, threads: int | None):
        self.km, self.kc = start_new_kernel(
            startup_timeout=startup_timeout,
            kernel_name=kernel_name,
            stderr=open(os.devnull, "w"),  # noqa: SIM115 - the kernel's, as long as it lives
            cwd=cwd,
            env=environment(threads),
        )
        self._ensure_iopub_up()

    request: str | None = None  # the id of the last request to execute

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> str:
        """Have the kernel run a cell; return the id of the request, and remember it."""
        self.request = super().execute_cell_input(cell_input, allow_stdin)
        return self.request

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        """Return the next message.

        Raises
        ------
        Empty
            After `timeout` seconds without one.
        KernelDiedError
            As soon as there is no kernel that could send one.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            try:
                return super().get_message(stream, timeout=max(left, 0))
            except Empty:
                if not self.is_alive():
                    raise KernelDiedError(self.epitaph()) from None
                if end is not None and time.monotonic() >= end:
                    raise

    def epitaph(self) -> str:
        """Say how the kernel's process ended."""
        code = self.km.provisioner.process.poll()
        if code is None or code >= 0:
            return f"The kernel's process ended (exit code {code})."
        what = f"The kernel's process was ended by {signal.Signals(-code).name}."
        if code == -signal.SIGKILL:
            what += " If nobody killed it, the machine ran out of memory."
        return what

    def stop(self) -> None:
        """Stop the kernel; a second call, or one after its death, does nothing."""
        if hasattr(self, "km"):
            super().stop()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(threads: int | None = None) -> dict[str, str]:
    """Return a kernel's environment: ours, without pytest's, with a number of threads."""
    kernel = dict(os.environ)
    # ipykernel changes how it captures output where it sees this variable.
    kernel.pop("PYTEST_CURRENT_TEST", None)
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            kernel.setdefault(name, str(threads))
    return kernel

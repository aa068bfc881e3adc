"""Run a notebook's cells, one at a time, in a fresh kernel with a clean environment.

`execute`, which stores outputs, and the plugin, which compares them, both use this module, so
stored and new outputs are produced in the same way. The cells are run by nbclient, because nbval's
own loop ignores `clear_output` and display updates. nbval's loop also runs cells without history,
so `plt.plot(x);` shows what the semicolon should hide, and always waits 5 s for outputs, regardless
of the options.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel, find_kernel_specs
from jupyter_core.utils import ensure_async, ensure_event_loop, run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from nbval_tolerance import alt

CELL_TIMEOUT = 300.0  # Seconds.
STARTUP_TIMEOUT = 60.0  # Seconds.
# How long to wait for a cell's last output after the cell has finished. nbclient's default of 4 s
# is too short on a busy machine.
OUTPUT_TIMEOUT = 30.0  # seconds

# The environment variables that a kernel inherits. These variables locate programs, data and
# certificates, and affect how libraries compute. Other variables, set by a shell, an editor or a CI
# service, could change what a notebook shows: MPLBACKEND=agg suppresses every figure,
# PYTEST_CURRENT_TEST makes ipykernel capture other output, and COLUMNS changes where lines break.
INHERITED = (
    *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LC_*"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUTF8"),
    "PYTHONHASHSEED",
    *("VIRTUAL_ENV", "CONDA_PREFIX", "JUPYTER_*", "XDG_*", "JAVA_HOME"),
    *("KERAS_HOME", "HF_HOME", "TORCH_HOME", "SCIKIT_LEARN_DATA", "NLTK_DATA", "TFDS_DATA_DIR"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "CUDA_*", "NVIDIA_*", "ROCR_*", "HIP_*"),
    *(
        "OMP_*",
        "OPENBLAS_*",
        "MKL_*",
        "VECLIB_*",
        "NUMEXPR_*",
        "NPY_*",
        "ONEDNN_*",
        "XLA_*",
        "TF_*",
    ),
    *("*_proxy", "*_PROXY", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("SYSTEMROOT", "COMSPEC", "PATHEXT", "WINDIR", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA"),
    *("HOMEDRIVE", "HOMEPATH", "USERPROFILE", "USERNAME"),
)
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

# Hide the log of nbclient and the kernel manager: every problem that they log also raises an
# exception.
LOG = logging.getLogger(__name__)
LOG.setLevel(logging.CRITICAL)


def chance_state(variables):
    """Return a string that changes when a random number is drawn or a variable is created.

    The kernel executes only the source of this function (see `STATE`), so the function must be
    self-contained. The result depends on the states of the libraries' global random generators and
    of generators in variables.

    Parameters
    ----------
    variables
        A kernel's global variables, by name.
    """
    import hashlib
    import random
    import sys

    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    getters = [(random.Random, lambda each: each.getstate())]
    states = [sorted(variables), random.getstate()]
    if hasattr(numpy, "random"):
        states.append(numpy.random.get_state())
        getters.append((numpy.random.Generator, lambda each: each.bit_generator.state))
        getters.append((numpy.random.RandomState, lambda each: each.get_state()))
        getters.append((numpy.random.BitGenerator, lambda each: each.state))
    if hasattr(torch, "Generator"):
        states.append(torch.get_rng_state().tolist())
        getters.append((torch.Generator, lambda each: each.get_state().tolist()))
    for name, value in sorted(variables.items()):
        for kind, state_of in getters:
            # Do not use `isinstance`, because it might run code that the object defines.
            if issubclass(type(value), kind):
                try:
                    states.append((name, state_of(value)))
                except Exception:  # for example `random.SystemRandom`, which has no state
                    states.append(name)
    return hashlib.sha256(repr(states).encode()).hexdigest()


# An expression that is evaluated before and after a cell's probes.
STATE = (
    f"(lambda here: __import__('builtins').exec({inspect.getsource(chance_state)!r}, here) "
    "or here['chance_state'](globals()))({})"
)


class NoKernelError(Exception):
    """No kernel has the requested name; `other` is the name of a kernel that might work."""

    def __init__(self, name: str):
        installed = sorted(find_kernel_specs())
        self.other = "python3" if "python3" in installed or not installed else installed[0]
        listed = ", ".join(installed) or "none"
        super().__init__(f"no kernel {name!r} is installed; installed: {listed}")


class KernelDiedError(Exception):
    """The kernel's process terminated before or during a cell; the message says how."""


class ProbeError(Exception):
    """A probe cannot be evaluated, or has side effects; the message names the probe."""


class Runner:
    """Runs the cells of one notebook in a kernel, which starts when the first cell is run.

    Parameters
    ----------
    notebook
        The notebook, whose outputs and execution counts are changed in place as its cells run.
    folder
        The kernel's working directory.
    kernel_name
        The kernel to use instead of the kernel in the notebook's metadata.
    cell_timeout, startup_timeout, output_timeout
        Time limits in seconds: for running a cell, for starting the kernel, and for receiving the
        last output after a cell has finished.
    threads
        How many threads the kernel's libraries may use; if None, the libraries choose.
    environment
        Additional variables that the kernel inherits, in the format of `Config.environment`.
    """

    def __init__(
        self,
        notebook: NotebookNode,
        folder: Path,
        *,
        kernel_name: str = "",
        cell_timeout: float = CELL_TIMEOUT,
        startup_timeout: float = STARTUP_TIMEOUT,
        output_timeout: float = OUTPUT_TIMEOUT,
        threads: int | None = None,
        environment: Iterable[str] = (),
    ):
        self.notebook = notebook
        self.environment = kernel_environment(os.environ, environment, threads)
        self.seconds = self.cell_timeout = cell_timeout
        self.output_timeout = output_timeout
        self.client = NotebookClient(
            notebook,
            kernel_name=kernel_name,
            timeout_func=lambda cell: self.seconds,
            startup_timeout=max(round(startup_timeout), 1),
            shell_timeout_interval=1,
            iopub_timeout=max(round(output_timeout), 1),
            raise_on_iopub_timeout=True,
            allow_errors=True,
            record_timing=False,
            shutdown_kernel="immediate",
            log=LOG,
            resources={"metadata": {"path": str(folder)}},
        )
        self.stack = contextlib.ExitStack()
        self.process: Any = None  # the kernel's process, once it has started

    def start(self) -> None:
        """Start the kernel unless it is already running.

        Raises
        ------
        NoKernelError
            If no kernel has the requested name.
        KernelDiedError
            If the kernel does not start, or does not answer in time.
        """
        if self.process is not None:
            return
        # Use a temporary folder, because IPython would otherwise read the user's settings and write
        # to the user's history.
        own = self.stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        environment = {"IPYTHONDIR": own, "MPLCONFIGDIR": matplotlib_folder(own)}
        # Discard output that bypasses Jupyter, such as TensorFlow's log, because it would mix with
        # this program's own output.
        setup = self.client.setup_kernel(
            stderr=subprocess.DEVNULL, env=environment | self.environment
        )
        manager = self.client.create_kernel_manager()
        manager.log = LOG
        try:
            self.stack.enter_context(setup)
        except NoSuchKernel as error:
            raise NoKernelError(error.name) from None
        except (OSError, RuntimeError) as error:
            name = manager.kernel_name
            raise KernelDiedError(f"The kernel {name!r} does not start: {error}") from None
        self.process = self.client.km.provisioner.process

    def stop(self) -> None:
        """Stop the kernel unless it has already stopped or died."""
        self.stack.close()

    def run(self, index: int, seconds: float | None = None) -> NotebookNode:
        """Run a cell and return it with its outputs, one of which may be an error.

        The alternative text in the cell's metadata is copied to its figures.

        Parameters
        ----------
        index
            The cell's position among all cells of the notebook, starting at 0.
        seconds
            The cell's time limit, if it differs from the notebook's.

        Raises
        ------
        TimeoutError
            If the cell does not finish in time, or its outputs do not arrive in time.
        KernelDiedError
            If the kernel's process terminates.
        """
        self.start()
        self.seconds = seconds or self.cell_timeout
        cell = self.notebook.cells[index]
        try:
            self.client.execute_cell(cell, index)
        except DeadKernelError:
            raise KernelDiedError(self.epitaph()) from None
        except CellTimeoutError as error:
            if "IOPub" in str(error):
                raise TimeoutError(
                    f"ended, but its outputs did not arrive within {self.output_timeout:g} s"
                ) from None
            raise TimeoutError(
                f"still running after {self.seconds:g} s, and was interrupted"
            ) from None
        except KeyboardInterrupt:
            # Cancel nbclient's tasks, which would otherwise continue while the kernel stops, and
            # retrieve their exceptions, which asyncio would otherwise print.
            for task in asyncio.all_tasks(ensure_event_loop()):
                task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                task.cancel()
            raise
        alt.put(cell)
        return cell

    def evaluate(self, expressions: Mapping[str, str]) -> dict[str, str]:
        """Return the values of expressions as the kernel would print them, but display nothing.

        Parameters
        ----------
        expressions
            Name -> Python expression.

        Raises
        ------
        ProbeError
            If an expression raises an exception or prints something.
        TimeoutError
            If an expression does not finish within the time limit of the last cell that was run.
        KernelDiedError
            If an expression terminates the kernel's process.
        """
        values = {}
        for name, expression in expressions.items():  # one at a time, to know which probe fails
            reply, printed = self._ask(name, expression)
            if printed:
                raise ProbeError(f"probe {name!r} prints: {printed[:200]!r}")
            if reply["status"] != "ok":
                raise ProbeError(f"probe {name!r} raised {reply['ename']}: {reply['evalue']}")
            values[name] = reply["data"].get("text/plain", "")
        return values

    def evaluate_twice(self, expressions: Mapping[str, str]) -> dict[str, str]:
        """Like `evaluate`, return the values of expressions, but also check for side effects.

        Raises
        ------
        ProbeError
            For the same reasons as in `evaluate`, and also if a second evaluation returns a
            different value, or if the first evaluation drew random numbers or created a variable.
            Such side effects would change the output of later cells.
        """
        before, _ = self._ask("", STATE)
        values = self.evaluate(expressions)
        after, _ = self._ask("", STATE)
        again = self.evaluate(expressions)
        for name, value in values.items():
            if value != again[name]:
                raise ProbeError(
                    f"probe {name!r} returns another value each time: first {value!r}, then "
                    f"{again[name]!r}. Assign the value to a variable in the cell, and probe that"
                )
        if before != after:
            listed = ", ".join(map(repr, values))
            which = f"probe {listed}" if len(values) == 1 else f"one of the probes {listed}"
            raise ProbeError(
                f"{which} draws random numbers or creates a variable, which changes what later "
                "cells do"
            )
        return values

    def _ask(self, name: str, expression: str) -> tuple[dict, str]:
        """Return the kernel's reply to a probe's expression, and any text printed meanwhile."""
        try:
            return self._reply(expression)
        except CellTimeoutError:
            raise TimeoutError(
                f"probe {name!r} is still running after {self.seconds:g} s, the cell's time limit"
            ) from None
        except Empty:
            raise ProbeError(f"probe {name!r} ended, but the kernel did not report it") from None
        except DeadKernelError:
            raise KernelDiedError(f"probe {name!r}: {self.epitaph()}") from None

    @run_sync
    async def _reply(self, expression: str) -> tuple[dict, str]:
        """Return the kernel's reply to an expression, and any text printed meanwhile."""
        kernel = self.client.kc
        request = kernel.execute(
            "", silent=True, store_history=False, user_expressions={"": expression}
        )
        # nbclient supports time limits only for cells, so wrap the expression in a cell.
        reply = await self.client.async_wait_for_reply(request, NotebookNode(source=expression))
        printed, idle = "", False
        while not idle:
            message = await ensure_async(kernel.get_iopub_msg(timeout=self.output_timeout))
            if message["parent_header"].get("msg_id") == request:
                content = message["content"]
                printed += content.get("text", "") if message["msg_type"] == "stream" else ""
                idle = content.get("execution_state") == "idle"
        replies = reply["content"].get("user_expressions", {})
        unknown = {"status": "error", "ename": "an error", "evalue": "not supported by this kernel"}
        return replies.get("", unknown), printed

    def epitaph(self) -> str:
        """Return a message that says how the kernel's process terminated."""
        code = self.process.poll()
        if code is None or code >= 0:
            return f"The kernel's process ended (exit code {code})."
        what = f"The kernel's process was ended by {signal.Signals(-code).name}."
        if code == -signal.SIGKILL:
            what += " Unless someone killed the process, the host ran out of memory."
        return what

    # nbval's coverage measurement needs the following members.

    @property
    def kc(self):
        """Return the client."""
        return self.client.kc

    @property
    def language(self) -> str:
        """Return the kernel's language."""
        return self.client.km.kernel_spec.language

    def await_idle(self, request: str, timeout: float) -> None:
        """Wait until the kernel has finished a request."""
        self.seconds = timeout
        self.client.wait_for_reply(request, NotebookNode(source=""))


def kernel_environment(
    ours: Mapping[str, str], more: Iterable[str] = (), threads: int | None = None
) -> dict[str, str]:
    """Return the environment variables of a kernel, with fixed string hashes by default.

    Parameters
    ----------
    ours
        The environment variables of this process.
    more
        Names or `NAME=value`, in addition to `INHERITED`. In a name, `*` matches any characters.
    threads
        How many threads numerical libraries may use, unless a variable in `THREADS` already sets
        this number.
    """
    names = [*INHERITED, *(name for name in more if "=" not in name)]
    kernel = {k: v for k, v in ours.items() if any(fnmatchcase(k, name) for name in names)}
    kernel |= dict(setting.split("=", 1) for setting in more if "=" in setting)
    kernel.setdefault("PYTHONHASHSEED", "0")  # keeps sets of strings in the same order in each run
    if threads is not None:
        for name in THREADS:
            kernel.setdefault(name, str(threads))
    return kernel


def matplotlib_folder(otherwise: str) -> str:
    """Return a folder that contains Matplotlib's font cache but no user settings.

    Building the font cache takes seconds, so later runs reuse the folder. If the folder is not
    writable, return `otherwise`, because Matplotlib would print a warning.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "nbval-tolerance" / "matplotlib"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except OSError:
        return otherwise


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Run a command in its own process, and kill it and its descendants if they exceed a limit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil

LOOK = 0.1  # seconds between two checks of what a command uses
PROCESSES = 64  # how many may run at a time
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def run(
    command: list[str],
    stdin: str,
    *,
    cwd: str,
    env: dict[str, str],
    seconds: float,
    memory: int,
) -> tuple[str, str]:
    """Run a command, and kill it and its descendants if they use too much.

    Parameters
    ----------
    command, stdin, cwd, env
        As for `subprocess`; the input is text.
    seconds
        How long it may take.
    memory
        How many bytes of memory all its processes may hold together.

    Returns
    -------
    tuple of str
        What it printed, and why it was stopped (empty if it was not).
    """
    adopt_orphans()
    others = set(psutil.Process().children(recursive=True))
    kind = {"mode": "w+", "encoding": "utf-8", "errors": "replace"}  # it may print any bytes
    with tempfile.TemporaryFile(**kind) as given, tempfile.TemporaryFile(**kind) as printed:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=printed,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        try:
            reason = watch(process, time.monotonic() + seconds, memory, others)
        finally:
            end(others)
        process.wait()
        printed.seek(0)
        return printed.read(), reason.format(seconds=seconds)


def watch(process: subprocess.Popen, deadline: float, memory: int, others: set) -> str:
    """Wait for a process; return why it must be stopped, or "" if it ends on its own."""
    while process.poll() is None:
        if time.monotonic() > deadline:
            return "still running after {seconds:g} s"
        running = set(psutil.Process().children(recursive=True)) - others
        if len(running) > PROCESSES:
            return f"started more than {PROCESSES} processes"
        held = 0
        for each in running:
            with contextlib.suppress(psutil.Error):
                found = each.memory_full_info()
                held += getattr(found, "pss", found.rss)  # forks' shared memory counts once (Linux)
        if held > memory:
            return f"held more than {memory / 2**30:.1f} GB of memory"
        time.sleep(LOOK)
    return ""


def end(others: set) -> None:
    """Kill all descendants but `others`, in whole groups to be faster than a fork bomb."""
    while left := set(psutil.Process().children(recursive=True)) - others:
        for each in left:
            with contextlib.suppress(OSError):
                group = os.getpgid(each.pid)
                if group != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
                else:
                    each.kill()
        for each in left:
            with contextlib.suppress(OSError):
                os.waitpid(each.pid, os.WNOHANG)  # we must reap the orphans
        time.sleep(0.01)


def adopt_orphans() -> None:
    """Become the parent of orphaned processes, so none of them can escape (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

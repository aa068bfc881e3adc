"""Run a command with limits on its time, memory, processes and output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

# Read the worker's source code before a submission can change the file.
WORKER = Path(__file__).with_name("worker.py").read_text()
LOOK = 0.1  # seconds between checks of the limits
PROCESSES = 64  # the maximum number of concurrent processes that a command can run
PRINTED = 1_000_000  # bytes; the output limit (a worker prints one line per exercise)
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass
class Ended:
    """How a command ended."""

    printed: str
    stopped: str  # the reason why the command was stopped, or "" if it was not
    code: int
    complained: str  # the beginning of the command's stderr


def run(
    command: list[str],
    job: str,
    *,
    cwd: str,
    env: dict[str, str],
    seconds: float,
    memory: int,
) -> Ended:
    """Run a command; kill it and its descendants when it finishes or exceeds a limit.

    Parameters
    ----------
    command, cwd, env
        As in `subprocess.Popen`.
    job
        The first line to write to the command's stdin. The pipe then remains open, so that the
        command can detect when this process exits.
    seconds
        The time limit for the command.
    memory
        The limit, in bytes, for the total memory of the command's processes.
    """
    adopt_orphans()
    others = set(psutil.Process().children(recursive=True))
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=complained,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        try:
            threading.Thread(target=give, args=(process.stdin, job), daemon=True).start()
            stopped = watch(process, [printed, complained], seconds, memory, others)
        finally:
            end(others)
        process.wait()
        texts = [beginning(file) for file in (printed, complained)]
        return Ended(texts[0], stopped, process.returncode, texts[1])


def give(pipe: IO[bytes], job: str) -> None:
    """Write a job to a process's stdin; do nothing if the process has already exited."""
    with contextlib.suppress(OSError):
        pipe.write(f"{job}\n".encode())
        pipe.flush()


def beginning(file: IO[bytes]) -> str:
    """Return the beginning of a file as text, replacing invalid bytes."""
    file.seek(0)
    return file.read(PRINTED).decode(errors="replace")


def watch(
    process: subprocess.Popen, files: list[IO[bytes]], seconds: float, memory: int, others: set
) -> str:
    """Wait until a process exits or exceeds a limit; return the reason for stopping it, or ""."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"still running after {seconds:g} s in all"
        if any(os.fstat(file.fileno()).st_size > PRINTED for file in files):
            return f"its worker printed more than {PRINTED // 10**6} MB"
        running = set(psutil.Process().children(recursive=True)) - others
        if len(running) > PROCESSES:
            return f"started more than {PROCESSES} processes"
        if sum(map(held, running)) > memory:
            return f"held more than {memory / 2**30:.1f} GB of memory"
        time.sleep(LOOK)
    return ""


def held(process: psutil.Process) -> int:
    """Return a process's memory use in bytes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            found = process.memory_full_info()
        except psutil.AccessDenied:  # the worker: see `worker.withdraw`
            found = process.memory_info()
        return getattr(found, "pss", found.rss)  # on Linux, shared memory is counted only once
    return 0


def end(others: set) -> None:
    """Kill all descendants except `others`, by process group, to outpace a fork bomb."""
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
                os.waitpid(each.pid, os.WNOHANG)  # reap adopted orphans
        time.sleep(0.01)


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that they can be killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

"""Run a command in its own process, and kill it and its descendants if they exceed a limit."""

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

# The worker's code, read before any submission could change the file.
WORKER = Path(__file__).with_name("worker.py").read_text()
LOOK = 0.1  # seconds between two checks of a command's usage
PROCESSES = 64  # the limit of a command's simultaneous processes
PRINTED = 1_000_000  # bytes; a worker prints a line for each exercise
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass
class Ended:
    """How a command ended."""

    printed: str
    stopped: str  # why it was stopped; empty if it was not
    code: int
    complained: str  # the beginning of what it wrote to stderr


def run(
    command: list[str],
    job: str,
    *,
    cwd: str,
    env: dict[str, str],
    seconds: float,
    memory: int,
) -> Ended:
    """Run a command, and kill it and its descendants if they exceed a limit.

    Parameters
    ----------
    command, cwd, env
        As for `subprocess`.
    job
        The first line of the command's stdin, which stays open until the command has to end. The
        command can therefore detect that this process has ended.
    seconds
        The command's time limit.
    memory
        The memory limit for all of the command's processes together, in bytes.
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
    """Write a job to a process, unless the process has already ended."""
    with contextlib.suppress(OSError):
        pipe.write(f"{job}\n".encode())
        pipe.flush()


def beginning(file: IO[bytes]) -> str:
    """Return the beginning of a file as text; the file can contain any bytes."""
    file.seek(0)
    return file.read(PRINTED).decode(errors="replace")


def watch(
    process: subprocess.Popen, files: list[IO[bytes]], seconds: float, memory: int, others: set
) -> str:
    """Wait for a process; return why it must be stopped, or "" if it ends on its own."""
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
    """Return how many bytes of memory a process holds."""
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            found = process.memory_full_info()
        except psutil.AccessDenied:  # the worker: see `worker.withdraw`
            found = process.memory_info()
        return getattr(found, "pss", found.rss)  # memory shared by forks counts once (Linux)
    return 0


def end(others: set) -> None:
    """Kill all descendants except `others`, by process group, to be faster than a fork bomb."""
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
    """Make this process adopt orphaned descendants, so that none can escape (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

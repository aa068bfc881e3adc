"""Run a submission's job without Docker, in less isolated processes of this account."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tfcourse.grading import limits, worker

# The variables that a submission gets from our environment. None of them holds a secret.
INHERITED = ("PATH", "LANG", "LC_ALL", "TF_ENABLE_ONEDNN_OPTS")
PROCESSES = 1024  # processes and threads, in addition to those that this account has now
# Makes the worker the first process of its own PID namespace, which ends with the worker. A
# submission in the namespace cannot see or kill the grader, and "nobody" has no rights over
# processes that root started in the namespace.
APART = "unshare --user --map-user=65534 --map-group=65534 --pid --fork --kill-child --mount-proc"


def run(job: dict) -> limits.Ended:
    """Run a job of `grader.grade`; return what its worker printed."""
    worker.withdraw()
    python = [sys.executable, "-I", "-c"]
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as scratch:
        return limits.run(
            [*apart(), *python, limits.WORKER],
            json.dumps({**job, "processes": running() + PROCESSES}),
            cwd=scratch,
            env=environment(Path(scratch)),
            seconds=job["total"],
            memory=job["memory"],
        )


@functools.cache
def apart() -> tuple[str, ...]:
    """Return the prefix that starts a command in its own PID namespace, or () if forbidden."""
    command = tuple(APART.split())
    try:
        tried = subprocess.run(
            [*command, sys.executable, "-I", "-c", "import nbclient"], capture_output=True
        )
    except OSError:
        return ()
    return () if tried.returncode else command


def running() -> int:
    """Return how many processes and threads this account has; the system limits their sum."""
    mine = psutil.Process().uids().real
    found = [process.info for process in psutil.process_iter(["uids", "num_threads"])]
    return sum(each["num_threads"] or 0 for each in found if each["uids"].real == mine)


def environment(scratch: Path) -> dict[str, str]:
    """Return a submission's environment variables, with its own home and a copy of the data."""
    keras = scratch / "keras"
    source = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    if source.is_dir():
        shutil.copytree(source, keras / "datasets")
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    places = {name: str(scratch) for name in ("HOME", "TMPDIR", "JUPYTER_RUNTIME_DIR")}
    # With this seed, the hidden cases are the same for everyone.
    return {**kept, **places, "KERAS_HOME": str(keras), "CHECK_SEED": "1"}

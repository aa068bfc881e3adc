"""Run submissions without Docker, as processes of this user account, which are less isolated."""

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

# Environment variables that submissions inherit; none of them contains a secret.
INHERITED = ("PATH", "LANG", "LC_ALL", "TF_ENABLE_ONEDNN_OPTS")
PROCESSES = 1024  # the maximum number of threads in addition to the account's current ones
# Make the worker the first process of a new PID namespace, which ends when the worker exits. A
# submission in the namespace cannot see or kill the grader. If root runs the grader, the submission
# still runs as "nobody", without permissions on root's processes.
APART = "unshare --user --map-user=65534 --map-group=65534 --pid --fork --kill-child --mount-proc"


def run(job: dict) -> limits.Ended:
    """Run a job from `grader.grade` in a local process; return its worker's output."""
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
    """Return a command prefix that creates a PID namespace, or () if namespaces are unavailable."""
    command = tuple(APART.split())
    try:
        tried = subprocess.run(
            [*command, sys.executable, "-I", "-c", "import nbclient"], capture_output=True
        )
    except OSError:
        return ()
    return () if tried.returncode else command


def running() -> int:
    """Return the number of this account's threads, which RLIMIT_NPROC counts as processes."""
    mine = psutil.Process().uids().real
    found = [process.info for process in psutil.process_iter(["uids", "num_threads"])]
    return sum(each["num_threads"] or 0 for each in found if each["uids"].real == mine)


def environment(scratch: Path) -> dict[str, str]:
    """Return environment variables for a submission, with a separate HOME and copied data sets."""
    keras = scratch / "keras"
    source = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    if source.is_dir():
        shutil.copytree(source, keras / "datasets")
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    places = {name: str(scratch) for name in ("HOME", "TMPDIR", "JUPYTER_RUNTIME_DIR")}
    # CHECK_SEED makes the hidden test cases the same for everyone.
    return {**kept, **places, "KERAS_HOME": str(keras), "CHECK_SEED": "1"}

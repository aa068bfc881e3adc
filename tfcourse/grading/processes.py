"""Run submissions without Docker, as processes of this user account, which are less isolated."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import psutil

from tfcourse.grading import limits, worker

# Environment variables that submissions inherit; none of them contains a secret.
INHERITED = ("LANG", "LC_ALL", "TF_ENABLE_ONEDNN_OPTS")
PROCESSES = 1024  # the maximum number of threads in addition to the account's current ones
# Make the worker the first process of a new PID namespace, which ends when the worker exits. A
# submission in the namespace cannot see or kill the grader. If root runs the grader, the submission
# still runs as "nobody", without permissions on root's processes.
APART = "unshare --user --map-user=65534 --map-group=65534 --pid --fork --kill-child --mount-proc"


def run(job: dict) -> limits.Ended:
    """Run a job from `grader.grade` in a local process; return its worker's output."""
    worker.withdraw()
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as scratch:
        packages = Path(scratch, ".venv")
        make_venv(packages)
        return limits.run(
            [*apart(), str(packages / "bin" / "python"), "-I", "-c", limits.WORKER],
            json.dumps({**job, "processes": running() + PROCESSES}),
            cwd=scratch,
            env=environment(Path(scratch), packages),
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


def make_venv(folder: Path) -> None:
    """Create a virtual environment that contains all of our packages.

    If a submission installs packages, for example with `%pip install`, they go to this environment,
    so that the next submission does not find them.
    """
    venv.create(folder, symlinks=True)
    for part in ("etc", "share/jupyter/kernels"):
        shutil.copytree(Path(sys.prefix, part), folder / part, dirs_exist_ok=True)
    ours, theirs = (
        sysconfig.get_path("purelib", "venv", {"base": prefix})
        for prefix in (sys.prefix, str(folder))
    )
    Path(theirs, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    # Our own `pip` command would change our environment.
    for name in ("pip", "pip3"):
        script = folder / "bin" / name
        script.write_text('#!/bin/sh\nexec "${0%/*}/python" -m pip "$@"\n')
        script.chmod(0o755)


def environment(scratch: Path, packages: Path) -> dict[str, str]:
    """Return environment variables for a submission, with a separate HOME and copied data sets."""
    keras = scratch / "keras"
    source = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    if source.is_dir():
        shutil.copytree(source, keras / "datasets")
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    kept["PATH"] = os.pathsep.join([str(packages / "bin"), os.environ.get("PATH", os.defpath)])
    places = {name: str(scratch) for name in ("HOME", "TMPDIR", "JUPYTER_RUNTIME_DIR")}
    places |= {"KERAS_HOME": str(keras), "VIRTUAL_ENV": str(packages)}
    # CHECK_SEED makes the hidden test cases the same for everyone.
    return {**kept, **places, "CHECK_SEED": "1"}

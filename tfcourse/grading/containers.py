"""Run submissions in containers of the learners' image, without access to the host's files."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess

from tfcourse.grading import limits

IMAGE = "tensorflow-course:cpu"
LABEL = "tensorflow-course.grading"
NOBODY = "65534:65534"
FAILED = 125  # the Docker client's exit code for errors of Docker itself

# Create a writable folder for Keras with a link to the data sets, because Keras ignores KERAS_HOME
# if it is read-only. `exec` makes the worker the container's first process (PID 1), which other
# processes in the container cannot kill.
START = """
mkdir /tmp/keras && ln -s "$KERAS_HOME/datasets" /tmp/keras && export KERAS_HOME=/tmp/keras
exec python3 -I -c "$0"
"""


class EngineError(Exception):
    """Raised if Docker failed, so that no submission can be graded."""


def missing(image: str = IMAGE) -> str:
    """Return the reason why containers of an image cannot run, or "" if they can."""
    try:
        if (found := docker("version")).returncode:
            return f"no Docker engine answers ({last_line(found.stderr)})"
        if docker("image", "inspect", image).returncode:
            return f"there is no image {image} (`make images KINDS=cpu` builds it)"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Docker cannot be used ({error})"
    return ""


def run(job: dict, image: str = IMAGE) -> limits.Ended:
    """Run a job from `grader.grade` in a container; return its worker's output.

    The worker exits when its stdin is closed, which happens even if this process is killed. The
    container then stops, and Docker removes it.

    Raises
    ------
    EngineError
        If Docker did not start the container.
    """
    name = f"grading-{secrets.token_hex(8)}"
    try:
        ended = limits.run(
            command(name, job["memory"], image),
            json.dumps(job),
            cwd="/",
            env=dict(os.environ),  # only for the Docker client
            seconds=job["total"],
            memory=job["memory"],
        )
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            docker("rm", "--force", name)  # if it is still running
    if ended.code == FAILED:
        raise EngineError(last_line(ended.complained))
    return ended


def command(name: str, memory: int, image: str) -> list[str]:
    """Return the Docker command that runs the worker in an isolated container."""
    environment = {"HOME": "/tmp", "JUPYTER_RUNTIME_DIR": "/tmp/runtime", "CHECK_SEED": "1"}  # noqa: S108
    return [
        *(program(), "run", "--rm", "--interactive", f"--name={name}", f"--label={LABEL}"),
        *("--pull=never", "--log-driver=none", f"--user={NOBODY}", "--network=none"),
        *("--read-only", "--tmpfs=/tmp:size=1g,mode=1777", "--workdir=/tmp"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *(f"--memory={memory}", f"--memory-swap={memory}", f"--cpus={min(2, os.cpu_count() or 1)}"),
        *("--pids-limit=1024", "--ulimit=nofile=4096:4096", "--no-healthcheck"),
        *(f"--env={key}={value}" for key, value in environment.items()),
        *("--env=TF_ENABLE_ONEDNN_OPTS", "--entrypoint=sh", image, "-c", START),
        limits.WORKER,
    ]


def remove_leftovers() -> None:
    """Remove containers that an earlier, killed grader created but never started."""
    labelled = ["--filter", f"label={LABEL}", "--filter", "until=10m"]
    docker("container", "prune", "--force", *labelled)


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Docker's client."""
    return subprocess.run(
        [program(), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def program() -> str:
    """Return the name of the Docker client, which the Makefile sets in DOCKER."""
    return os.environ.get("DOCKER") or "docker"


def last_line(text: str) -> str:
    """Return the last line of an error message."""
    return (text.strip().splitlines() or ["it says nothing"])[-1]

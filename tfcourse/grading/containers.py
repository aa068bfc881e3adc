"""Run a submission's job in a container of the learners' image, without access to our files."""

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
FAILED = 125  # the exit code of Docker's client if the engine fails, and not the container

# Link Keras' data from a writable folder, because Keras ignores a folder that it cannot write to.
# `exec` makes the worker the container's first process, which no other process in the container can
# kill.
START = """
mkdir /tmp/keras && ln -s "$KERAS_HOME/datasets" /tmp/keras && export KERAS_HOME=/tmp/keras
exec python3 -I -c "$0"
"""


class EngineError(Exception):
    """Docker failed, so no submission can be graded; the message says why."""


def missing(image: str = IMAGE) -> str:
    """Return what is missing to run containers of an image, or "" if nothing is."""
    try:
        if (found := docker("version")).returncode:
            return f"no Docker engine answers ({last_line(found.stderr)})"
        if docker("image", "inspect", image).returncode:
            return f"there is no image {image} (`make images KINDS=cpu` builds it)"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Docker cannot be used ({error})"
    return ""


def run(job: dict, image: str = IMAGE) -> limits.Ended:
    """Run a job of `grader.grade` in a container; return what its worker printed.

    The worker ends when its stdin is closed, so the container ends with this process, even if this
    process is killed. Docker then removes the container.

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
            env=dict(os.environ),  # for Docker's client; the container gets none of it
            seconds=job["total"],
            memory=job["memory"],
        )
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            docker("rm", "--force", name)  # in case it is still running
    if ended.code == FAILED:
        raise EngineError(last_line(ended.complained))
    return ended


def command(name: str, memory: int, image: str) -> list[str]:
    """Return the command that runs the worker in an isolated container."""
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
    """Remove containers that a killed grader created but did not start."""
    labelled = ["--filter", f"label={LABEL}", "--filter", "until=10m"]
    docker("container", "prune", "--force", *labelled)


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Docker's client."""
    return subprocess.run(
        [program(), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def program() -> str:
    """Return the name of Docker's client, as the Makefile passes it."""
    return os.environ.get("DOCKER") or "docker"


def last_line(text: str) -> str:
    """Return the last line of an error message."""
    return (text.strip().splitlines() or ["it says nothing"])[-1]

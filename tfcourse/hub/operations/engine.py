"""Run Docker and Compose for operators' commands, using only the standard library."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tfcourse.hub import settings
from tfcourse.hub.state import ROOT

COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
SOCKET = Path("/var/run/docker.sock")


def compose(
    *command: str,
    check: bool = True,
    everything: bool = False,
    each_line: Callable[[str], str] | None = None,
) -> int:
    """Run Compose; return its exit code, or exit with that code if Compose fails.

    Parameters
    ----------
    check
        Whether to exit if Compose fails.
    everything
        Whether to include the monitoring services even if COURSE_MONITOR is off.
    each_line
        A function that transforms each line of Compose's output before it is printed (default: no
        change).
    """
    docker = settings.DOCKER()
    has_plugin = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    program = ["docker-compose"] if has_plugin.returncode else [docker, "compose"]
    certificate = settings.CERTIFICATE()
    own = Path(settings.CONFIG() or settings.DOCKER_FOLDER / "jupyterhub_config.d")
    environment = settings.for_a_program(
        COURSE_NAME=settings.NAME(),
        COURSE_HOMES=settings.homes(),
        # Add the hub to the group that can write to Docker's socket.
        DOCKER_GROUP=str(SOCKET.stat().st_gid),
        COMPOSE_PROFILES="https,monitor" if everything or settings.MONITOR() else "https",
        CHECKSUM=checksum([Path(certificate)] if certificate else []),
        CONFIG_CHECKSUM=checksum(sorted(own.glob("*.py"))),
    )
    project = ["--project-name", settings.NAME(), "--file", str(COMPOSE_FILE)]
    pipe = {"stdout": subprocess.PIPE, "text": True, "errors": "replace"} if each_line else {}
    with subprocess.Popen([*program, *project, *command], env=environment, **pipe) as run:
        try:
            for line in run.stdout or ():
                print(each_line(line.rstrip("\n")), flush=True)
        except BrokenPipeError:  # the reader has closed the pipe, as in `make logs | head`
            run.kill()
            sys.stdout = None
    if check and run.returncode:
        sys.exit(run.returncode)
    return run.returncode


def checksum(paths: Iterable[Path]) -> str:
    """Return a checksum of the names and contents of the files that can be read."""
    found = hashlib.sha256()
    for path in paths:
        with contextlib.suppress(OSError):  # the hub itself reports files that it cannot read
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def output(*command: str) -> str:
    """Return Docker's output; exit with Docker's error message if the command fails."""
    run = subprocess.run(
        [settings.DOCKER(), *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        sys.exit(run.stderr.strip())
    return run.stdout.strip()


def compose_volume(name: str) -> str:
    """Create a Compose volume if it is missing; return its full name."""
    # Without these labels, Compose would not treat the volume as its own.
    labels = {"project": settings.NAME(), "volume": name}
    options = [f"--label=com.docker.compose.{key}={value}" for key, value in labels.items()]
    return output("volume", "create", *options, f"{settings.NAME()}_{name}")


def image_of_hub() -> str:
    """Return the name of the hub's image, whose containers read and write the volumes."""
    return f"{settings.IMAGE()}:hub"


def run_command() -> list[str]:
    """Return the Docker arguments for running a temporary container."""
    # Do not try to pull an image that was built on this machine.
    pull = "missing" if settings.has_registry() else "never"
    return [
        *("run", "--rm", "--interactive", "--log-driver=none"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", f"--pull={pull}"),
    ]

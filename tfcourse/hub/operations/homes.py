"""Prepare the folder for learners' home directories, and migrate them from Docker volumes."""

from __future__ import annotations

import re
import subprocess
import sys

from tfcourse.hub import settings
from tfcourse.hub.operations.engine import (
    compose,
    compose_volume,
    image_of_hub,
    output,
    run_command,
)


def prepare() -> None:
    """Prepare the folder, and migrate an earlier version's home directories; exit on failure."""
    state = f"--volume={compose_volume('state')}:/srv/state"
    options = ["--cap-add=CHOWN", "--cap-add=DAC_OVERRIDE", "--cap-add=FOWNER", state]
    in_folder("prepare", settings.homes(), settings.NAME(), options=options)
    take_over(old_volumes())
    if size := settings.HOME_QUOTA():
        # The seccomp profiles of older Docker engines block quotactl_fd(2).
        rights = ["SYS_ADMIN", "FOWNER", "DAC_READ_SEARCH"]
        options = [*(f"--cap-add={right}" for right in rights), "--security-opt=seccomp=unconfined"]
        in_folder("limit", str(size), options=options)


def take_over(volumes: dict[str, str]) -> None:
    """Copy each volume into the folder for home directories, then remove the volume.

    If this run is killed, the next run resumes with the first incompletely copied volume.
    """
    if not volumes:
        return
    if running := servers():
        sys.exit(
            f"Learners' work has to move, once, from Docker volumes to {settings.homes()}.\n"
            "Their servers must be stopped for that. Let learners save, then run: docker stop "
            f"{' '.join(running)}"
        )
    compose("stop", "hub")  # so that no server starts during the migration
    print(f"Moving learners' work from Docker volumes to {settings.homes()}:", flush=True)
    rights = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD"]
    for number, (name, volume) in enumerate(sorted(volumes.items()), 1):
        print(f"{number} of {len(volumes)}: {name}", flush=True)
        made = output("volume", "inspect", "--format={{.CreatedAt}}", volume)
        options = [*(f"--cap-add={right}" for right in rights), f"--volume={volume}:/old:ro"]
        in_folder("take", name, made, options=options)
        output("volume", "rm", volume)


def in_folder(*command: str, options: list[str]) -> None:
    """Run a spawners/homes.py command as root in a temporary container; exit if it fails."""
    run = [
        *(settings.DOCKER(), *run_command(), "--network=none", "--user=0", *options),
        f"--volume={settings.homes()}:/srv/homes",
        *(image_of_hub(), "python", "-m", "tfcourse.hub.spawners.homes", *command),
    ]
    if subprocess.run(run, check=False, stdin=subprocess.DEVNULL).returncode:
        sys.exit(1)  # the program has already printed the reason


def old_volumes() -> dict[str, str]:
    """Return an earlier version's volumes, keyed as in a backup (`shared` or `home-NAME`)."""
    pattern = rf"{re.escape(settings.NAME())}-(home-.+|shared)"
    found = output("volume", "ls", "--quiet").split()
    return {match[1]: match[0] for volume in found if (match := re.fullmatch(pattern, volume))}


def servers() -> list[str]:
    """Return the names of the learners' running containers."""
    label = f"--filter=label=tensorflow-course.hub={settings.NAME()}"
    return output("ps", "--format={{.Names}}", label).split()

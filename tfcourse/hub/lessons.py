"""Learners' own copies of the lessons."""

from __future__ import annotations

from pathlib import Path

from jupyterhub.spawner import LocalProcessSpawner

from tfcourse.hub.state import write_once

FOLDER = "tensorflow-course"
NOT_FOR_LEARNERS = "solutions"  # a folder of the lessons


def copy_to_home(spawner: LocalProcessSpawner, source: Path) -> None:
    """Give the learner the lessons before their server starts (as `c.Spawner.pre_spawn_hook`)."""
    try:
        copy_lessons(source, Path(spawner.home_dir, FOLDER))
    except OSError as error:
        # A full disk, say. Only inside their server can learners make room, so let it start.
        spawner.log.error("The lessons were not copied for %s: %s", spawner.user.name, error)


def copy_lessons(source: Path, folder: Path) -> None:
    """Copy what the folder lacks of lessons and exercises; whatever is there stays as it is.

    So a learner's edits are never lost, and who wants a lesson as it was renames or deletes theirs
    and starts the server again.
    """
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        # Hidden: Jupyter's checkpoints and the like.
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and relative.parts[0] != NOT_FOR_LEARNERS:
            copy = folder / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_once(copy, path.read_bytes(), mode=0o666)  # less the umask

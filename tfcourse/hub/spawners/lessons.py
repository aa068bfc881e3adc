"""Learners' own copies of the lessons."""

from __future__ import annotations

from pathlib import Path

from jupyterhub.spawner import LocalProcessSpawner

from tfcourse.hub.state import write_once

FOLDER = "tensorflow-course"
# In the lessons' folder: solutions, compiled modules, and digits that somebody has drawn here.
NOT_FOR_LEARNERS = {"solutions", "__pycache__", "my_digits.json"}
RENEWED = "interactive"  # what lessons import: the pad and the film


def copy_to_home(spawner: LocalProcessSpawner, source: Path) -> None:
    """Give the learner the lessons before their server starts (as `c.Spawner.pre_spawn_hook`)."""
    try:
        copy_lessons(source, Path(spawner.home_dir, FOLDER))
    except OSError as error:
        # A full disk, say. Only inside their server can learners make room, so let it start.
        spawner.log.error("The lessons were not copied for %s: %s", spawner.user.name, error)


def copy_lessons(source: Path, folder: Path) -> None:
    """Copy what the folder lacks of lessons and exercises; whatever is there stays as it is.

    Learners' edits are therefore never lost. To get a lesson as it was, rename or delete your copy
    and start the server again. Only the modules that lessons import are always the newest ones:
    a new lesson would not work with old ones.
    """
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        # Hidden: Jupyter's checkpoints and the like.
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and not NOT_FOR_LEARNERS & set(relative.parts):
            copy = folder / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            if relative.parts[0] == RENEWED and copy.is_file():
                renew(copy, path.read_bytes())
            write_once(copy, path.read_bytes(), mode=0o666)  # less the umask


def renew(path: Path, content: bytes) -> None:
    """Give a file other content; never leave half of one behind."""
    if path.read_bytes() != content:
        aside = path.with_name(f".{path.name}.new")
        aside.write_bytes(content)
        aside.replace(path)

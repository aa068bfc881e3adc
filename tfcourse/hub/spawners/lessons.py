"""Copy the lessons to learners' homes."""

from __future__ import annotations

from pathlib import Path

from jupyterhub.spawner import LocalProcessSpawner

from tfcourse.hub.state import write_once

FOLDER = "tensorflow-course"
# What is not copied: solutions, compiled modules, and digits that somebody has drawn here.
NOT_FOR_LEARNERS = {"solutions", "__pycache__", "my_digits.json"}
RENEWED = "interactive"  # the folder of modules that lessons import: the pad and the film


def copy_to_home(spawner: LocalProcessSpawner, source: Path) -> None:
    """Give the learner the lessons before their server starts.

    The hub calls this function as `c.Spawner.pre_spawn_hook`.
    """
    try:
        copy_lessons(source, Path(spawner.home_dir, FOLDER))
    except OSError as error:
        # The disk may be full. Learners can make room only from inside their server, so start it.
        spawner.log.error("The lessons were not copied for %s: %s", spawner.user.name, error)


def copy_lessons(source: Path, folder: Path) -> None:
    """Copy the lessons and exercises that the folder lacks; leave existing files as they are.

    Learners' edits are therefore never lost. To get an original lesson back, rename or delete your
    copy and restart the server. Only the modules that lessons import are always updated, because a
    new lesson would not work with old modules.
    """
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        # Hidden files are Jupyter's checkpoints and the like.
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and not NOT_FOR_LEARNERS & set(relative.parts):
            copy = folder / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            if relative.parts[0] == RENEWED and copy.is_file():
                renew(copy, path.read_bytes())
            write_once(copy, path.read_bytes(), mode=0o666)  # minus the umask


def renew(path: Path, content: bytes) -> None:
    """Replace a file's content; never leave a half-written file behind."""
    if path.read_bytes() != content:
        aside = path.with_name(f".{path.name}.new")
        aside.write_bytes(content)
        aside.replace(path)

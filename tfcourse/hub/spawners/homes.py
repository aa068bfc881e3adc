"""Learners' homes on the hub in containers: one folder for each learner, all in COURSE_HOMES.

COURSE_HOMES is a folder on the server. It contains `homes` with the learners' folders, `shared`,
and a note that says which hub the folder belongs to. The hub's container mounts it at MOUNT.
`make up` runs `python -m tfcourse.hub.spawners.homes` as root in a temporary container to prepare
the folder, to move homes there that an earlier version kept in Docker volumes, and to set quotas.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tfcourse.hub import settings, state
from tfcourse.hub.spawners import quotas
from tfcourse.hub.state import state_folder

MOUNT = Path("/srv/homes")  # in the hub's container
MARKER = "tensorflow-course.json"
UID = 1000  # the user jovyan in our images
SKELETON = Path("/etc/skel")
OLD = Path("/old")  # where a temporary container mounts an earlier version's volume


def names() -> list[str]:
    """Return the names of the folders that hold learners' work."""
    return [path.name for path in (MOUNT / "homes").iterdir() if path.name[0] != "."]


def path_on_server() -> str:
    """Return the path of COURSE_HOMES on the server; exit with a message if it is not prepared."""
    note = read_note()
    if not note:
        sys.exit("The folder of learners' homes is not prepared: start the hub with `make up`.")
    if note["hub"] != settings.NAME():
        sys.exit(
            f"{note['path']} holds the homes of the hub {note['hub']!r}, not {settings.NAME()!r}.\n"
            "Start this hub with `make up`, which names the folder, or set another COURSE_HOMES."
        )
    return note["path"]


def make(name: str, limit: Callable[[str], None] | None = None) -> None:
    """Create a learner's folder unless it exists; it gets its name only once it is complete.

    Before the folder gets its name, `limit` is called with the folder's path relative to MOUNT.
    """
    target = MOUNT / "homes" / name
    if target.exists():
        return
    part = part_of(target)
    shutil.rmtree(part, ignore_errors=True)  # left by a hub that was killed
    shutil.copytree(SKELETON, part)
    (part / "shared").mkdir()  # otherwise, Docker would create it as root
    part.chmod(0o700)
    if limit:
        limit(str(part.relative_to(MOUNT)))
    part.rename(target)


def ready(name: str, limit: Callable[[str], None] | None = None) -> str | None:
    """Create a learner's folder unless it exists; return why it cannot be used, or None.

    The message is for the learner, and says what the operator has to do.
    """
    target = MOUNT / "homes" / name
    place = f"{path_on_server()}/homes/{name}"
    try:
        make(name, limit)
        status = os.stat(f"{target}/")  # fails unless `target` is a folder
        if status.st_uid == os.geteuid() and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            target.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)  # undo the learner's chmod
    except OSError as error:
        reason = f"{place}: {error.strerror or error}"
    else:
        if os.access(target, os.R_OK | os.W_OK | os.X_OK):
            return None
        reason = f"it cannot be written to. On the server, run `chown -R {UID}:{UID} {place}`"
        if os.statvfs(target).f_flag & os.ST_RDONLY:
            reason = f"the disk with {place} is read-only"
    return f"Your home cannot be used. Please tell your instructor: {reason}."


def part_of(target: Path) -> Path:
    """Return the path of a folder that is not complete yet. No learner's folder has a dot."""
    return target.with_name(f".{target.name}.part")


def read_note() -> dict[str, str] | None:
    """Return the hub's name (`hub`) and the folder's path on the server (`path`).

    Return None if there is no note, and an empty dict if it is damaged, as after a power cut.
    """
    try:
        note = json.loads((MOUNT / MARKER).read_bytes())
        return {name: str(note[name]) for name in ("hub", "path")}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}


# --- Commands that run as root, in a temporary container


def main() -> None:
    """Run the `prepare`, `take` or `limit` command."""
    parser = argparse.ArgumentParser(prog="python -m tfcourse.hub.spawners.homes")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("prepare", help="create what is missing in the folder")
    made.add_argument("path", help="the folder's path on the server")
    made.add_argument("hub", help="the hub's name")
    made = commands.add_parser("take", help="copy an earlier version's volume into the folder")
    made.add_argument("name", help="`shared`, or `home-` and a learner's name")
    made.add_argument("volume", help="an identifier that no other volume of that name has")
    made = commands.add_parser("limit", help="limit the size of homes")
    made.add_argument("size", type=int, help="the limit for each home, in bytes")
    made.add_argument("homes", nargs="*", type=Path, help="paths in the folder (default: all)")
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.path, options.hub)
    elif options.command == "take":
        take(options.name, options.volume)
    else:
        limit(options.size, [MOUNT / path for path in options.homes])


def prepare(path: str, hub: str) -> None:
    """Create what is missing in MOUNT; exit with a message if the folder is not this hub's."""
    note, last = read_note(), state_folder() / "homes-path"
    if note is None and last.exists():
        before = last.read_text(errors="replace") or "another folder"
        sys.exit(
            f"Learners' homes were in {before}, but there are none in {path}.\n"
            "Is its disk mounted? If you changed COURSE_HOMES, copy them first: cp -a OLD/. NEW"
        )
    if note is None and any(child.name != "lost+found" for child in MOUNT.iterdir()):
        sys.exit(f"{path} is not empty. Set COURSE_HOMES to an empty folder or a new one.")
    if note == {} and not (last.exists() and last.read_text(errors="replace") == path):
        sys.exit(
            f"The file {MARKER} in {path} is damaged, and this hub has not kept homes there "
            "before.\n"
            "If the homes are this hub's, write it again:\n"
            f"echo '{json.dumps({'hub': hub, 'path': path})}' > {path}/{MARKER}"
        )
    if note and note["hub"] != hub:
        sys.exit(f"{path} holds the homes of the hub {note['hub']!r}. Set another COURSE_HOMES.")
    for name in ("homes", "shared"):
        if not (MOUNT / name).exists():
            (MOUNT / name).mkdir(mode=0o755)
            os.chown(MOUNT / name, UID, UID)
    write(MOUNT / MARKER, json.dumps({"hub": hub, "path": path}))
    write(last, path)


def write(path: Path, text: str) -> None:
    """Write a file that everyone can read; it gets its name only once it is complete."""
    path.parent.mkdir(exist_ok=True)
    state.write(path, text.encode(), mode=0o644)


def take(name: str, volume: str) -> None:
    """Copy the volume at OLD, unless an earlier run has already copied it.

    The volume can be removed afterwards. Exit with a message if the learner's folder already has
    other files. If an earlier run was killed, its container may still be copying, so wait for it.
    """
    target = MOUNT / ("shared" if name == "shared" else f"homes/{name.removeprefix('home-')}")
    part, done = part_of(target), MOUNT / ".taken" / name
    with open(MOUNT / MARKER) as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        if not (done.exists() and done.read_text() == volume):
            if target.exists() and any(target.iterdir()):
                sys.exit(
                    f"{name} has a volume, and there is already a folder "
                    f"{target.relative_to(MOUNT)}.\n"
                    "Nothing was changed. Move the folder away, or remove the volume."
                )
            copy_volume(part)
            write(done, volume)
        # From here on, the copy is complete, or already has its final name.
        if part.exists():
            if target.exists():
                target.rmdir()
            part.rename(target)


def copy_volume(part: Path) -> None:
    """Copy the volume at OLD; exit with a message if the copy is not complete."""
    shutil.rmtree(part, ignore_errors=True)
    try:
        subprocess.run(["/bin/cp", "--archive", OLD, part], check=True)
    except subprocess.CalledProcessError:
        sys.exit("The copy is not complete. The volume is unchanged.")
    os.sync()


def limit(size: int, chosen: list[Path]) -> None:
    """Limit the chosen homes (or all homes) to `size` bytes; exit with a message on failure."""
    with open(MOUNT / MARKER) as note:
        fcntl.flock(note, fcntl.LOCK_EX)  # two homes must not get the same project
        try:
            quotas.check(MOUNT)
        except OSError as error:
            sys.exit(
                "COURSE_HOME_QUOTA is set, but the disk with the homes has no project quotas:\n"
                f"{error.strerror}. docs/operators.md says how to switch them on."
            )
        for home in chosen or [path for path in folders() if path.name[0] != "."]:
            set_limit(home, size)


def set_limit(home: Path, size: int) -> None:
    """Set a home's quota; exit with a message if that fails."""
    while True:
        try:
            quotas.set_limit(home, folders(), size)
            return
        except FileNotFoundError as error:
            if not home.exists():
                sys.exit(f"There is no folder {error.filename}.")
            # The hub has just renamed another, newly complete home, so list the homes again.
        except OSError as error:
            sys.exit(f"The quota of {home.name} was not set: {error.strerror}: {error.filename}")


def folders() -> list[Path]:
    """Return the folders of all homes, including incomplete homes with temporary names."""
    parent = MOUNT / "homes"
    while True:
        names = sorted(parent.iterdir())
        found = [path for path in names if path.is_dir() and not path.is_symlink()]
        if sorted(parent.iterdir()) == names:  # otherwise, a home was just renamed
            return found


if __name__ == "__main__":
    main()

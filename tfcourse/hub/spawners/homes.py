"""Manage learners' home directories on the containerised hub, which are all in COURSE_HOMES.

COURSE_HOMES is a folder on the host, which the hub's container mounts at MOUNT. It contains `homes`
(the learners' home directories), `shared`, and a marker file that identifies the hub that owns the
folder. `make up` runs `python -m tfcourse.hub.spawners.homes` as root in a temporary container.
These commands prepare the folder, migrate home directories from an earlier version's Docker
volumes, and set quotas.
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
UID = 1000  # the ID of the user jovyan in our images
SKELETON = Path("/etc/skel")
OLD = Path("/old")  # the path at which a temporary container mounts an earlier version's volume


def names() -> list[str]:
    """Return the names of the learners' home directories."""
    return [path.name for path in (MOUNT / "homes").iterdir() if path.name[0] != "."]


def path_on_server() -> str:
    """Return COURSE_HOMES' path on the host; exit with a message if the folder is not prepared."""
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
    """Create a learner's home directory if it is missing; rename it into place once complete.

    Before the directory is renamed, `limit` is called with its path relative to MOUNT.
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
    """Create a learner's home directory if needed; return a message if it cannot be used.

    The message tells the learner what the operator has to do.
    """
    target = MOUNT / "homes" / name
    try:
        place = f"{path_on_server()}/homes/{name}"
    except (OSError, SystemExit) as error:  # the marker file has been removed or damaged
        return f"Your home cannot be used. Please tell your instructor: {error}"
    try:
        make(name, limit)
        status = os.stat(f"{target}/")  # fails if `target` is not a folder
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
    """Return the temporary path of an incomplete folder. No home directory starts with a dot."""
    return target.with_name(f".{target.name}.part")


def read_note() -> dict[str, str] | None:
    """Return the marker file's content: the hub's name (`hub`) and the folder's host path (`path`).

    Return None if the file is missing, or an empty dict if it is damaged, for example by a power
    cut.
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
    """Create missing files in MOUNT; exit with a message if this hub cannot use the folder."""
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
    """Atomically write a file that everyone can read."""
    path.parent.mkdir(exist_ok=True)
    state.write(path, text.encode(), mode=0o644)


def take(name: str, volume: str) -> None:
    """Copy the volume at OLD, unless an earlier run has already copied it.

    The volume can be removed afterwards. Exit with a message if the target folder already contains
    other files. If an earlier run was killed, wait for its container, which may still be copying.
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
        # At this point, the copy is complete and may already have been renamed.
        if part.exists():
            if target.exists():
                target.rmdir()
            part.rename(target)


def copy_volume(part: Path) -> None:
    """Copy the volume at OLD; exit with a message if the copy is incomplete."""
    shutil.rmtree(part, ignore_errors=True)
    try:
        subprocess.run(["/bin/cp", "--archive", OLD, part], check=True)
    except subprocess.CalledProcessError:
        sys.exit("The copy is not complete. The volume is unchanged.")
    os.sync()


def limit(size: int, chosen: list[Path]) -> None:
    """Set the quota of the chosen home directories (default: all), in bytes; exit on failure."""
    with open(MOUNT / MARKER) as note:
        fcntl.flock(note, fcntl.LOCK_EX)  # two home directories must not share a project ID
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
    """Set a home directory's quota; exit with a message if that fails."""
    while True:
        try:
            quotas.set_limit(home, folders(), size)
            return
        except FileNotFoundError as error:
            if not home.exists():
                sys.exit(f"There is no folder {error.filename}.")
            # The hub has just renamed another home directory into place, so list the directories
            # again.
        except OSError as error:
            sys.exit(f"The quota of {home.name} was not set: {error.strerror}: {error.filename}")


def folders() -> list[Path]:
    """Return all home directories, including incomplete ones with temporary names."""
    parent = MOUNT / "homes"
    while True:
        names = sorted(parent.iterdir())
        found = [path for path in names if path.is_dir() and not path.is_symlink()]
        if sorted(parent.iterdir()) == names:  # if not, the hub has just renamed a directory
            return found


if __name__ == "__main__":
    main()

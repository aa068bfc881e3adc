#!/usr/bin/python3 -IS
"""Copy the course's lessons to a learner's home directory, but keep the learner's edits.

A record in the learner's folder lists the files that were last copied, with their hashes. A newer
version replaces a file that the learner has not edited, and deleted files are restored. Without the
record, every file that differs from the course's version is treated as edited, so no work is lost.
Every file is written atomically. If a run is killed, the next run resumes.

`make hub` calls `bring`. In an image, this file is the command `update-lessons`, which prints a
message to the learner about each problem. The command neither runs the learner's programs nor
imports anything from the learner's home directory, because it uses only the standard library.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from time import strftime

FOLDER = "tensorflow-course"  # the folder of lessons in the home directory
RECORD = ".lessons"  # the record: the hash and path of each file that was last copied
PART = ".lessons.part"  # the temporary name of a file that is being written
# Files that are not copied to learners: solutions, compiled modules and hand-drawn digits.
NOT_FOR_LEARNERS = {"solutions", "__pycache__", "my_digits.json"}
# The folder of modules that lessons import. A new lesson would not work with old modules.
MODULES = "interactive"
IN_IMAGE = "/opt/course/share/lessons"  # the default source of the command

LARGEST = 64 * 2**20  # bytes; larger files are treated as edited, because reading them is slow
OLD_REPOSITORY = ".local/share/tensorflow-course.git"  # where earlier versions kept lessons
TIMEOUT = 5  # seconds for git to read the repository
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
FORBIDDEN = {errno.EACCES, errno.EPERM}


class TakenError(Exception):
    """Raised if a course file or folder would replace something that must be kept."""

    def __init__(self, path: Path):
        self.path = path


def bring(source: Path, folder: Path, old: dict[str, str] | None = None) -> list[str]:
    """Copy the lessons in `source` to the learner's folder; return a message for each problem.

    The messages are for the learner. If there is no record, `old` provides the hashes of the files
    that were last copied.
    """
    lessons = find(source)
    if not lessons:
        return ["Your lessons are not up to date: the server has no lessons. Tell your instructor."]
    problems: dict[Path, OSError | TakenError] = {}
    try:
        folder = real_folder(folder)
        if hash_of(folder / PART) is not None:
            (folder / PART).unlink()  # left by a killed run
        noted = read_note(folder)
    except (OSError, TakenError) as error:
        path = error.path if isinstance(error, TakenError) else folder
        return sentences({path: error}, folder.parent)
    last = (old or {}) if noted is None else noted
    brought = {}
    for name in sorted(lessons.keys() | last.keys()):
        try:
            if name in lessons:
                brought[name] = bring_file(lessons[name], folder, name, last.get(name))
            elif not remove(folder, name, last[name]):
                brought[name] = last[name]  # retry at the next start
        except (OSError, TakenError) as error:
            problems[error.path if isinstance(error, TakenError) else folder / name] = error
            if name in last:
                brought[name] = last[name]
    if brought != noted:
        try:
            lines = (f"{hashed} {name}\n" for name, hashed in brought.items())
            write(folder, RECORD, "".join(lines).encode(), replace=True)
        except OSError as error:
            problems[folder / RECORD] = error
    return sentences(problems, folder)


def find(source: Path) -> dict[str, Path]:
    """Return the files to copy to learners, keyed by their paths relative to `source`."""
    found = {}
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        # Skip hidden files, such as Jupyter's checkpoints.
        hidden = any(part.startswith(".") for part in relative.parts)
        if not hidden and not NOT_FOR_LEARNERS & set(relative.parts) and path.is_file():
            found[relative.as_posix()] = path
    return found


def real_folder(folder: Path) -> Path:
    """Create the learner's folder if it is missing; return its real path.

    A learner may have moved the folder elsewhere in the home directory and created a symbolic link
    in its place.
    """
    if folder.is_symlink():
        home, real = (Path(os.path.realpath(path)) for path in (folder.parent, folder))
        if not real.is_dir() or home not in real.parents:
            raise TakenError(folder)
        return real
    if os.path.lexists(folder) and not folder.is_dir():
        raise TakenError(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_note(folder: Path) -> dict[str, str] | None:
    """Return the hashes of the last copied files, keyed by path, or None without a valid record.

    A learner can write anything to the record, so paths outside the folder are ignored.
    """
    try:
        status = os.lstat(folder / RECORD)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        lines = (folder / RECORD).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return only_inside(line.split(" ", 1) for line in lines)


def only_inside(entries: Iterable[list[str]]) -> dict[str, str]:
    """Return the hashes of files in the lessons' folder, keyed by path."""
    return {entry[1]: entry[0] for entry in entries if len(entry) == 2 and is_inside(entry[1])}


def is_inside(name: str) -> bool:
    """Return whether a name is a valid path within the lessons' folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0][0] != "/" and ".." not in parts and name.isprintable()


def bring_file(source: Path, folder: Path, name: str, last: str | None) -> str:
    """Copy a lesson file without overwriting edits; return the hash for the record."""
    path = folder / name
    content = source.read_bytes()
    new = blob(content)
    check_parents(folder, name, create=True)
    found = hash_of(path)
    if found is None:
        write(folder, name, content)
    elif found == last != new:
        write(folder, name, content, replace=True)
    elif new not in (found, last):
        keep_both(folder, name, content, new)
    return new


def keep_both(folder: Path, name: str, content: bytes, new: str) -> None:
    """Copy the course's new version of a file, but also keep the learner's edited version.

    The two versions are not merged, because merging notebooks line by line can break them. The
    new version of a notebook is saved under a different name. An edited module is renamed instead.
    """
    path = PurePosixPath(name)
    if path.parts[0] == MODULES:
        write(folder, name, content, replace=True, aside=free_name(folder / name, "yours"))
        return
    parent = folder / path.parent
    others = [each for each in os.listdir(parent) if each.startswith(f"{path.stem}_updated_")]
    if not any(is_hash_of(parent / each, new) for each in others):
        beside = free_name(folder / name, "updated")
        write(folder, beside.relative_to(folder), content)


def free_name(path: Path, word: str) -> Path:
    """Return an unused path next to `path`, with the word and today's date in the file name."""
    beside = path.with_stem(f"{path.stem}_{word}_{strftime('%Y-%m-%d')}")
    if os.path.lexists(beside):
        beside = beside.with_stem(f"{beside.stem}_{strftime('%H%M%S')}")
    return beside


def remove(folder: Path, name: str, last: str) -> bool:
    """Remove a file that is no longer in the course, unless the learner has edited it.

    Return False if the removal failed and has to be retried at the next start.
    """
    path = folder / name
    try:
        check_parents(folder, name)
        if hash_of(path) == last:
            path.unlink()
    except TakenError:
        return True  # something else now has this name
    except OSError:
        return False
    for parent in path.relative_to(folder).parents[:-1]:
        try:
            (folder / parent).rmdir()
        except OSError:
            break  # the folder is not empty
    return True


def check_parents(folder: Path, name: str, *, create: bool = False) -> None:
    """Raise TakenError if a parent of the file is a symbolic link or not a folder."""
    for parent in reversed(PurePosixPath(name).parents[:-1]):
        path = folder / parent
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise TakenError(path)
        except FileNotFoundError:
            if not create:
                return
            path.mkdir()


def hash_of(path: Path) -> str | None:
    """Return a file's hash, or None if the file does not exist."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise TakenError(path)
    return "large" if status.st_size > LARGEST else blob(path.read_bytes())


def is_hash_of(path: Path, wanted: str) -> bool:
    """Return whether the path is a file with this hash."""
    try:
        return hash_of(path) == wanted
    except (OSError, TakenError):
        return False


def blob(content: bytes) -> str:
    """Return git's hash of a file's content, because earlier versions recorded lessons with git."""
    head = b"blob %d\0" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def write(
    folder: Path,
    name: str | Path,
    content: bytes,
    *,
    replace: bool = False,
    aside: Path | None = None,
) -> None:
    """Write a file in the folder atomically; never leave a partial file behind.

    Without `replace`, an existing file is kept. With `aside`, an existing file is first renamed to
    that path.
    """
    path, part = folder / name, folder / PART
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
        if aside:
            path.rename(aside)
        if replace:
            part.replace(path)
        else:
            rename_if_free(part, path)
    finally:
        part.unlink(missing_ok=True)


def rename_if_free(part: Path, path: Path) -> None:
    """Rename the file, unless the new name already exists."""
    try:
        os.link(part, path)  # unlike a rename, a link never replaces a file
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            part.rename(path)


def sentences(problems: dict[Path, OSError | TakenError], base: Path) -> list[str]:
    """Return a message for the learner about each kind of problem and how to fix it."""
    kinds: dict[str, list[str]] = {}
    for path, error in problems.items():
        kinds.setdefault(remedy(path, error, base), []).append(path.relative_to(base).as_posix())
    return [
        f"Your lessons are not up to date: {kind} This concerns {listed(names)}."
        for kind, names in kinds.items()
    ]


def remedy(path: Path, error: OSError | TakenError, base: Path) -> str:
    """Return a description of the problem, with advice for the learner."""
    if isinstance(error, TakenError):
        return "something else has a lesson's name. Rename it, then restart your server."
    if error.errno in NO_SPACE:
        return "the disk is full. Delete files that you do not need, then restart your server."
    if error.errno in FORBIDDEN:
        place = path
        while not os.path.lexists(place):
            place = place.parent
        if all(os.lstat(each).st_uid == os.getuid() for each in (place, place.parent)):
            return (
                f"you have no permission to write. In a terminal, run `chmod -R u+rwX ~/{FOLDER}`, "
                "then restart your server."
            )
        return "files belong to somebody else. Tell your instructor, who can change that."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{reason}. Restart your server; if this happens again, tell your instructor."


def listed(names: list[str]) -> str:
    """Return a text that lists the first few names and the number of names omitted."""
    more = f" and {len(names) - 2} more" if len(names) > 3 else ""
    return ", ".join(names[: 2 if more else 3]) + more


# --- In an image


def main() -> None:
    """Copy the image's lessons to the home directory; print a message about each problem."""
    home = Path.home()
    folder = home / FOLDER
    known = os.path.lexists(folder / RECORD)
    old = {} if known else brought_by_git(home / OLD_REPOSITORY)
    source = sys.argv[1] if len(sys.argv) > 1 else IN_IMAGE
    for sentence in bring(Path(source), folder, old):
        print(sentence)


def brought_by_git(repository: Path) -> dict[str, str]:
    """Return the hashes of files last copied by an earlier version, from its git repository.

    The repository is not changed. Git ignores the learner's configuration, and this git command
    runs no hooks or filters. Git has a time-out, because the repository can contain anything.
    """
    if not (repository / "HEAD").is_file():
        return {}
    import subprocess  # slow to import

    environment = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
    }
    form = "--format=%(objectname)%x09%(path)"
    command = ["git", f"--git-dir={repository}", "ls-tree", "-r", "-z", form, "refs/heads/main"]
    try:
        run = subprocess.run(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
        lines = run.stdout.decode().split("\0")
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return only_inside(line.split("\t", 1) for line in lines)


if __name__ == "__main__":
    sys.exit(main())

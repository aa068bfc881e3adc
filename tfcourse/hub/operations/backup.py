"""Back up the containerised hub to one file, and restore it: `make backup` and `make restore`.

This module runs on the host and needs only Docker. The backup is a tar archive with one folder for
each of the hub's volumes (`state`, `secrets` and `certificates`), one for the class's shared folder
(`shared`), and one for each learner's home directory (`home-NAME`). Temporary containers read and
write the volumes and home directories as root, because a learner may have made files unreadable for
everyone else.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from tfcourse.hub import plain, settings
from tfcourse.hub.operations import homes
from tfcourse.hub.operations.engine import compose_volume, image_of_hub, output, run_command
from tfcourse.hub.state import ROOT, remove_leftovers, sync, unused

FORMAT = 1  # the version of the archive format

MANIFEST = "manifest.json"  # the archive's first member
LARGEST = 2**24  # the maximum size of a manifest in bytes, enough for a hundred thousand learners

MEMORY = 2**31  # bytes; the memory limit for checking an archive
LONGEST = 1000  # characters; files with longer paths are not backed up

# Print how many such paths each top-level folder contains. If two home directories share a file,
# because someone copied one of them with `cp -al`, have tar store the file twice: `restore` rejects
# a hard link from one home directory to another.
LOOK = rf"""
find * -regextype posix-extended -regex '.{{{LONGEST}}}.*' -prune -printf '%H\n' 2>/dev/null |
    sort | uniq -c | while read -r number folder
do
    echo "Not backed up in $folder: paths of {LONGEST:,} characters or more ($number)" >&2
done
shared=$(find * ! -type d -links +1 -printf '%D:%i %H\n' | sort -u | cut -d ' ' -f 1 | uniq -d)
[ -z "$shared" ] || export TAR_OPTIONS=--hard-dereference
"""

COMPOSE = ("certificates", "secrets", "state")  # Compose's volumes, apart from those for metrics
# A pattern for the archive's top-level folders: learners' home directories, Compose's volumes, and
# `shared`.
VOLUME = rf"home-[\w-][\w.-]{{0,250}}|{'|'.join(COMPOSE)}|shared"

# The live database. Instead of these files, the archive contains a copy made just before the backup
# (database.py).
LIVE = [f"state/hub/jupyterhub.sqlite{end}" for end in ("", "-journal", "-wal", "-shm")]


def default_file(note: str = "") -> Path:
    """Return a path for a new backup, named after the hub and the time.

    Only the owner of the backup folder can open it. The returned path does not exist yet, even if
    the clock was set back.
    """
    folder = ROOT / ".course" / "backups"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(folder.glob("*.part"))
    return unused(folder, f"{settings.NAME()}-{datetime.now():%Y-%m-%d-%H%M%S}{note}", ".tar.gz")


# --- Back up


def backup(file: Path) -> None:
    """Write a backup to the file, or to stdout if the file is `-`.

    The hub can stay up, and learners can keep working, during the backup.
    """
    if file.is_dir():
        sys.exit(f"{file} is a folder. Give the name of a file in it.")
    if not volumes():
        sys.exit(f"There is no hub called {settings.NAME()!r} on this machine.")
    database("copy")
    archive(file, without=LIVE)


def archive(file: Path, without: Iterable[str] = ()) -> None:
    """Write all volumes to the file, except the paths in `without`."""
    found = volumes()
    for path in left_out(found):
        print(plain(f"{path} is not a learner's home directory; it is left out."), file=sys.stderr)
    names = sorted(found, key=lambda name: (not name.startswith("home"), name))  # accounts last
    tar = [
        *("tar", "--create", "--verbose", "--format=posix", "--numeric-owner", "--sparse"),
        *("--pax-option=delete=atime,delete=ctime", "--anchored", "--no-wildcards"),
        *(f"--exclude={name}" for name in without),
        # Leave out very long paths. Nested folders' paths can exceed 4096 bytes, and tar could not
        # restore them.
        *("--wildcards", f"--exclude={'?' * LONGEST}*"),
        *("--", MANIFEST, *names),
    ]
    script = f'printf %s "$1" >{MANIFEST} && shift || exit\n{LOOK}\nexec "$@"'
    command = ["sh", "-c", script, "sh", json.dumps(manifest(names)), *tar]
    run = throw_away(found, "ro", ["DAC_READ_SEARCH"], command)
    with (
        subprocess.Popen(
            run, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
        follow(process.stderr, names),
    ):
        try:
            with whole(file) as target:
                shutil.copyfileobj(process.stdout, target, 2**20)
                # Exit code 1 means that a file changed or disappeared during the backup.
                if process.wait() > 1:
                    sys.exit("The backup failed and was not kept.")
        except OSError as error:
            sys.exit(f"The backup cannot be written to {file}: {error.strerror}.")
        finally:
            process.kill()  # otherwise, tar would wait for a reader after an error
    print(plain(f"The backup is complete: {file}"), file=sys.stderr)


@contextlib.contextmanager
def whole(file: Path) -> Iterator[IO[bytes]]:
    """Yield a compressed file that only its owner can read; rename it to `file` once complete.

    For `-`, yield stdout without compression, because the receiving program may compress the data.
    """
    if str(file) == "-":
        yield sys.stdout.buffer
        return
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)  # left by a killed run
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            # Use the fastest compression level, because images and models hardly compress.
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw) as target:
                yield target
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(file)
        sync(file.parent)
    finally:
        part.unlink(missing_ok=True)


def manifest(names: list[str]) -> dict[str, object]:
    """Return the manifest, which lists the archive's contents and the software's versions."""
    (image,) = json.loads(output("image", "inspect", image_of_hub()))
    labels = image["Config"]["Labels"] or {}
    return {
        "format": FORMAT,
        "hub": settings.NAME(),
        "made": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}",
        "image": image_of_hub(),
        "version": labels.get("org.opencontainers.image.version"),
        "revision": labels.get("org.opencontainers.image.revision"),
        "jupyterhub": output(
            *run_command(), "--network=none", image_of_hub(), "jupyterhub", "--version"
        ),
        "volumes": names,
    }


# --- Restore


def restore(file: Path, replace: bool) -> None:
    """Restore everything in the file, but change nothing unless the file is complete."""
    names = check(file)
    if give(file, throw_away({}, "ro", [], ["sh", "-c", "exec tar --list >/dev/null"])):
        sys.exit(f"{file} is a backup that tar cannot read. Nothing was changed.")
    check_stopped()
    database("vacant", check=not replace)
    full = not_empty(volumes())
    if full and not replace:
        sys.exit(
            f"This hub already has work on this machine: {', '.join(full)}.\n"
            "REPLACE=1 backs that up first, then replaces it with the backup."
        )
    if full:
        print("First, backing up the current accounts and work:", file=sys.stderr)
        database("copy", check=False)
        archive(default_file("-before-restore"))
    homes.prepare()
    found = {name: make_volume(name) for name in names}
    tar = [
        *("tar", "--extract", "--verbose", "--numeric-owner", "--same-owner"),
        *("--preserve-permissions", "--delay-directory-restore", "--", *names),
    ]
    command = ["sh", "-c", 'find . -mindepth 2 -delete && exec "$@"', "sh", *tar]
    run = throw_away(found, "rw", ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"], command)
    if give(file, run, names):
        sys.exit("The restore stopped half-way. Fix what is reported above, then run it again.")
    database("recover", *(["--replace"] if replace else []))
    print("Everything is restored. `make up` starts the hub.", file=sys.stderr)


def give(file: Path, run: list[str], names: Sequence[str] = ()) -> int:
    """Run a command with the decompressed archive as its stdin; return the command's exit code."""
    with (
        contextlib.suppress(BrokenPipeError),  # the command prints the reason
        subprocess.Popen(
            run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
        follow(process.stdout, names),
        follow(process.stderr, ()),
        gzip.open(file) as source,
    ):
        shutil.copyfileobj(source, process.stdin, 2**20)
        process.stdin.close()
    return process.returncode


def check_stopped() -> None:
    """Exit with a message if a container that uses the volumes is running."""
    if output("ps", "--quiet", f"--filter=label=com.docker.compose.project={settings.NAME()}"):
        sys.exit("The hub is running. Stop it first: make down")
    if running := homes.servers():
        sys.exit(
            "Learners' servers are still using the work that would be replaced. Stop them:\n"
            f"docker stop {' '.join(running)}"
        )


def check(file: Path) -> list[str]:
    """Return the names of the volumes in the file.

    Exit with a message unless the file is a complete backup in this module's format.
    """
    if file.is_dir():
        sys.exit(f"{file} is a folder, not a backup.")
    print(plain(f"Checking {file} ..."), file=sys.stderr)
    why = ""
    try:
        with limited_memory(), gzip.open(file) as source:
            with tarfile.open(fileobj=source, mode="r|", bufsize=2**20, tarinfo=Member) as archive:
                about = read_manifest(archive)
                found = folders(archive) if about else set()
            while source.read(2**20):  # read to the end to verify the checksum
                pass
    except (EOFError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
        sys.exit(f"{file} is damaged or not a backup: {error}. Nothing was changed.")
    except OSError as error:
        sys.exit(f"{file} cannot be read: {error.strerror}. Nothing was changed.")
    # A header contains invalid numbers, is too large, or nests other headers too deeply.
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:
        about, why = None, f": {error}" if str(error) else ""
    # If the archive lacks a volume that the manifest lists, that volume would be emptied and not
    # restored.
    if about is None or found != set(about["volumes"]):
        sys.exit(f"{file} is not a backup that this version understands{why}. Nothing was changed.")
    said = f"A backup of {about['hub'][:100]}, made {about['made'][:100]}."
    print(plain(said), file=sys.stderr)
    return about["volumes"]


class Member(tarfile.TarInfo):
    """A tar member. An unreadable header raises an error instead of ending the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Read the next member; raise `tarfile.ReadError` if it cannot be read."""
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError(str(error)) from None


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Limit this process's memory, because a small file can declare a header of gigabytes."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = min([MEMORY, *(each for each in before if each != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def folders(archive: tarfile.TarFile) -> set[str]:
    """Return the names of the top-level folders of all members that have not been read yet.

    Raises
    ------
    ValueError
        If tar could not restore a member on any disk. During the restore, tar would fail only after
        the old files had been deleted.
    """
    found: set[str] = set()
    seen: dict[int, bool] = {}  # hash of a path in this top-level folder -> is it a folder?
    while member := archive.next():
        top = member.name.partition("/")[0]
        if top not in found:
            found.add(top)
            seen = {hash(top): True}
        elif hash(top) not in seen:
            raise ValueError(f"the archive does not store the files of {top[:100]!r} together")
        check_member(member, seen)
        archive.members.clear()  # otherwise, tarfile would keep every member in memory
    return found


def check_member(member: tarfile.TarInfo, seen: dict[int, bool]) -> None:
    """Raise ValueError if tar could not restore the member; otherwise, add it to `seen`.

    `seen` contains the earlier members of the same top-level folder.
    """
    name, target = os.fsencode(member.name), os.fsencode(member.linkname)
    parts = name.split(b"/")
    folder = member.name.rpartition("/")[0]
    possible = (
        (member.isreg() or member.isdir() or member.issym() or member.islnk() or member.isfifo())
        and (member.isreg() or not member.size)
        and (member.isdir() or not member.pax_headers.get("path", "").endswith("/"))
        and b"\0" not in name + target
        and not {b"", b".", b".."}.intersection(parts)
        and max(map(len, parts)) < 2**8
        and len(name) < 2**12
        and (not folder or seen.get(hash(folder)))
        and (not member.issym() or 0 < len(target) < 2**12)
        and (not member.islnk() or seen.get(hash(member.linkname)) is False)
        and seen.setdefault(hash(member.name), member.isdir()) is member.isdir()
    )
    if not possible:
        raise ValueError(f"it contains {member.name[:100]!r}, which tar cannot restore")


def read_manifest(archive: tarfile.TarFile) -> dict[str, Any] | None:
    """Return a backup's manifest, or None if this version does not support it."""
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST:
        return None
    check_member(first, {})
    try:
        content = json.loads(archive.extractfile(first).read())
    except (ValueError, RecursionError):
        return None
    return content if is_manifest(content) else None


def is_manifest(content: Any) -> bool:
    """Return whether the content is a valid manifest.

    Check untrusted backups strictly: a volume's name becomes part of a path, and everything at that
    path is replaced.
    """
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        return False
    names = content.get("volumes")
    return (
        content["format"] == FORMAT
        and all(isinstance(content.get(key), str) for key in ("hub", "made"))
        and isinstance(names, list)
        and bool(names)
        and all(isinstance(name, str) and re.fullmatch(VOLUME, name) for name in names)
        and len(set(names)) == len(names)
    )


# --- Volumes


def volumes() -> dict[str, str]:
    """Return the volumes and folders to back up, keyed by their names in the archive.

    Backups exclude the volumes for metrics, and folders in `homes` whose names no learner can have.
    """
    pattern = rf"{re.escape(settings.NAME())}_({'|'.join(COMPOSE)})"
    found = homes.old_volumes()
    for volume in output("volume", "ls", "--quiet").split():
        if match := re.fullmatch(pattern, volume):
            found[match[1]] = volume
    root = Path(settings.homes())
    if (root / "homes").is_dir():
        found["shared"] = str(root / "shared")
        paths = [path for path in (root / "homes").iterdir() if path.is_dir()]
        folders = {f"home-{path.name}": str(path) for path in paths}
        found |= {name: path for name, path in folders.items() if re.fullmatch(VOLUME, name)}
    return found


def left_out(found: dict[str, str]) -> list[str]:
    """Return the paths of folders in `homes` that are not learners' home directories.

    Somebody else created these folders, for example by copying a home directory.
    """
    folder = Path(settings.homes()) / "homes"
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [str(path) for path in paths if path.name[0] != "." and str(path) not in found.values()]


def make_volume(name: str) -> str:
    """Create a volume if it is missing, and return its name; for a folder, return the path.

    `name` is the volume's or folder's name in the archive. If a folder is missing, Docker creates
    it when mounting it.
    """
    if name == "shared":
        return f"{settings.homes()}/shared"
    if name.startswith("home-"):
        return f"{settings.homes()}/homes/{name.removeprefix('home-')}"
    return compose_volume(name)


def not_empty(found: dict[str, str]) -> list[str]:
    """Return the names of the volumes and folders that are not empty."""
    look = ["find", ".", "-mindepth", "2", "-maxdepth", "2", "-printf", "%h\n"]
    run = throw_away(found, "ro", ["DAC_READ_SEARCH"], look)
    listing = subprocess.run(run, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return sorted(set(listing.stdout.decode().replace("./", "").split()))


def throw_away(
    found: dict[str, str], mode: str, rights: list[str], command: list[str]
) -> list[str]:
    """Return the command that runs a temporary container with these volumes and folders.

    The container's root user has only the capabilities in `rights`.
    """
    return [
        *(settings.DOCKER(), *run_command(), "--network=none", "--user=0", "--workdir=/volumes"),
        *(f"--cap-add={right}" for right in rights),
        *(f"--volume={volume}:/volumes/{name}:{mode}" for name, volume in found.items()),
        *(image_of_hub(), *command),
    ]


def database(action: str, *options: str, check: bool = True) -> None:
    """Run database.py in a temporary container, because the hub may not be running."""
    run = [
        *(settings.DOCKER(), *run_command(), "--network=host"),
        *("--env=COURSE_SPAWNER=docker", "--env=COURSE_DATABASE"),
        *(f"--volume={make_volume(name)}:/srv/{name}" for name in ("state", "secrets")),
        *(image_of_hub(), "python", "-m", "tfcourse.hub.database", action, *options),
    ]
    # Print to stderr, because the backup may be written to stdout.
    run = subprocess.run(run, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if check and run.returncode:
        sys.exit(1)  # the program has already printed the reason


@contextlib.contextmanager
def follow(lines: IO[bytes], names: Sequence[str]) -> Iterator[None]:
    """Print which volume tar is processing, and print tar's other output."""

    def read() -> None:
        done = 0
        for line in lines:
            text = line.decode(errors="replace").rstrip("\n")
            name = text.partition("/")[0]
            if name in names[done:]:
                done = names.index(name) + 1
                print(f"{done} of {len(names)}: {name}", file=sys.stderr)
            elif name not in (*names, MANIFEST):
                print(plain(text), file=sys.stderr)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        thread.join()

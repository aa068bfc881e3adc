"""Back up the hub in containers to one file, and restore it: `make backup` and `make restore`.

This module runs outside the containers, and needs only Docker. The file is a tar archive with one
folder for each of the hub's volumes (`state`, `secrets` and `certificates`), one for the class's
shared folder (`shared`), and one for each learner's home (`home-NAME`). Temporary containers read
and write the volumes and homes as root, because a learner may have made a file unreadable for
everyone else.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from tfcourse.hub import plain, settings
from tfcourse.hub.operations import homes
from tfcourse.hub.operations.engine import compose_volume, image_of_hub, output, run_command
from tfcourse.hub.state import ROOT, remove_leftovers, sync, unused

FORMAT = 1  # version of the archive's format

MANIFEST = "manifest.json"  # the archive's first member
LARGEST = 2**24  # bytes in a manifest, which is enough for a hundred thousand learners' names

# The name of a folder in the archive: one of Compose's volumes, `shared`, or a learner's home.
VOLUME = r"home-[\w-][\w.-]{0,250}|[a-z]{1,40}"

# The live database. The archive contains a copy instead, made just before the backup (database.py).
LIVE = [f"state/hub/jupyterhub.sqlite{end}" for end in ("", "-journal", "-wal", "-shm")]


def default_file(note: str = "") -> Path:
    """Return a path for a new backup, named after the hub and the time.

    Only its owner can open the folder of backups. The path is always new, even if the clock has
    gone back.
    """
    folder = ROOT / ".course" / "backups"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_leftovers(folder.glob("*.part"))
    return unused(folder, f"{settings.NAME()}-{datetime.now():%Y-%m-%d-%H%M%S}{note}", ".tar.gz")


# --- Back up


def backup(file: Path) -> None:
    """Write a backup to the file, or to stdout if the file is `-`.

    The hub can run and learners can work during the backup.
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
    names = sorted(found, key=lambda name: (not name.startswith("home"), name))  # accounts last
    tar = [
        *("tar", "--create", "--verbose", "--format=posix", "--numeric-owner", "--sparse"),
        *("--pax-option=delete=atime,delete=ctime", "--anchored", "--no-wildcards"),
        *(f"--exclude={name}" for name in without),
        *("--", MANIFEST, *names),
    ]
    write = f'printf %s "$1" >{MANIFEST} && shift && exec "$@"'
    command = ["sh", "-c", write, "sh", json.dumps(manifest(names)), *tar]
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
                # Exit code 1 means that a file changed or vanished while learners were working.
                if process.wait() > 1:
                    sys.exit("The backup failed and was not kept.")
        except OSError as error:
            sys.exit(f"The backup cannot be written to {file}: {error.strerror}.")
        finally:
            process.kill()  # otherwise, after an error, tar would wait for a reader
    print(plain(f"The backup is complete: {file}"), file=sys.stderr)


@contextlib.contextmanager
def whole(file: Path) -> Iterator[IO[bytes]]:
    """Yield a compressed file that only its owner can read; it gets its name once it is complete.

    `-` means stdout without compression, for a program that compresses its input itself.
    """
    if str(file) == "-":
        yield sys.stdout.buffer
        return
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)  # left by a killed run
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            # Use the fastest level, because pictures and models hardly compress.
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw) as target:
                yield target
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(file)
        sync(file.parent)
    finally:
        part.unlink(missing_ok=True)


def manifest(names: list[str]) -> dict[str, object]:
    """Return what the archive contains, and which versions wrote it."""
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
    """Restore everything in the file; change nothing unless the file is complete."""
    names = check(file)
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
    with (
        contextlib.suppress(BrokenPipeError),  # tar prints the reason
        subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        follow(process.stdout, names),
        gzip.open(file) as source,
    ):
        shutil.copyfileobj(source, process.stdin, 2**20)
        process.stdin.close()
    if process.returncode:
        sys.exit("The restore stopped half-way. Fix what is reported above, then run it again.")
    database("recover", *(["--replace"] if replace else []))
    print("Everything is restored. `make up` starts the hub.", file=sys.stderr)


def check_stopped() -> None:
    """Exit with a message if anything that uses the volumes is running."""
    if output("ps", "--quiet", f"--filter=label=com.docker.compose.project={settings.NAME()}"):
        sys.exit("The hub is running. Stop it first: make down")
    if running := homes.servers():
        sys.exit(
            "Learners' servers are still using the work that would be replaced. Stop them:\n"
            f"docker stop {' '.join(running)}"
        )


def check(file: Path) -> list[str]:
    """Return the names of the volumes in the file.

    Exit with a message unless the file is a complete backup that this module wrote.
    """
    if file.is_dir():
        sys.exit(f"{file} is a folder, not a backup.")
    print(plain(f"Checking {file} ..."), file=sys.stderr)
    try:
        with gzip.open(file) as source:
            with tarfile.open(fileobj=source, mode="r|", bufsize=2**20) as archive:
                about = read_manifest(archive)
                found = folders(archive) if about else set()
            while source.read(2**20):  # read to the end, where the checksum is
                pass
    except (EOFError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
        sys.exit(f"{file} is damaged or not a backup: {error}. Nothing was changed.")
    except OSError as error:
        sys.exit(f"{file} cannot be read: {error.strerror}. Nothing was changed.")
    except (ValueError, OverflowError, MemoryError):  # meaningless numbers in a header
        about = None
    # A volume that the manifest names but the archive lacks would be emptied and not restored.
    if about is None or found != set(about["volumes"]):
        sys.exit(f"{file} is not a backup that this version understands. Nothing was changed.")
    said = f"A backup of {about['hub'][:100]}, made {about['made'][:100]}."
    print(plain(said), file=sys.stderr)
    return about["volumes"]


def folders(archive: tarfile.TarFile) -> set[str]:
    """Return the names of the top-level folders of all members that have not been read yet."""
    found = set()
    while member := archive.next():
        found.add(member.name.partition("/")[0])
        archive.members.clear()  # do not keep a million members in memory
    return found


def read_manifest(archive: tarfile.TarFile) -> dict[str, Any] | None:
    """Return the manifest of a backup, or None if this version does not understand it."""
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST:
        return None
    try:
        content = json.loads(archive.extractfile(first).read())
    except (ValueError, RecursionError):
        return None
    return content if is_manifest(content) else None


def is_manifest(content: Any) -> bool:
    """Return whether the content is a valid manifest. A backup can come from anywhere.

    A volume's name becomes part of a path, and everything at that path is replaced.
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
    """Return the volumes and folders for a backup, keyed by their names in the archive.

    A backup does not contain the volumes for metrics.
    """
    pattern = rf"{re.escape(settings.NAME())}_((?!monitoring|prometheus|grafana)[a-z]+)"
    found = homes.old_volumes()
    for volume in output("volume", "ls", "--quiet").split():
        if match := re.fullmatch(pattern, volume):
            found[match[1]] = volume
    root = Path(settings.homes())
    if (root / "homes").is_dir():
        found["shared"] = str(root / "shared")
        learners = (path for path in (root / "homes").iterdir() if path.name[0] != ".")
        found |= {f"home-{path.name}": str(path) for path in learners}
    return found


def make_volume(name: str) -> str:
    """Create a volume unless it exists; return its name, or the path of a folder.

    `name` is the name in the archive. Docker creates a missing folder when mounting it.
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
    """Return the command for a temporary container with these volumes and folders.

    The container's root user has only the capabilities in `rights`.
    """
    return [
        *(settings.DOCKER(), *run_command(), "--network=none", "--user=0", "--workdir=/volumes"),
        *(f"--cap-add={right}" for right in rights),
        *(f"--volume={volume}:/volumes/{name}:{mode}" for name, volume in found.items()),
        *(image_of_hub(), *command),
    ]


def database(action: str, *options: str, check: bool = True) -> None:
    """Run database.py in a temporary container, because the hub's container may be down."""
    run = [
        *(settings.DOCKER(), *run_command(), "--network=host"),
        *("--env=COURSE_SPAWNER=docker", "--env=COURSE_DATABASE"),
        *(f"--volume={make_volume(name)}:/srv/{name}" for name in ("state", "secrets")),
        *(image_of_hub(), "python", "-m", "tfcourse.hub.database", action, *options),
    ]
    # The output must not end up in a backup that is written to stdout.
    run = subprocess.run(run, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if check and run.returncode:
        sys.exit(1)  # the program has printed the reason


@contextlib.contextmanager
def follow(lines: IO[bytes], names: list[str]) -> Iterator[None]:
    """Report which volume tar is working on, and pass on tar's other output."""

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

"""Find, read and write the hub's persistent files: accounts, work and passwords."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tfcourse.hub import say, settings

ROOT = Path(__file__).resolve().parents[2]


# A pattern for valid user names. A user name also becomes the name of a folder or volume, so it
# cannot start with a dot or contain a slash. The final \Z makes the pattern match the whole name.
NAMES = r"[a-z0-9][a-z0-9_.-]{0,31}\Z"

NAMES_RULE = (
    "A user name has at most 32 characters: lowercase letters, digits, dots, underscores and "
    "hyphens. It must start with a letter or digit."
)

# People read passwords aloud and type them, so the alphabet has no characters that look alike.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"

LEFTOVER_AGE = 3600  # seconds; writing a temporary file never takes longer


def state_folder() -> Path:
    """Return the folder for persistent files, COURSE_STATE (by default, `.course` in the clone)."""
    return Path(settings.STATE() or ROOT / ".course").absolute()


def own_config() -> list[Path]:
    """Return the operator's own settings files in loading order."""
    folder = Path(settings.CONFIG() or ROOT / "jupyterhub_config.d")
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix == ".py")
        for path in found:
            path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        sys.exit(
            f"{error.filename} cannot be read: {error.strerror}. The hub's user needs to read it:\n"
            "run `chmod -R a+rX` on the folder of your own settings."
        )
    return found


def check_own_config(c: Any) -> None:
    """Exit with a message if the operator's own settings contain a path that cannot work."""
    path = c.JupyterHub.get("base_url", "/") if "JupyterHub" in c else "/"
    if path != "/":
        sys.exit(
            f"c.JupyterHub.base_url is {path!r}, but the hub needs a host name of its own:\n"
            "its proxy recognises learners' servers by paths that begin at /. See\n"
            '"Unusual networks" in docs/operators.md.'
        )


def port_error(port: int, address: str = "127.0.0.1") -> OSError | None:
    """Return the error that prevents a program from listening on the port, or None."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        # Ignore recently closed connections, as servers do.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            return OSError(error.errno, os.strerror(error.errno), str(port))
    return None


def private_folder(path: Path) -> Path:
    """Create a folder that only its owner can open, if it is missing; return its path."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def hub_folder() -> Path:
    """Return the folder with the hub's own files; exit with a message if it cannot be created."""
    folder = state_folder() / "hub"
    try:
        return private_folder(folder)
    except OSError as error:
        sys.exit(f"The hub's folder {folder} cannot be created: {error.strerror}.")


def password(path: Path, length: int = 16) -> str:
    """Return the password in the file; create a password if the file is missing or damaged.

    Only the file's owner can read the password.
    """
    whole = rf"[!-~]{{{length},}}"  # ASCII characters, at least as many as in a new password
    return kept(path, whole, partial(new_password, length))


def cookie_secret(path: Path) -> None:
    """Replace a damaged cookie secret, because JupyterHub would not start with it."""
    if path.exists():
        whole = r"([0-9a-fA-F]{2}){32,}"
        kept(path, whole, partial(secrets.token_hex, 32), " Everyone has to log in again.")


def kept(path: Path, whole: str, new: Callable[[], str], follows: str = "") -> str:
    """Return the secret in the file; create one if it is missing or does not match `whole`.

    After a power cut, a file can be empty, truncated or full of zero bytes. Such content must never
    be used as a secret. `follows` is a sentence about the consequences of a new secret.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            text = path.read_text(encoding="ascii", errors="replace").strip()
            if re.fullmatch(whole, text):
                return text
            write(path, new().encode() + b"\n")
            say(f"{path} was damaged, perhaps by a power cut. A new one has been made.{follows}")
        write_once(path, new().encode() + b"\n")
        return path.read_text().strip()
    except OSError as error:
        sys.exit(f"{path} cannot be read or written: {error.strerror}. It has to be the hub's own.")


def new_password(length: int = 16) -> str:
    """Return a new password of `length` characters, in groups of four."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(length))
    return "-".join(letters[i : i + 4] for i in range(0, length, 4))


def proxy_token() -> str:
    """Return the hub's token for the proxy's API, from the folder that the hub and the proxy share.

    The hub and the proxy can start at the same time, so one of them waits until the other has
    created the token.
    """
    folder = Path(settings.SECRETS())
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return password(folder / "proxy-token", length=32)
    finally:
        os.close(lock)


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write or replace a file atomically: a power cut leaves either the old or the new content."""
    written_aside(path, content, mode).replace(path)
    sync(path.parent)


def write_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file atomically, unless its path already exists.

    A broken symbolic link also counts as an existing path.
    """
    if os.path.lexists(path):
        return
    aside = written_aside(path, content, mode)
    try:
        os.link(aside, path)  # unlike a rename, a link never replaces a file
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            aside.rename(path)
    aside.unlink(missing_ok=True)
    sync(path.parent)


def written_aside(path: Path, content: bytes, mode: int) -> Path:
    """Write the content to a temporary file in the same folder; sync it, and return its path."""
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)  # left by a run that was killed while writing
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove killed programs' temporary files and folders if unchanged for at least an hour."""
    for path in paths:
        with contextlib.suppress(OSError):  # another program may have removed it
            if time.time() - path.lstat().st_mtime > LEFTOVER_AGE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def unused(folder: Path, name: str, suffix: str = "") -> Path:
    """Return an unused path, with a number added if the name is already taken.

    A name that contains the time may be taken if the clock was set back.
    """
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    paths = (folder / f"{name}{number}{suffix}" for number in numbers)
    return next(path for path in paths if not os.path.lexists(path))


def sync(path: Path) -> None:
    """Flush a file's content or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

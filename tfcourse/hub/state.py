"""Where the hub keeps what outlives it: accounts, work and passwords."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import sys
from pathlib import Path

from tfcourse.hub import settings

ROOT = Path(__file__).resolve().parents[2]


# A valid user name. It also names a folder or a volume, so it has no leading dot and no slash.
# Because of the \Z, the whole name has to match.
NAMES = r"[a-z0-9][a-z0-9_.-]{0,31}\Z"

# People read passwords aloud and type them, so no character looks like another one.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def state_folder() -> Path:
    """Return the folder that outlives the hub: COURSE_STATE, by default `.course` in the clone."""
    return Path(settings.STATE() or ROOT / ".course").absolute()


def own_config() -> list[Path]:
    """Return the operator's own settings files in the order in which they are loaded."""
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


def port_error(port: int, address: str = "127.0.0.1") -> OSError | None:
    """Return the error that keeps a program from listening on the port, or None."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        # Like servers, ignore connections that were closed a moment ago.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            return OSError(error.errno, os.strerror(error.errno), str(port))
    return None


def private_folder(path: Path) -> Path:
    """Create the folder if it is missing, closed to the machine's other users; return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def password(path: Path, length: int = 16) -> str:
    """Return the password in the file; create a new one the first time.

    Only the file's owner may read it.
    """
    if not path.exists():
        write_once(path, new_password(length).encode() + b"\n")
    return path.read_text().strip()


def new_password(length: int = 16) -> str:
    """Return a new password of `length` characters, in groups of four."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(length))
    return "-".join(letters[i : i + 4] for i in range(0, length, 4))


def proxy_token() -> str:
    """Return the token with which the hub controls its proxy, from the folder that both share.

    In a pod, both start at the same time, so one waits until the other has created the token.
    """
    folder = Path(settings.SECRETS())
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return password(folder / "proxy-token", length=32)
    finally:
        os.close(lock)


def write_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write the file unless its name is taken; never leave half a file behind.

    A name counts as taken even if it is that of a broken link.
    """
    if os.path.lexists(path):
        return
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)  # left by a run that was killed here
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    try:
        os.link(aside, path)  # unlike a rename, this never replaces a file
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            aside.rename(path)
    aside.unlink(missing_ok=True)

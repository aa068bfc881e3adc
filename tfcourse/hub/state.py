"""Where the hub keeps what outlives it: accounts, work, the password."""

from __future__ import annotations

import fcntl
import math
import os
import re
import secrets
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MIB, GIB = 2**20, 2**30  # bytes

# What a user may be called. It becomes a folder or a volume: no dots in front, no slashes. \Z: all
# of it has to match.
NAMES = r"[a-z0-9][a-z0-9_.-]{0,31}\Z"

# For reading aloud and typing: no character that looks like another one.
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def state_folder() -> Path:
    """Return the folder that holds all of it: COURSE_STATE, by default `.course` in the clone."""
    return Path(os.environ.get("COURSE_STATE") or ROOT / ".course").absolute()


def in_a_pod() -> bool:
    """Tell whether this is a hub, or its proxy, in a cluster: without `make`, behind an ingress."""
    return os.environ.get("COURSE_SPAWNER") == "kubernetes"


def port(variable: str, default: int, highest: int = 65535) -> int:
    """Return a port's number from the environment; exit with a sentence if it is none."""
    text = os.environ.get(variable) or str(default)
    if not (text.isdecimal() and 1 <= int(text) <= highest):
        sys.exit(f"The port {text!r} is not a number from 1 to {highest}.")
    return int(text)


def ports() -> tuple[int, int, int]:
    """Return the ports of the public address, the hub's API and the proxy's API."""
    first = port("COURSE_PORT", 8000, highest=65533)
    return first, first + 1, first + 2


def port_error(port: int, address: str = "127.0.0.1") -> OSError | None:
    """Return what is wrong if this machine's port cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        # As servers do: connections that were closed a moment ago do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            return OSError(error.errno, os.strerror(error.errno), str(port))
    return None


def choice(variable: str, *values: str) -> str:
    """Return a setting that has to be one of these, by default the first; else exit."""
    value = os.environ.get(variable) or values[0]
    if value not in values:
        known = " or ".join(map(repr, values))
        sys.exit(f"{variable} is {value!r}, but it has to be {known}.")
    return value


def number(variable: str, default: float, positive: bool = False) -> float:
    """Return a number from the environment; exit with a sentence if it is none, or too small.

    0 is too small only if it has to be positive.
    """
    text = os.environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf or (positive and not value):
        least = "more than 0" if positive else "0 or more"
        sys.exit(f"{variable} is {text!r}, but it has to be a number, {least}.")
    return value


def memory(variable: str, default: int) -> int:
    """Return an amount of memory in bytes; exit with a sentence if the environment has none."""
    text = os.environ.get(variable)
    if not text:
        return default
    found = re.fullmatch(r"([1-9][0-9]*(?:\.[0-9]+)?)([MG])", text)
    if not found:
        sys.exit(f"{variable} is {text!r}, but it has to be like 3G or 1500M.")
    return int(float(found[1]) * {"M": MIB, "G": GIB}[found[2]])


def switch(variable: str) -> bool:
    """Return whether a setting is `on`, and not `off`, which is the default; else exit."""
    return choice(variable, "off", "on") == "on"


def private_folder(path: Path) -> Path:
    """Make the folder, closed to the machine's other users, unless it is there; return it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def password(path: Path, length: int = 16) -> str:
    """Return the password in the file, at the first time a new one; only its owner may read it."""
    if not path.exists():
        write_once(path, new_password(length).encode() + b"\n")
    return path.read_text().strip()


def new_password(length: int = 16) -> str:
    """Return a password of so many characters, in groups of four."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(length))
    return "-".join(letters[i : i + 4] for i in range(0, length, 4))


def proxy_token() -> str:
    """Return the token with which the hub controls its proxy, from the folder that both share.

    In a pod both start at the same time, and one of them has to wait until the other has made it.
    """
    folder = Path(os.environ["COURSE_SECRETS"])
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return password(folder / "proxy-token", length=32)
    finally:
        os.close(lock)


def write_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write the file unless the name is taken, whatever by; never leave half of one behind."""
    if os.path.lexists(path):
        return
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)  # of a run that was killed here
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    try:
        os.link(aside, path)  # unlike a rename, it never replaces
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not os.path.lexists(path):
            aside.rename(path)
    aside.unlink(missing_ok=True)

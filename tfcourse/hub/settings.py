"""Look through the settings: before `make up` builds or starts anything, `python -m ...settings`.

A misspelt one would be passed over in silence, also where it should keep learners apart.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

DOCKER = Path(__file__).resolve().parents[2] / "docker"


def main() -> None:
    """Exit with a sentence if one cannot be."""
    check_name(os.environ.get("COURSE_NAME") or "tensorflow-course")
    file = DOCKER / ".env"
    check_file(file.read_text() if file.exists() else "")


def check_name(name: str) -> None:
    """Exit if Docker and Compose would not call things by this name as it is."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", name):
        sys.exit(
            f"COURSE_NAME is {name!r}, but it has to be of small letters, digits, - and _ alone."
        )


def check_file(text: str) -> None:
    """Exit if a file of settings, docker/.env, has one that there is not."""
    check_names("docker/.env", names_in(text, commented=False))


def check_names(where: str, names: Iterable[str], more: Iterable[str] = ()) -> None:
    """Exit if there is no such setting, neither in docker/.env.example nor among `more`."""
    known = [*names_in((DOCKER / ".env.example").read_text()), *more]
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 1)
            meant = f" Is it {close[0]}?" if close else ""
            sys.exit(
                f"{where}: there is no setting {name}.{meant}\n"
                "docker/.env.example explains all that there are, and kubernetes/hub.yaml those\n"
                "of a cluster alone."
            )


def names_in(text: str, commented: bool = True) -> list[str]:
    """Return the names of the course's settings in a file, also of those that are commented out."""
    comment = "#?" if commented else ""
    return re.findall(rf"^{comment}\s*(?:export\s+)?(COURSE_\w+)\s*=", text, re.MULTILINE)


MIB, GIB = 2**20, 2**30  # bytes


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


if __name__ == "__main__":
    main()

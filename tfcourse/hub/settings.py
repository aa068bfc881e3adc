"""Look through the settings: before `make up` builds or starts anything, `python -m ...settings`.

A misspelt one would be passed over in silence, also where it should keep learners apart.
"""

from __future__ import annotations

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


if __name__ == "__main__":
    main()

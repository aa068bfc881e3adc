"""Run a command that exits when its parent process does, even if the parent is killed.

`python die_with_parent.py COMMAND ...` replaces its own process with the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; the setting survives exec


def main(command: list[str]) -> None:
    """Replace this process with the command, which exits when its parent does (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(command[0], command)  # noqa: S606 - the command comes from the configuration


if __name__ == "__main__":
    main(sys.argv[1:])

"""Run a command that ends when the process that started it does, even if that one is killed.

`python die_with_parent.py COMMAND ...` replaces itself by the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; what it sets outlives the exec


def main(command: list[str]) -> None:
    """Become the command. Where there is no Linux, without the tie."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(command[0], command)  # noqa: S606 - it is the configuration's


if __name__ == "__main__":
    main(sys.argv[1:])

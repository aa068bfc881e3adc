#!/usr/bin/env python3
"""Start Chromium so that it cannot detect network changes.

Chromium aborts all of its requests when a network interface appears or disappears, for example when
another test creates or removes a Docker network. On Linux, Chromium monitors network interfaces
through a netlink socket. This script uses seccomp(2) to prevent Chromium from opening one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")
SOCKET = {"x86_64": 41, "aarch64": 198}  # the number of the `socket` system call
AF_NETLINK, EAFNOSUPPORT = 16, 97
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
REFUSE, ALLOW = 0x0005_0000 | EAFNOSUPPORT, 0x7FFF_0000
LOAD, SKIP_UNLESS, RETURN = 0x20, 0x15, 0x06  # instructions of classic BPF


class Program(ctypes.Structure):
    """A seccomp filter in the kernel's format (`struct sock_fprog`)."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def program() -> str | None:
    """Return the path of the Chromium executable, or None if it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def refuse_netlink() -> None:
    """Block netlink sockets in this process and its children; raise OSError on failure."""
    steps = [
        (LOAD, 0, 0),  # load the system call number
        (SKIP_UNLESS, 3, SOCKET[os.uname().machine]),
        (LOAD, 0, 16),  # load the call's first argument, the address family
        (SKIP_UNLESS, 1, AF_NETLINK),
        (RETURN, 0, REFUSE),
        (RETURN, 0, ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", what, 0, skip, value) for what, skip, value in steps)
    filter_ = Program(len(steps), code)
    control = ctypes.CDLL(None, use_errno=True).prctl
    if control(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or control(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp is not available")


if __name__ == "__main__":
    if sys.platform == "linux" and os.uname().machine in SOCKET:
        refuse_netlink()
    path = program() or sys.exit("Chromium is not on PATH")
    os.execv(path, [path, *sys.argv[1:]])

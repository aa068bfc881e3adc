"""Limit the size of home directories on a file system with project quotas (XFS or ext4).

Each home directory has a project ID, which new files in the directory inherit. The file system
tracks and limits the disk space that each project uses. Sources: linux/fs.h (`fsxattr`),
linux/quota.h (`if_dqblk`), linux/dqblk_xfs.h (`fs_quota_statv`) and the manual pages quotactl(2)
and xfs_quota(8). The functions in this module require root privileges.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

FIRST = 1_000_000  # project ID of the first home; operators' own IDs are usually lower

GET, SET = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
FSXATTR = struct.Struct("=5I8x")  # flags, extsize, nextents, project, cowextsize
INHERIT = 0x200  # FS_XFLAG_PROJINHERIT

QUOTACTL_FD = 443  # the system call number on all architectures, since Linux 5.14
SET_QUOTA = 0x800008 << 8 | 2  # Q_SETQUOTA for PRJQUOTA
DQBLK = struct.Struct("=8QI4x")
BLOCK_LIMITS = 1  # QIF_BLIMITS
KIB = 1024  # bytes; the unit of limits
GET_STATE = 0x5808 << 8 | 2  # Q_XGETQSTATV for PRJQUOTA; ext4 also supports this command
STATV = struct.Struct("=bxH156x")  # version, flags
STATV_VERSION = 1  # FS_QSTATV_VERSION1
ENFORCED = 0x20  # FS_QUOTA_PDQ_ENFD


@contextmanager
def opened(path: Path | str, parent: int | None = None) -> Iterator[int]:
    """Open a file or folder and yield its descriptor; raise OSError for a symbolic link.

    A relative path is resolved in the folder with the descriptor `parent`.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def project(path: Path) -> int:
    """Return the project ID of a file or folder, or 0 if it has none."""
    with opened(path) as descriptor:
        return FSXATTR.unpack(fcntl.ioctl(descriptor, GET, bytes(FSXATTR.size)))[3]


def assign(path: Path | str, number: int, parent: int | None = None) -> None:
    """Assign a file or folder to a project; new files in the folder inherit the project."""
    with opened(path, parent) as descriptor:
        found = FSXATTR.unpack(fcntl.ioctl(descriptor, GET, bytes(FSXATTR.size)))
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flags = found[0] | INHERIT if is_folder else found[0]
        if (flags, number) != (found[0], found[3]):
            fcntl.ioctl(descriptor, SET, FSXATTR.pack(flags, *found[1:3], number, found[4]))


def assign_all(folder: Path, number: int) -> None:
    """Assign a folder and everything in it to a project, as `xfs_quota`'s `project -s` does.

    The owner's programs may be running, so files can disappear or be replaced by links.
    """
    assign(folder, number)
    for _, folders, files, parent in os.fwalk(folder):
        for name in folders + files:
            with suppress(FileNotFoundError):
                # Skip links, pipes and sockets, which hold no data.
                mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
                if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                    assign(name, number, parent)


def quotactl(folder: Path, command: int, number: int, values: ctypes.Array[ctypes.c_char]) -> None:
    """Run a quotactl_fd(2) command for a project in the folder's file system.

    Raises
    ------
    OSError
        If the kernel or the file system does not support project quotas, or if they are off.
    """
    system = ctypes.CDLL(None, use_errno=True)
    with opened(folder) as descriptor:
        if system.syscall(QUOTACTL_FD, descriptor, command, number, values):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


def limit(folder: Path, number: int, size: int) -> None:
    """Limit a project in the folder's file system to `size` bytes; 0 removes the limit."""
    values = DQBLK.pack(size // KIB, 0, 0, 0, 0, 0, 0, 0, BLOCK_LIMITS)
    quotactl(folder, SET_QUOTA, number, ctypes.create_string_buffer(values, DQBLK.size))


def check(folder: Path) -> None:
    """Raise OSError unless the folder's file system enforces project quotas."""
    state = ctypes.create_string_buffer(STATV.pack(STATV_VERSION, 0), STATV.size)
    quotactl(folder, GET_STATE, 0, state)
    if not STATV.unpack(state)[1] & ENFORCED:
        raise OSError(errno.ESRCH, "Project quotas are off", str(folder))


def set_limit(folder: Path, others: list[Path], size: int) -> None:
    """Set the quota of the folder's project; assign the folder its own project if it has none.

    The folder must not share a project with any of the folders in `others`. Learners can change the
    project of their own files (outside a user namespace), so this function checks every folder's
    project.
    """
    taken = {project(other) for other in others if other != folder}
    number = project(folder)
    if number < FIRST or number in taken:
        number = next(number for number in count(FIRST) if number not in taken)
    # Remove any old limit first, because ext4 refuses to assign files that exceed a project's
    # limit.
    limit(folder, number, 0)
    assign_all(folder, number)
    limit(folder, number, size)

"""Test quotas for home directories; skip tests if the host lacks project quotas."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfcourse.hub.spawners import homes, quotas

MIB = 2**20


@pytest.fixture(params=["ext4", "xfs"])
def disk(request, tmp_path, monkeypatch) -> Iterator[Path]:
    """Return a mounted disk with project quotas, prepared for home directories."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    make = {
        "ext4": ["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image],
        "xfs": ["mkfs.xfs", "-q", image],
    }[request.param]
    mount = ["mount", "-o", "loop,prjquota", image, disk]
    for command in (make, mount):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip(f"{command[0]} is not installed")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine has no project quotas on {request.param}: {error.stderr}")
    monkeypatch.setattr(homes, "MOUNT", disk)
    monkeypatch.setenv("COURSE_STATE", str(tmp_path))
    homes.prepare("/srv/course", "course")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(home: Path, size: int) -> None:
    """Write `size` bytes without CAP_SYS_RESOURCE, which would allow root to exceed ext4 quotas."""
    code = "import os, sys; n = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\n"
    code += f"for _ in range({size // MIB}):\n    os.write(n, os.urandom({MIB}))\nos.fsync(n)"
    run = ["setpriv", "--bounding-set=-sys_resource", sys.executable, "-c", code, home / "filling"]
    if (done := subprocess.run(run, capture_output=True, text=True)).returncode:
        raise OSError(done.stderr)


@pytest.mark.root
def test_a_home_is_limited_and_the_others_are_not_affected(disk):
    for name in ("ada", "bob"):
        homes.make(name, lambda part: homes.limit(30 * MIB, [disk / part]))
    ada, bob = disk / "homes" / "ada", disk / "homes" / "bob"
    assert quotas.project(ada) != quotas.project(bob)
    (ada / "folder").mkdir()
    assert quotas.project(ada / "folder") == quotas.project(ada)
    with pytest.raises(OSError, match=r"No space left|quota exceeded"):
        fill(ada / "folder", 40 * MIB)
    fill(bob, 20 * MIB)
    homes.limit(60 * MIB, [])  # the new limit for all home directories
    (ada / "folder" / "filling").unlink()
    fill(ada, 40 * MIB)


@pytest.mark.root
def test_work_that_is_there_already_counts(disk):
    homes.make("ada")
    home = disk / "homes" / "ada"
    fill(home, 20 * MIB)
    (home / "link").symlink_to("/etc")
    os.mkfifo(home / "pipe")
    (home / "more").mkdir()
    homes.limit(30 * MIB, [])
    assert quotas.project(home / "filling") == quotas.project(home)
    with pytest.raises(OSError, match=r"No space left|quota exceeded"):
        fill(home / "more", 20 * MIB)


def test_a_disk_without_quotas_gets_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(homes, "MOUNT", tmp_path / "homes")
    monkeypatch.setenv("COURSE_STATE", str(tmp_path))
    (tmp_path / "homes").mkdir()
    homes.prepare("/srv/course", "course")
    with pytest.raises(SystemExit, match="the disk with the homes has no project quotas"):
        homes.limit(30 * MIB, [])

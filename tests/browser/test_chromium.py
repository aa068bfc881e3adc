"""Test that Chromium starts without netlink sockets, which it uses to detect network changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import chromium
import pytest

SOCKETS = """
import socket
import chromium
chromium.refuse_netlink()
socket.socket(socket.AF_INET).close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in chromium.SOCKET,
    reason="only Linux has netlink, and we know the system call's number for only two processors",
)
def test_it_opens_no_netlink_socket():
    folder = Path(chromium.__file__).parent
    command = [sys.executable, "-c", SOCKETS]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Address family not supported" in run.stderr

"""Wait until the hub in containers can be used, then say how: `python -m tfcourse.hub.ready`."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import time

from tfcourse.hub import say, state

PATIENCE = 120  # seconds; the first start makes the database and probes for GPUs


def main() -> None:
    """Wait; exit with a sentence if it takes too long."""
    port = state.ports()[0]
    address = os.environ.get("COURSE_ADDRESS") or "127.0.0.1"
    everywhere = address in ("0.0.0.0", "::")  # noqa: S104
    deadline = time.monotonic() + PATIENCE
    while not answers("127.0.0.1" if everywhere else address, port):
        if time.monotonic() > deadline:
            sys.exit("The hub does not answer. `make logs` shows why.")
        time.sleep(0.5)
    name = os.environ.get("COURSE_ADMIN") or "instructor"
    say(f"""
JupyterHub is ready.

  Address   http://{socket.gethostname() if everywhere else address}:{port}
  Admin     {name}
  Password  {state.password(state.state_folder() / "hub" / "admin-password")} (until you change it)

Learners sign up at that address; let them in on the page Authorize Users.
`make logs` shows what happens, `make down` stops it; accounts and work are kept.""")


def answers(address: str, port: int) -> bool:
    """Tell whether the hub answers through the proxy."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/hub/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()

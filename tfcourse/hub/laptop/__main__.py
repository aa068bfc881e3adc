"""Start JupyterHub on this machine: `make hub`, or `python -m tfcourse.hub.laptop`.

This module runs JupyterHub with jupyterhub_config.py in the same process. It first checks the
folder and the ports. It also writes a log file and prints messages to the terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO

from tfcourse.hub import say, settings
from tfcourse.hub.state import ROOT, port_error, private_folder, state_folder

GRACE = 3  # seconds to wait until the programs of a killed run have freed the ports


def main() -> None:
    """Check the folder and the ports, then run JupyterHub until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tfcourse.hub.laptop",
        description="Start JupyterHub on this machine and print its address and a log-in.",
        epilog="docs/operators.md lists the environment variables that it reads.",
    )
    parser.add_argument(
        "--port", help="the hub's port (default: 8000); the next two ports are used, too"
    )
    port = parser.parse_args().port
    if port:
        settings.PORT.set(port)
    needed = settings.ports()
    try:
        folder = private_folder(state_folder() / "hub")
        lock = claim(folder / "lock", f"http://127.0.0.1:{needed[0]}")
    except OSError as error:
        sys.exit(
            f"Accounts and work cannot be kept in {state_folder()}: {error.strerror}.\n"
            "If another user started the hub here before, start it as that user, or name another\n"
            "folder: make hub COURSE_STATE=/path/to/folder"
        )
    with lock:
        check_ports(needed)
        run(folder / "jupyterhub.log")


def claim(path: Path, address: str) -> IO[str]:
    """Open and lock a file, and return it; exit with a message if another hub holds the lock.

    Two hubs with the same accounts and work would overwrite each other's changes.
    """
    file = open(path, "a+")  # noqa: SIM115 - the caller closes it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # even a kill releases the lock
    except BlockingIOError:
        file.seek(0)
        sys.exit(
            f"JupyterHub is already running with these accounts, at {file.read()}\n"
            "Use that hub, or stop it with Ctrl-C in its terminal."
        )
    file.truncate(0)
    file.write(address)
    file.flush()
    return file


def check_ports(needed: tuple[int, ...]) -> None:
    """Exit with a message if a port cannot be used."""
    deadline = time.monotonic() + GRACE
    while error := next(filter(None, map(port_error, needed)), None):
        if error.errno != errno.EADDRINUSE:
            sys.exit(f"Port {error.filename} cannot be used: {error.strerror}. {advice(needed)}")
        if time.monotonic() > deadline:
            sys.exit(f"Port {error.filename} is in use by another program. {advice(needed)}")
        time.sleep(0.1)


def advice(needed: tuple[int, ...]) -> str:
    """Return advice on which ports to choose if a port cannot be used."""
    free = next(
        (
            port
            for port in range(8000, 65000, 100)
            if not any(port_error(port + offset) for offset in range(len(needed)))
        ),
        "...",
    )
    return f"JupyterHub needs {needed[0]} to {needed[-1]}; choose others: make hub PORT={free}"


def run(log: Path) -> None:
    """Run JupyterHub until it is stopped, even if it is stopped during startup."""
    # Treat SIGTERM like Ctrl-C until JupyterHub installs its own signal handlers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup sets SIG_IGN
        # When the terminal is closed, stop JupyterHub as after Ctrl-C.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    with contextlib.suppress(KeyboardInterrupt), open(log, "a+") as file:
        say(f"Starting JupyterHub (its log is {log}) ...")
        serve(file)
    say("JupyterHub has stopped. Accounts and work are kept for the next start.")


def serve(log: IO[str]) -> None:
    """Run JupyterHub and redirect its output to the log; exit with a message if it fails."""
    begin = log.tell()
    # The proxy and the servers also write to the log. Only say() still prints to the terminal.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    try:
        from tfcourse.hub.laptop.app import CourseHub  # takes seconds to import

        CourseHub.launch_instance(["-f", str(ROOT / "jupyterhub_config.py")])
    except ModuleNotFoundError as error:
        say(f"{error.name} is not installed for {sys.executable}: run `make hub`.")
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end.code, str):  # the configuration is invalid, and `code` is the message
            say(end.code)
        else:
            log.seek(begin)
            say("JupyterHub ended because of an error. The last lines of its log are:\n")
            say("".join(log.readlines()[-15:]))
        sys.exit(1)


if __name__ == "__main__":
    main()

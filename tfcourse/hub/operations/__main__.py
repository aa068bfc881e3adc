"""Run an operator's command, such as `make up` or `python3 -m tfcourse.hub.operations up`.

Settings come from docker/.env, but environment variables take precedence. All commands except
`values` need only Docker and Python's standard library.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tfcourse.hub import plain, settings
from tfcourse.hub.operations import backup, homes
from tfcourse.hub.operations.engine import compose, image_of_hub, output
from tfcourse.hub.state import ROOT

NEW = timedelta(seconds=10)  # a service that has run for longer does not exit at its start
RUN_IN_HUB = ("exec", "-T", "hub", "python", "-m")


def main(arguments: list[str] | None = None) -> None:
    """Run the chosen command; exit with a message if it fails."""
    options = parse(arguments)
    try:
        if options.command is not values:
            settings.load()
        options.command(options)
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    except FileNotFoundError as error:
        sys.exit(plain(f"{error.filename} was not found."))
    except OSError as error:
        sys.exit(plain(f"{error.filename or 'Something'} cannot be used: {error.strerror}."))
    except SystemExit as end:  # the message may quote files or visitors' input
        sys.exit(plain(end.code) if isinstance(end.code, str) else end.code)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the arguments. The result contains the command (as `command`) and its options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tfcourse.hub.operations",
        description="Run a hub for a class in containers on this machine.",
        epilog="docker/.env.example lists the settings; docs/operators.md explains the rest.",
    )
    commands = parser.add_subparsers(metavar="command", required=True)

    def add(command: Callable, about: str, name: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(name or command.__name__, help=about, description=f"{about}.")
        made.set_defaults(command=command)
        return made

    add(up, "start the hub, or apply new settings")
    add(down, "stop the hub; learners' servers keep running, accounts and work are kept")
    add(status, "show what is running")
    add(logs, "follow the hub's log until Ctrl-C")
    add(password, "give somebody a new password, and log them out").add_argument("name")
    made = add(save, "write accounts, secrets and work to one file; the hub can stay up", "backup")
    made.add_argument(
        "--file", type=Path, help="the new file; `-` is stdout (default: in .course/backups)"
    )
    made = add(restore, "restore everything in a backup; the hub must be stopped")
    made.add_argument("--replace", action="store_true", help="replace existing accounts and work")
    made.add_argument("file", type=Path, nargs="?", help="the backup")
    made = add(recover, "restore damaged or moved accounts from the last good copy")
    made.add_argument("--empty", action="store_true", help="start without accounts")
    made = add(values, "make and check values for Zero to JupyterHub")
    made.add_argument("--size", required=True, help="small, class or university")
    made.add_argument("--image", required=True, help="the learners' image, without its tag")
    made.add_argument("--output", type=Path, help="write to this file, not the terminal")
    made.add_argument(
        "--chart",
        default="",
        help="let Helm check the values, too, with this chart, such as jupyterhub/jupyterhub",
    )
    made.add_argument("site", type=Path, help="your site's file, like kubernetes/site.example.yaml")
    return parser.parse_args(arguments)


# --- The hub


def up(_: argparse.Namespace) -> None:
    """Start the hub, wait until it responds, and print how to log in."""
    settings.check()
    for setting, kind, is_one in (
        (settings.CERTIFICATE, "file", Path.is_file),
        (settings.KEY, "file", Path.is_file),
        (settings.ACME_ROOT, "file", Path.is_file),
        (settings.SIGN_ON_ROOT, "file", Path.is_file),
        (settings.CONFIG, "folder", Path.is_dir),
    ):
        path = setting()
        if path and not (path.startswith("/") and is_one(Path(path))):
            sys.exit(f"{setting.name}: there is no {kind} {path}. Give an absolute path.")
    build()
    homes.prepare()
    compose("up", "--detach", "--scale", f"https={int(settings.HOST.is_set)}")
    restart_what_waits()
    ready = compose(*RUN_IN_HUB, "tfcourse.hub.operations.ready", check=False)
    if ready:
        show_log("--tail", "15")
        sys.exit(1)


def down(_: argparse.Namespace) -> None:
    """Stop the hub."""
    compose("down", everything=True)


def status(_: argparse.Namespace) -> None:
    """Show the hub's containers and the number of running learners' servers."""
    compose("ps", everything=True)
    print(f"Learners' servers running: {len(homes.servers())}")


def logs(_: argparse.Namespace) -> None:
    """Show the log and follow it."""
    show_log("--follow", "--tail", "100")


def show_log(*options: str) -> None:
    """Show the log with terminal control characters escaped, because visitors can write to it."""
    compose("logs", *options, check=False, everything=True, each_line=plain)


def password(options: argparse.Namespace) -> None:
    """Set a new password for a user."""
    service = "--filter=label=com.docker.compose.service=hub"
    project = f"--filter=label=com.docker.compose.project={settings.NAME()}"
    if not output("ps", "--quiet", service, project):
        sys.exit("The hub has to be running for that: make up")
    compose(*RUN_IN_HUB, "tfcourse.hub.operations.password", options.name)
    compose("restart", "hub")


def build() -> None:
    """Build the images, unless they come from a registry.

    Reuse the Debian updates in the existing images. Only `make images` installs newer updates,
    because that takes minutes.
    """
    if not settings.has_registry():
        images = ["make", "--no-print-directory", "images", "KINDS=cpu hub", "PULL="]
        if week := updated():
            images.append(f"UPDATED={week}")
        if code := subprocess.run(images, cwd=ROOT, check=False).returncode:
            sys.exit(code)


def updated() -> str:
    """Return the week when the hub's image got Debian updates, or "" if there is no image."""
    label = '{{index .Config.Labels "tensorflow-course.updated"}}'
    is_there = output("image", "ls", "--quiet", image_of_hub())
    return output("image", "inspect", "--format", label, image_of_hub()) if is_there else ""


def restart_what_waits() -> None:
    """Restart crash-looping services now; the new settings may fix them.

    Docker would wait a minute before restarting such services. A service that Docker has just
    restarted may be about to exit again. Also restart the hub, because it might exit if the proxy
    is unreachable. Do not restart a proxy that keeps running.
    """
    project = f"--filter=label=com.docker.compose.project={settings.NAME()}"
    ids = output("ps", "--quiet", project).split()
    about = "--format={{.Id}} {{.State.Restarting}} {{.RestartCount}} {{.State.StartedAt}}"
    waiting = []
    for line in output("inspect", about, *ids).splitlines():
        container, restarting, restarts, started = line.split()
        since = datetime.fromisoformat(f"{started[:19]}+00:00")  # Docker adds nanoseconds
        is_new = datetime.now(UTC) - since < NEW
        if restarting == "true" or (int(restarts) and is_new):
            waiting.append(container)
    if waiting:
        output("restart", *waiting)
        compose("restart", "hub")


# --- Accounts and work


def save(options: argparse.Namespace) -> None:
    """Back up accounts, secrets and work."""
    backup.backup(options.file or backup.default_file())


def restore(options: argparse.Namespace) -> None:
    """Restore accounts, secrets and work from a backup."""
    if not options.file:
        sys.exit("Which backup? make restore BACKUP=.course/backups/...")
    build()
    backup.restore(options.file, options.replace)


def recover(options: argparse.Namespace) -> None:
    """Restore the accounts from the last good copy, or start without accounts."""
    compose("stop", "hub")
    backup.database("recover", *(["--empty"] if options.empty else []))
    print("Now start the hub: make up")


def values(options: argparse.Namespace) -> None:
    """Write the values for the Zero to JupyterHub chart."""
    try:
        from tfcourse.hub.operations import values
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed for {sys.executable}: run `make values`.")
    values.write(options.size, options.image, options.site, options.output, options.chart)


if __name__ == "__main__":
    main()

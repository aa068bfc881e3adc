"""Run an operator's command, as `python3 -m tfcourse.hub.operations up` or `make up`.

Settings are in docker/.env; environment variables take precedence. Only `values` needs more than
Python's standard library and Docker.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tfcourse.hub import plain, settings
from tfcourse.hub.operations import backup, homes
from tfcourse.hub.operations.engine import compose, image_of_hub, output
from tfcourse.hub.state import ROOT

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
    except SystemExit as end:  # a message can quote a file or a visitor, so escape it
        sys.exit(plain(end.code) if isinstance(end.code, str) else end.code)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command (as `command`) and its options."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tfcourse.hub.operations",
        description="Run a hub for a class on this machine, in containers.",
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
    """Start the hub, wait until it answers, and print how to log in."""
    settings.check()
    for setting, kind, is_one in (
        (settings.CERTIFICATE, "file", Path.is_file),
        (settings.KEY, "file", Path.is_file),
        (settings.ACME_ROOT, "file", Path.is_file),
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
    """Show the hub's containers, and how many learners' servers are running."""
    compose("ps", everything=True)
    print(f"Learners' servers running: {len(homes.servers())}")


def logs(_: argparse.Namespace) -> None:
    """Show the log, and follow it."""
    show_log("--follow", "--tail", "100")


def show_log(*options: str) -> None:
    """Show the log, but escape characters from visitors that could control the terminal."""
    compose("logs", *options, check=False, everything=True, each_line=plain)


def password(options: argparse.Namespace) -> None:
    """Give a user a new password."""
    service = "--filter=label=com.docker.compose.service=hub"
    project = f"--filter=label=com.docker.compose.project={settings.NAME()}"
    if not output("ps", "--quiet", service, project):
        sys.exit("The hub has to be running for that: make up")
    compose(*RUN_IN_HUB, "tfcourse.hub.operations.password", options.name)
    compose("restart", "hub")


def build() -> None:
    """Build the images, unless they come from a registry.

    Keep the week of Debian's updates that the images already contain. Only `make images` fetches
    newer updates, because that takes minutes.
    """
    if not settings.has_registry():
        images = ["make", "--no-print-directory", "images", "KINDS=cpu hub", "PULL="]
        if week := updated():
            images.append(f"UPDATED={week}")
        if code := subprocess.run(images, cwd=ROOT, check=False).returncode:
            sys.exit(code)


def updated() -> str:
    """Return the week of Debian's updates in the hub's image, or "" if there is no such image."""
    label = '{{index .Config.Labels "tensorflow-course.updated"}}'
    is_there = output("image", "ls", "--quiet", image_of_hub())
    return output("image", "inspect", "--format", label, image_of_hub()) if is_there else ""


def restart_what_waits() -> None:
    """Restart crash-looping services now; the new settings may fix them.

    Docker would restart such services only after a minute. Restart the hub, too, because it might
    otherwise exit when it cannot reach the proxy. Do not restart a proxy that is running.
    """
    project = f"--filter=label=com.docker.compose.project={settings.NAME()}"
    waiting = output("ps", "--quiet", "--filter=status=restarting", project).split()
    if waiting:
        output("restart", *waiting)
        compose("restart", "hub")


# --- Accounts and work, which outlive the hub


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
    """Recover the accounts from the last good copy, or start without any."""
    compose("stop", "hub")
    backup.database("recover", *(["--empty"] if options.empty else []))
    print("Now start the hub: make up")


def values(options: argparse.Namespace) -> None:
    """Write the values for Zero to JupyterHub's chart."""
    try:
        from tfcourse.hub.operations import values
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed for {sys.executable}: run `make values`.")
    values.write(options.size, options.image, options.site, options.output, options.chart)


if __name__ == "__main__":
    main()

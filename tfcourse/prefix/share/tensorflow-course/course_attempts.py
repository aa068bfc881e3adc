"""Send a learner's attempts at exercises to the hub.

A check appends each attempt to a file (`COURSE_ATTEMPTS`). The server sends new lines of that file,
and keeps trying if the hub does not respond. No attempt is lost if the hub or the server restarts.
"""

import contextlib
import http.client
import json
import os
import time
import urllib.error

import course_hub

LOOK = 0.5  # seconds between checks of the file
RARELY = 600  # seconds until the next try if the hub does not want attempts
RETRY = 5  # seconds to wait after a failure
LONGEST_MESSAGE = 300  # characters; the hub stores no more
TOGETHER = 100  # the maximum number of attempts in a request
LONGEST = 2**14  # bytes; a check writes shorter lines


class Attempts:
    """The file of attempts, and the file that records how much of it has been sent."""

    def __init__(self, path):
        self.path, self.sent_path = path, path.with_suffix(".sent")
        self.sent = 0
        with contextlib.suppress(OSError, ValueError):
            self.sent = int(self.sent_path.read_text())
        with contextlib.suppress(OSError):
            if self.sent and self.sent >= self.path.stat().st_size:
                # No check can be writing, because the server has not started a kernel yet.
                self.path.unlink()
                self.record(0)

    def record(self, sent):
        """Record how many bytes have been sent."""
        self.sent = sent
        with contextlib.suppress(OSError):  # a full disk: the hub ignores attempts that it has
            self.sent_path.write_text(str(sent))

    def new(self):
        """Return the next attempts to send, and the position in the file after them."""
        with open(self.path, "rb") as file:
            if file.seek(0, os.SEEK_END) < self.sent:  # the learner has deleted the file
                self.sent = 0
            file.seek(self.sent)
            lines = file.readlines(TOGETHER * LONGEST)[:TOGETHER]
        if lines and not lines[-1].endswith(b"\n"):  # a check is still writing it
            lines.pop()
        found = []
        for line in lines:
            with contextlib.suppress(Exception):  # the learner can write anything to the file
                attempt = json.loads(line[:LONGEST])
                attempt["ago"] = max(0, time.time() - attempt.pop("when"))
                attempt["mistake"] = (attempt["mistake"] or "")[:LONGEST_MESSAGE]
                found.append(attempt)
        return found, self.sent + sum(map(len, lines))

    def send(self):
        """Send new attempts; return the number of seconds to wait before the next call."""
        try:
            if self.path.stat().st_size == self.sent:
                return LOOK
            found, end = self.new()
        except OSError:  # for example, before the first attempt
            return LOOK
        try:
            if found:
                body = json.dumps(found, ensure_ascii=False).encode(errors="replace")
                course_hub.ask("attempts", body, seconds=30)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:  # another kind of hub, or COURSE_PROGRESS is off
                return RARELY
            if error.code != 400:  # 400: the learner has edited the file
                wait = error.headers.get("Retry-After", "")
                return int(wait) if wait.isdecimal() else RETRY
        except (OSError, ValueError, http.client.HTTPException):
            return RETRY
        if end != self.sent:
            self.record(end)
        return LOOK

    def send_for_ever(self):
        """Send attempts until the server exits."""
        while True:
            time.sleep(self.send())

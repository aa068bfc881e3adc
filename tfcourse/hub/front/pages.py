"""The design of the hub's pages, and the messages that they show while a server starts or fails."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

from jupyterhub.spawner import Spawner
from jupyterhub.utils import utcnow
from tornado import web

COURSE = "TensorFlow in notebooks"
TEMPLATES = Path(__file__).with_name("templates")
LOGO = TEMPLATES / "logo.svg"

USUAL = 5  # the seconds that a server needs to start on a slow machine, or if others start, too
LONG = 30


async def progress(spawner: Spawner) -> AsyncIterator[dict[str, object]]:
    """Yield a starting server's progress and a message for the learner every second.

    Processes and containers do not report their progress. The progress bar therefore advances with
    time, at a decreasing rate, and is full once the server responds. Spawners use this function as
    a method.
    """
    limit = math.ceil((spawner.start_timeout + spawner.http_timeout) / 60)
    while True:
        now = utcnow(with_tz=False)
        # The elapsed time would be negative if the clock were set back while the server is
        # starting.
        seconds = max(0, (now - (spawner.orm_spawner.started or now)).total_seconds())
        if seconds < LONG:
            message = f"Starting your server. This usually takes about {USUAL} seconds."
        else:
            message = (
                "This is taking longer than usual. Perhaps many servers are starting at once. "
                f"The hub gives up after at most {limit} minutes, and says why."
            )
        yield {"progress": round(95 * (1 - math.exp(-seconds / USUAL))), "message": message}
        await asyncio.sleep(1)


def refusal(sentence: str) -> web.HTTPError:
    """Return an HTTP 503 error with a message for the learner, on pages and in the REST API."""
    error = web.HTTPError(503, sentence)
    error.jupyterhub_message = sentence
    return error

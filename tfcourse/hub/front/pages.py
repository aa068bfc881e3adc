"""What the hub's pages look like, and what they say while a server starts or fails to start."""

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

USUAL = 10  # seconds; how long one process or container takes to start on a quiet machine
LONG = 30


async def progress(spawner: Spawner) -> AsyncIterator[dict[str, object]]:
    """Every second, yield the progress of a server's start and a message for the learner.

    Processes and containers do not report their progress, so the bar grows with time, but ever more
    slowly. The bar is full when the server answers. Spawners use this function as a method.
    """
    limit = math.ceil((spawner.start_timeout + spawner.http_timeout) / 60)
    while True:
        now = utcnow(with_tz=False)
        # A clock that is set back during the start must not break the progress page.
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
    """Return an error that shows this message to the learner, on pages and in the REST API."""
    error = web.HTTPError(503, sentence)
    error.jupyterhub_message = sentence
    return error

"""What the hub's pages say and look like: templates, logo, a start's progress, and its failure."""

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

USUAL = 10  # seconds; one server on a quiet machine, as a process or as a container
LONG = 30


async def progress(spawner: Spawner) -> AsyncIterator[dict[str, object]]:
    """Yield each second how far a start has come, and a sentence for who waits for it.

    Neither processes nor containers tell, so the bar grows with the time, and more slowly as that
    gets long; it is full when the server answers. A spawner has this as its method.
    """
    limit = math.ceil((spawner.start_timeout + spawner.http_timeout) / 60)
    while True:
        now = utcnow(with_tz=False)
        seconds = (now - (spawner.orm_spawner.started or now)).total_seconds()
        if seconds < LONG:
            message = f"Starting your server. This usually takes about {USUAL} seconds."
        else:
            message = (
                "This takes longer than usual. Perhaps many servers are starting at once. "
                f"After {limit} minutes at most the hub gives up, and says why."
            )
        yield {"progress": round(95 * (1 - math.exp(-seconds / USUAL))), "message": message}
        await asyncio.sleep(1)


def refusal(sentence: str) -> web.HTTPError:
    """Return an error that shows the learner this sentence, on pages and in the REST API."""
    error = web.HTTPError(503, sentence)
    error.jupyterhub_message = sentence
    return error

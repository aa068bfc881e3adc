"""A line that an instructor puts on all of the hub's pages, as: The server restarts at 18:00.

It is a file, so that it outlives the hub, and comes and goes without a restart.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from jupyterhub.handlers import BaseHandler
from tornado import web

from tfcourse.hub.classroom.instructors import needs_instructor
from tfcourse.hub.state import state_folder

LONGEST = 300  # characters


def file() -> Path:
    """Return where it is kept."""
    return state_folder() / "hub" / "announcement.json"


def current() -> dict[str, str]:
    """Return its `text`, who said it (`by`) and `when`; nothing if there is none."""
    try:
        return json.loads(file().read_text())
    except (FileNotFoundError, ValueError):  # or half of it, after a power cut
        return {}


def render(user: Any) -> str:
    """Return it as HTML for a visitor; `c.JupyterHub.template_vars` takes this function.

    Who has not logged in does not learn the instructor's name.
    """
    said = current()
    if not said:
        return ""
    when = datetime.fromisoformat(said["when"])
    by = f"{escape(said['by'])}, " if user else ""
    return (
        f"<strong>{escape(said['text'])}</strong><br>"
        f'<small>{by}<time datetime="{when.isoformat()}">{when:%Y-%m-%d, %H:%M} UTC</time></small>'
    )


class AnnouncementHandler(BaseHandler):
    """The page where an instructor puts it up, and takes it away again."""

    @needs_instructor
    async def get(self) -> None:
        """Show the form."""
        html = await self.render_template("announcement.html", said=current(), longest=LONGEST)
        self.finish(html)

    @needs_instructor
    async def post(self) -> None:
        """Put it up; an empty one takes the last one away."""
        text = " ".join(self.get_body_argument("text", "").split())
        if len(text) > LONGEST:
            raise web.HTTPError(400, f"An announcement has {LONGEST} characters at most.")
        if text:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            said = {"text": text, "by": self.current_user.name, "when": now}
            aside = file().with_suffix(".part")
            aside.write_text(json.dumps(said))
            aside.replace(file())  # never half of one
        else:
            file().unlink(missing_ok=True)
        self.redirect(self.hub.base_url + "announcement")

"""The announcement that every page shows, such as "The server restarts at 18:00".

The text is stored in a file. It survives hub restarts and can be changed without a restart.
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
from tfcourse.hub.state import state_folder, write

LONGEST = 300  # characters


def file() -> Path:
    """Return the path of the announcement file."""
    return state_folder() / "hub" / "announcement.json"


def current() -> dict[str, str]:
    """Return the announcement's `text`, author (`by`) and time (`when`), or an empty dict.

    Do not raise an error if the file is missing or damaged, because that would break every page.
    """
    try:
        said = json.loads(file().read_bytes())
        datetime.fromisoformat(said["when"])
        return {name: str(said[name]) for name in ("text", "by", "when")}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return {}


def render(user: Any) -> str:
    """Return the announcement as HTML for a visitor.

    Templates call this function through `c.JupyterHub.template_vars`. Visitors who are not logged
    in do not see the instructor's name.
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


def handlers(app: Any) -> dict[str, type]:
    """Add the announcement page to the navigation bar; return its handler, keyed by path."""
    app.template_vars["announcement_page"] = True
    return {"/announcement": AnnouncementHandler}


class AnnouncementHandler(BaseHandler):
    """The page where instructors post and remove the announcement."""

    @needs_instructor
    async def get(self) -> None:
        """Show the form."""
        html = await self.render_template("announcement.html", said=current(), longest=LONGEST)
        self.finish(html)

    @needs_instructor
    async def post(self) -> None:
        """Post an announcement, or remove the current one if the text is empty."""
        text = " ".join(self.get_body_argument("text", "").split())
        if len(text) > LONGEST:
            raise web.HTTPError(400, f"An announcement can have at most {LONGEST} characters.")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        said = {"text": text, "by": self.current_user.name, "when": now}
        try:
            if text:
                write(file(), json.dumps(said).encode())
            else:
                file().unlink(missing_ok=True)
        except OSError as error:
            raise web.HTTPError(
                503, f"The announcement was not changed: {error.strerror}. Tell the administrator."
            ) from None
        self.redirect(self.hub.base_url + "announcement")

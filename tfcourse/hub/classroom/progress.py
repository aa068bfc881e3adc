"""Receive attempts from learners' servers, and show them to learners and instructors."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from jupyterhub import orm
from jupyterhub.apihandlers import APIHandler
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.utils import utcnow
from sqlalchemy.orm import joinedload
from tornado import web
from tornado.iostream import StreamClosedError

from tfcourse import spreadsheet
from tfcourse.hub import settings
from tfcourse.hub.classroom import attempts, course, instructors
from tfcourse.hub.classroom.instructors import needs_instructor
from tfcourse.hub.limits import Limit

# The file in which a learner's kernels record attempts, and from which the server sends them.
FILE = "~/.local/share/tensorflow-course/attempts.jsonl"

RECENT = timedelta(days=7)  # the period in which frequent mistakes are counted

LOOK = 0.5  # seconds between checks for changes
REFRESH = 20  # seconds until an open page is updated even if nothing has changed
STREAM = 300  # seconds until a page must reconnect, so that revoked rights take effect


def environment() -> dict[str, str]:
    """Return the environment variables for learners' servers."""
    return {"COURSE_ATTEMPTS": FILE} if settings.PROGRESS() else {}


def handlers(app: Any) -> dict[str, type]:
    """Add the pages to the navigation bar; return the handlers, keyed by path."""
    if not settings.PROGRESS():
        return {}
    app.template_vars["progress_pages"] = True
    return {
        "/api/users/([^/]+)/attempts": AttemptsHandler,
        "/progress": ProgressHandler,
        "/class": ClassHandler,
        "/class/live": LiveHandler,
        "/class/table.csv": TableHandler,
        "/class/of/([^/]+)": LearnerHandler,
    }


class AttemptsHandler(APIHandler):
    """The endpoint to which a learner's server sends attempts.

    The server's token identifies the learner. JupyterHub rejects it for any other learner.
    """

    # Enough for an evening of work that was recorded offline, and more than anyone can type.
    limit = Limit(600, seconds=1)

    @needs_scope("users:activity")
    async def post(self, user_name: str) -> None:
        """Store the attempts; send the number of new ones."""
        user = orm.User.find(self.db, user_name)
        if not user:
            raise web.HTTPError(404)
        if wait := self.limit.wait(user_name):
            told = f"The hub has received too many attempts. Try again in {wait} seconds."
            error = web.HTTPError(429, told)
            error.headers = {"Retry-After": str(wait)}
            raise error
        try:
            sent = json.loads(self.request.body)
            new = attempts.store(self.db, user, sent)
        except (ValueError, RecursionError) as error:
            self.limit.count(user_name)
            raise web.HTTPError(400, f"The attempts were not stored: {error}.") from None
        for _ in sent or [None]:
            self.limit.count(user_name)
        self.finish(json.dumps({"stored": new}))


# --- A learner's page


class ProgressHandler(BaseHandler):
    """The page where learners see their stored attempts, and can stop sharing them."""

    @web.authenticated
    async def get(self) -> None:
        """Show the page."""
        await self.show(self.current_user.orm_user)

    async def show(self, user: orm.User) -> None:
        """Show a learner's attempts."""
        found = attempts.statuses(self.db, user).get(user.id, {})
        mistakes = attempts.last_mistakes(self.db, [user.id])
        html = await self.render_template(
            "progress.html",
            learner=user.name,
            lessons=course.lessons(),
            statuses=found,
            mistakes={key[1:]: mistake for key, mistake in mistakes.items()},
            private=attempts.is_private(self.db, user),
            now=utcnow(with_tz=False),
            ago=ago,
        )
        self.finish(html)

    @web.authenticated
    async def post(self) -> None:
        """Start or stop sharing attempts."""
        share = self.get_body_argument("share", "")
        if share not in ("yes", "no"):
            raise web.HTTPError(400, "This form has expired. Open the page again.")
        attempts.set_private(self.db, self.current_user.orm_user, share == "no")
        self.redirect(self.hub.base_url + "progress")


class LearnerHandler(ProgressHandler):
    """The page that shows an instructor one learner's attempts."""

    @needs_instructor
    async def get(self, name: str) -> None:
        """Show the page."""
        user = orm.User.find(self.db, name)
        if not user:
            raise web.HTTPError(404, f"There is no learner {name!r}.")
        await self.show(user)

    async def post(self, name: str) -> None:
        """Refuse, because only learners themselves can stop sharing their attempts."""
        raise web.HTTPError(405)


# --- The *Class* page


@dataclass
class Learner:
    """A row of the table on the *Class* page."""

    name: str
    private: bool
    last: datetime | None  # the last attempt
    statuses: dict[tuple[str, str], attempts.Status]
    done: dict[str, int] = field(default_factory=dict)  # by lesson
    stuck: set[str] = field(default_factory=set)  # lessons

    def __post_init__(self):
        for (lesson, _), status in self.statuses.items():
            self.done[lesson] = self.done.get(lesson, 0) + status.right
            if status.is_stuck:
                self.stuck.add(lesson)


def overview(db: Any, group: str = "") -> dict[str, Any]:
    """Return what the *Class* page shows: learners, who is stuck, and frequent mistakes.

    Without a group, leave out administrators and instructors. With one, include all its members.
    """
    now = utcnow(with_tz=False)
    users = db.query(orm.User).options(joinedload(orm.User.groups)).order_by(orm.User.name)
    groups = {user: {each.name for each in user.groups} for user in users}
    if group:
        shown = [user for user in groups if group in groups[user]]
    else:
        staff = instructors.GROUP
        shown = [user for user in groups if not user.admin and staff not in groups[user]]
    found = attempts.statuses(db)
    private = {number for (number,) in db.query(attempts.Private.user_id)}
    learners = [
        Learner(
            user.name,
            user.id in private,
            max((each.last for each in found.get(user.id, {}).values()), default=None),
            found.get(user.id, {}),
        )
        for user in shown
    ]
    ids = {user.id: user.name for user in shown}
    stuck = {number for number in ids if any(s.is_stuck for s in found.get(number, {}).values())}
    last = attempts.last_mistakes(db, stuck)
    return {
        "now": now,
        "ago": ago,
        "group": group,
        "groups": sorted(set().union(*groups.values()) - {instructors.GROUP}),
        "lessons": course.lessons(),
        "names": course.names(),
        "learners": learners,
        "stuck": sorted(
            (
                (ids[number], lesson, exercise, status, last.get((number, lesson, exercise), ""))
                for number in stuck
                for (lesson, exercise), status in found[number].items()
                if status.is_stuck
            ),
            key=lambda row: row[3].last,
            reverse=True,
        ),
        "frequent": attempts.frequent_mistakes(db, ids, now - RECENT),
    }


def ago(now: datetime, when: datetime) -> str:
    """Return in words how long ago a time was."""
    minutes = max(0, int((now - when).total_seconds() // 60))
    for size, unit in ((24 * 60, "day"), (60, "hour"), (1, "minute")):
        if count := minutes // size:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


class ClassHandler(BaseHandler):
    """The page that shows instructors the progress of the whole class."""

    @needs_instructor
    async def get(self) -> None:
        """Show the page."""
        view = overview(self.db, self.get_argument("group", ""))
        self.finish(await self.render_template("class.html", **view))


class LiveHandler(BaseHandler):
    """A stream of server-sent events with the part of the *Class* page that changes."""

    # For each group, the most recent version and HTML, to reuse for other instructors.
    rendered: ClassVar[dict[str, tuple[str, str]]] = {}

    @needs_instructor
    async def get(self) -> None:
        """Send the HTML whenever it may have changed, for a few minutes."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        group = self.get_argument("group", "")
        sent = ""
        deadline = time.monotonic() + STREAM
        try:
            while time.monotonic() < deadline:
                began = time.monotonic()
                # The page also changes with time: it shows how long ago attempts were made.
                version = f"{attempts.version}-{int(began // REFRESH)}"
                if version != sent:
                    self.write(f"data: {json.dumps(await self.part(group, version))}\n\n")
                    await self.flush()
                    sent = version
                spent = time.monotonic() - began
                # However large the class is, an open page uses at most a tenth of a processor.
                await asyncio.sleep(max(LOOK, 10 * spent))
        except StreamClosedError:
            pass

    async def part(self, group: str, version: str) -> str:
        """Return the changing part of the page as HTML."""
        which, html = self.rendered.get(group, ("", ""))
        if which != version:
            view = overview(self.db, group)
            html = await self.render_template("class-live.html", **view)
            if group in ["", *view["groups"]]:  # not any text in a URL
                self.rendered[group] = version, html
        return html


class TableHandler(BaseHandler):
    """The class's attempts as a CSV file: a row for each learner and exercise.

    A learner without attempts has a row with nothing but the name and the groups.
    """

    COLUMNS = ("learner", "groups", "lesson", "exercise", "right", "mistakes", "last", "said")

    @needs_instructor
    async def get(self) -> None:
        """Send the file."""
        users = {user.id: user for user in self.db.query(orm.User).order_by(orm.User.name)}
        last = attempts.last_mistakes(self.db, users)
        found = attempts.statuses(self.db)
        file = io.StringIO(newline="")
        table = csv.writer(file)
        table.writerow(self.COLUMNS)
        for number, user in users.items():
            groups = ", ".join(sorted(group.name for group in user.groups))
            if number not in found and not instructors.is_instructor(user):
                table.writerow([spreadsheet.safe(user.name), spreadsheet.safe(groups)])
            for (lesson, exercise), status in sorted(found.get(number, {}).items()):
                when = status.last.isoformat(sep=" ", timespec="seconds")
                said = "" if status.right else last.get((number, lesson, exercise), "")
                verdict = [int(status.right), status.tries, when, said]
                row = [user.name, groups, lesson, exercise, *verdict]
                table.writerow([spreadsheet.safe(str(value)) for value in row])
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="class.csv"')
        self.finish("\ufeff" + file.getvalue())  # Excel needs the mark to recognise UTF-8

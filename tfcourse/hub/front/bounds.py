"""Limit what visitors can make the hub store: request bodies, log entries, tokens."""

from __future__ import annotations

import logging
from typing import Any

from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from jupyterhub.log import log_request
from jupyterhub.metrics import prometheus_log_method
from sqlalchemy import event, func
from sqlalchemy.orm import object_session
from tornado.httpserver import HTTPServer
from tornado.web import HTTPError

from tfcourse.hub.limits import Limit

# The largest legitimate requests contain a few thousand names that an administrator adds, or a
# learning platform's signed message. Tornado's own limit is 100 MB, and Tornado keeps a whole body
# in memory.
LARGEST_BODY = 256 * 1024  # bytes
BODY_SECONDS = 60  # the time-out for receiving a body

# Strangers can cause warnings, and log entries about requests without a log-in. At this rate, a log
# of 50 MB lasts for weeks.
ENTRIES_AT_ONCE = 300
SECONDS_PER_ENTRY = 10
# All other log entries are about users who are logged in. Two thousand users can log in within
# minutes.
OTHERS_AT_ONCE = 3000
SECONDS_PER_OTHER = 1
LONGEST_ENTRY = 2000  # characters

LONGEST_NOTE = 200  # characters; PostgreSQL refuses more than 1023, and SQLite has no limit
MOST_TOKENS = 100  # for each person, and for each server or service that they log in to


def configure(c: Any) -> None:
    """Set the limits; they also apply on the hub's own port, which learners' servers can reach."""
    HTTPServer.configure(None, max_body_size=LARGEST_BODY, body_timeout=BODY_SECONDS)
    c.JupyterHub.tornado_settings.update({"log_function": Requests()})
    c.JupyterHub.logging_config = {
        "filters": {"bounds": {"()": Entries}},
        "handlers": {"console": {"filters": ["bounds"]}},
    }
    event.listen(orm.APIToken.note, "set", shortened, retval=True)
    event.listen(orm.APIToken.user, "set", replace_oldest)


class Requests:
    """Log requests as JupyterHub does, but limit log entries about visitors not logged in.

    Anyone can make any number of requests, and Docker removes the oldest entries of a full log.
    """

    def __init__(self):
        self.limit = Limit(ENTRIES_AT_ONCE, SECONDS_PER_ENTRY)

    def __call__(self, handler: BaseHandler) -> None:
        """Log the request that a handler has answered; Tornado calls this."""
        if not user_of(handler):
            if self.limit.wait("visitors"):
                prometheus_log_method(handler)
                return
            self.limit.count("visitors")
        log_request(handler)


def user_of(handler: BaseHandler) -> Any:
    """Return the user or service that made a request, or None if nobody is logged in."""
    try:
        return handler.current_user
    except (HTTPError, RuntimeError):  # as in JupyterHub's log_request
        return None


class Entries(logging.Filter):
    """Shorten long log entries, and limit how often each place in the code can log.

    Some log entries repeat what visitors sent, such as an unknown user name.
    """

    def __init__(self):
        super().__init__()
        self.warnings = Limit(ENTRIES_AT_ONCE, SECONDS_PER_ENTRY)
        self.others = Limit(OTHERS_AT_ONCE, SECONDS_PER_OTHER)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log an entry, after shortening it."""
        place = record.pathname, record.lineno
        limit = self.warnings if record.levelno >= logging.WARNING else self.others
        if record.funcName != "log_request":  # requests have their own limit, above
            if limit.wait(place):
                return False
            limit.count(place)
            if limit.wait(place):
                record.msg = f"{record.getMessage()} [More like this are left out for a while.]"
                record.args = ()
        text = record.getMessage()
        if len(text) > LONGEST_ENTRY:
            record.msg = f"{text[:LONGEST_ENTRY]} ... [{len(text)} characters]"
            record.args = ()
        return True


def shortened(token: orm.APIToken, note: str | None, *_: Any) -> str | None:
    """Return a token's note, shortened; SQLAlchemy calls this before it sets the note."""
    return note and note[:LONGEST_NOTE]


def replace_oldest(token: orm.APIToken, user: orm.User | None, *_: Any) -> None:
    """Delete the user's least recently used tokens; SQLAlchemy calls this for each new token.

    Each page with a user's tokens, and each log-out, loads all of them.
    """
    db = user and object_session(user)
    if not db:
        return
    last_use = func.coalesce(orm.APIToken.last_activity, orm.APIToken.created)
    with db.no_autoflush:
        others = db.query(orm.APIToken).filter_by(user_id=user.id, client_id=token.client_id)
        for oldest in others.order_by(last_use.desc()).offset(MOST_TOKENS - 1):
            db.delete(oldest)
